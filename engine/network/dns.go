package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dnsPort = 53
	// maxQuestion bounds a UDP question; real ones are below 512 bytes.
	maxQuestion = 4096
	maxMessage  = 65535
	headerSize  = 12

	askTimeout = 2 * time.Second // one resolver
	askTotal   = 6 * time.Second // all of them
	tcpIdle    = 10 * time.Second

	relayBusy     = 512 // questions under way, all sandboxes
	slotBusy      = 32  // questions and TCP connections under way, one sandbox
	slotRate      = 200 // questions a second, one sandbox
	slotBurst     = 400
	tcpPerConn    = 200 // questions on one connection
	rcodeServfail = 2
	rcodeRefused  = 5
)

// relay answers the sandboxes' DNS questions on the gateway addresses by
// passing them to the host's resolvers. Who asks is told by the source address,
// which the guard has checked against the device.
type relay struct {
	port   uint16 // 53, or another one that the guard redirects 53 to
	udp    []*net.UDPConn
	tcp    []*net.TCPListener
	slotOf func(netip.Addr) (int, bool) // false unless it is an open slot's
	ask    func() []netip.AddrPort
	log    *slog.Logger
	limits *limits
	filter Filter // nil: every name is allowed
	once   sync.Once
	wg     sync.WaitGroup
}

// listenRelay binds the gateway addresses. Where another name server has taken
// port 53 of every address, it uses another privileged port.
func listenRelay(m *Manager) (*relay, error) {
	var last error
	for _, port := range []uint16{dnsPort, 953, 855, 553, 543} {
		r := &relay{port: port, slotOf: m.openSlot, ask: m.resolvers.current, log: m.log, limits: newLimits(), filter: m.filter}
		err := r.listen(m.plan.slot(firstSlot))
		if err == nil {
			return r, nil
		}
		r.close()
		last = err
		if !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	return nil, fmt.Errorf("listen for DNS: %w", last)
}

func (r *relay) listen(gw Slot) error {
	for _, f := range gw.families() {
		at := netip.AddrPortFrom(f.gateway, r.port)
		u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err != nil {
			return err
		}
		r.udp = append(r.udp, u)
		t, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		if err != nil {
			return err
		}
		r.tcp = append(r.tcp, t)
	}
	return nil
}

// openSlot finds the slot of an address when it is open.
func (m *Manager) openSlot(a netip.Addr) (int, bool) {
	b := a.Unmap().As16()
	i := int(b[14]&(perServer/256-1))<<8 | int(b[15])
	for _, f := range m.plan.slot(i).families() {
		if f.addr == a.Unmap() {
			return i, m.table.isOpen(i)
		}
	}
	return 0, false
}

// serve runs until close.
func (r *relay) serve(ctx context.Context) {
	for _, u := range r.udp {
		r.wg.Go(func() { r.serveUDP(ctx, u) })
	}
	for _, t := range r.tcp {
		r.wg.Go(func() { r.serveTCP(ctx, t) })
	}
	r.wg.Wait()
}

func (r *relay) close() {
	r.once.Do(func() {
		for _, u := range r.udp {
			u.Close()
		}
		for _, t := range r.tcp {
			t.Close()
		}
	})
}

func (r *relay) serveUDP(ctx context.Context, u *net.UDPConn) {
	buf := make([]byte, maxQuestion+1)
	for {
		n, from, err := u.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n > maxQuestion {
			continue
		}
		slot, ok := r.slotOf(from.Addr())
		if !isQuestion(buf[:n]) {
			if ok {
				r.refuse(slot, buf[:n])
			}
			continue
		}
		if !ok {
			_, _ = u.WriteToUDPAddrPort(failure(buf[:n], rcodeRefused), from)
			continue
		}
		if !r.limits.take(slot) {
			continue // silence slows a flood down better than answers
		}
		q := append([]byte(nil), buf[:n]...)
		r.wg.Go(func() {
			defer r.limits.give(slot)
			_, _ = u.WriteToUDPAddrPort(r.answer(ctx, "udp", slot, q), from)
		})
	}
}

func (r *relay) serveTCP(ctx context.Context, l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, most likely
			select {
			case <-ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		from := c.RemoteAddr().(*net.TCPAddr).AddrPort()
		slot, ok := r.slotOf(from.Addr())
		if !ok || !r.limits.take(slot) {
			c.Close()
			continue
		}
		r.wg.Go(func() {
			defer r.limits.give(slot)
			r.serveConn(ctx, c, slot)
		})
	}
}

// serveConn answers the questions on one connection, one after the other.
func (r *relay) serveConn(ctx context.Context, c *net.TCPConn, slot int) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	for range tcpPerConn {
		_ = c.SetDeadline(time.Now().Add(tcpIdle)) // fails only on a closed one
		q, err := readFrame(c)
		if err != nil || !r.limits.spend(slot) {
			return
		}
		if !isQuestion(q) {
			r.refuse(slot, q)
			return
		}
		if _, still := r.slotOf(c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()); !still {
			return
		}
		if err := writeFrame(c, r.answer(ctx, "tcp", slot, q)); err != nil {
			return
		}
	}
}

// refuse has the filter tell of a message that is no question.
func (r *relay) refuse(slot int, message []byte) {
	if r.filter != nil {
		r.filter.NoQuestion(slot, message)
	}
}

// answer returns what to send back: what the filter says of the question, or
// of the resolvers' answer to it.
func (r *relay) answer(ctx context.Context, network string, slot int, q []byte) []byte {
	if r.filter == nil {
		return r.resolve(ctx, network, q)
	}
	ask, answer := r.filter.Question(slot, q)
	if answer != nil {
		return answer
	}
	if len(ask) < headerSize { // the filter made nothing of it
		return failure(q, rcodeServfail)
	}
	return r.filter.Answer(ctx, slot, ask, r.resolve(ctx, network, ask))
}

// resolve asks the resolvers in turn. Questions get a fresh id, since the one
// of the sandbox is no secret from it.
func (r *relay) resolve(ctx context.Context, network string, q []byte) []byte {
	ctx, cancel := context.WithTimeout(ctx, askTotal)
	defer cancel()
	for _, at := range r.ask() {
		a, err := exchange(ctx, network, at, q)
		if err == nil {
			return a
		}
		r.log.Debug("asking a resolver", "resolver", at, "err", err)
		if ctx.Err() != nil {
			break
		}
	}
	return failure(q, rcodeServfail)
}

func exchange(ctx context.Context, network string, at netip.AddrPort, q []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, network, at.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	mine := withID(q, randomID())
	if network == "tcp" {
		err = writeFrame(c, mine)
	} else {
		_, err = c.Write(mine)
	}
	if err != nil {
		return nil, err
	}
	buf := make([]byte, maxMessage)
	for {
		var a []byte
		if network == "tcp" {
			a, err = readFrame(c)
		} else {
			var n int
			n, err = c.Read(buf)
			a = buf[:n]
		}
		if err != nil {
			return nil, err
		}
		if isAnswerTo(a, mine) {
			return withID(a, binary.BigEndian.Uint16(q)), nil
		}
	}
}

func readFrame(c io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(c, b)
	return b, err
}

func writeFrame(c io.Writer, b []byte) error {
	_, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}
