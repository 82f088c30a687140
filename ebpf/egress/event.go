package egress

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// EventType is what happened to a flow.
type EventType uint8

// The types of events.
const (
	EventNew   EventType = iota + 1 // allowed
	EventDeny                       // a packet was refused
	EventClose                      // a TCP connection ended
	EventCut                        // a flow that the policy allows no longer
)

// Reason is why a packet was refused.
type Reason uint8

// reasons names them for people, in the order of egress.h.
var reasons = [...]string{
	"none", "rule", "blocked", "default", "spoofed-mac", "spoofed-address", "ethertype",
	"arp", "nd", "fragment", "malformed", "ip-options", "extension-header", "icmp",
	"cut", "inbound", "quic", "rate", "protocol", "name-expired",
}

// String is the reason's name, as "blocked".
func (r Reason) String() string {
	if int(r) < len(reasons) {
		return reasons[r]
	}
	return fmt.Sprintf("reason-%d", uint8(r))
}

// Event is one entry of the ring buffer.
type Event struct {
	Type          EventType
	Time          time.Duration // since boot
	Sandbox       uint32
	Rule, Domain  uint32
	Reason        Reason
	Protocol      uint8
	Inbound       bool
	Local, Remote netip.AddrPort // ports are 0 where there are none
	Cookie        uint64         // of the sandbox's socket; 0 when unknown
	Sent, Got     Traffic        // EventClose and EventCut
}

// Traffic counts one direction.
type Traffic struct{ Packets, Bytes uint64 }

// Reader reads events.
type Reader struct{ ring *ringbuf.Reader }

// Events opens the ring buffer. One reader at a time gets each event.
func (f *Filter) Events() (*Reader, error) {
	r, err := ringbuf.NewReader(f.objs.Events)
	if err != nil {
		return nil, fmt.Errorf("open the egress events: %w", err)
	}
	r.SetDeadline(time.Now().Add(lookEvery))
	return &Reader{r}, nil
}

// Close ends Read.
func (r *Reader) Close() error { return r.ring.Close() }

// lookEvery is how long news of allowed flows may lie in the ring: the kernel
// wakes the reader for refusals only, or when much has gathered.
const lookEvery = 25 * time.Millisecond

// Read waits for the next event. It returns os.ErrClosed after Close.
func (r *Reader) Read() (Event, error) {
	for {
		rec, err := r.ring.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			r.ring.SetDeadline(time.Now().Add(lookEvery))
			continue
		}
		if errors.Is(err, ringbuf.ErrClosed) {
			return Event{}, os.ErrClosed
		}
		if err != nil {
			return Event{}, err
		}
		if e, err := decode(rec.RawSample); err == nil {
			return e, nil
		}
	}
}

func decode(b []byte) (Event, error) {
	var raw bpfEvent
	if err := binary.Read(bytes.NewReader(b), binary.NativeEndian, &raw); err != nil {
		return Event{}, err
	}
	return Event{
		Type: EventType(raw.Type), Time: time.Duration(raw.Time), Sandbox: raw.Sandbox, Rule: raw.Rule, Domain: raw.Domain,
		Reason: Reason(raw.Reason), Protocol: raw.Proto, Inbound: raw.Dir == 1, Cookie: raw.Cookie,
		Local: endpoint(raw.Laddr, raw.Lport), Remote: endpoint(raw.Raddr, raw.Rport),
		Sent: Traffic{raw.TxPackets, raw.TxBytes}, Got: Traffic{raw.RxPackets, raw.RxBytes},
	}, nil
}

func endpoint(a [16]uint8, port uint16) netip.AddrPort {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return netip.AddrPortFrom(netip.AddrFrom16(a).Unmap(), binary.BigEndian.Uint16(b[:]))
}

// Stats counts what was judged for a sandbox.
type Stats struct {
	Flows      uint64
	Denied     uint64
	Lost       uint64            // events for which the ring had no room
	Suppressed uint64            // deny events beyond the budget
	Drops      map[string]uint64 // by reason
}

// Stats returns the counters of a sandbox; the zero value when it is unknown.
func (f *Filter) Stats(sandbox uint32) (Stats, error) {
	var per []bpfStats
	if err := f.objs.Counters.Lookup(sandbox, &per); err != nil {
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			err = nil
		}
		return Stats{}, err
	}
	s := Stats{Drops: map[string]uint64{}}
	for _, p := range per {
		s.Flows += p.Flows
		s.Denied += p.Denied
		s.Lost += p.Lost
		s.Suppressed += p.Suppressed
		for i, n := range p.Drops {
			if n > 0 {
				s.Drops[Reason(i).String()] += n
			}
		}
	}
	return s, nil
}
