package network

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	flagResponse = 0x80 // in byte 2
	maskOpcode   = 0x78
)

// isQuestion tells whether b is a standard query with one question. Notify,
// update and the like have no business with the host's resolvers.
func isQuestion(b []byte) bool {
	return len(b) > headerSize && b[2]&(flagResponse|maskOpcode) == 0 &&
		binary.BigEndian.Uint16(b[4:]) == 1 && question(b) != nil
}

// isAnswerTo tells whether a answers q: same id, same question.
func isAnswerTo(a, q []byte) bool {
	if len(a) < headerSize || a[2]&flagResponse == 0 || !bytes.Equal(a[:2], q[:2]) {
		return false
	}
	asked := question(a)
	// Some servers leave the question out of an error.
	return asked == nil && a[3]&0x0f != 0 || bytes.EqualFold(asked, question(q))
}

// question returns the bytes of the first question, nil when there is none or
// it is damaged.
func question(b []byte) []byte {
	if len(b) < headerSize || binary.BigEndian.Uint16(b[4:]) == 0 {
		return nil
	}
	for i := headerSize; i < len(b); {
		n := int(b[i])
		switch {
		case n == 0 && i+5 <= len(b) && i-headerSize < 255:
			return b[headerSize : i+5]
		case n == 0 || n > 63: // too short, or a pointer, which a question never needs
			return nil
		}
		i += 1 + n
	}
	return nil
}

// failure makes the answer to q that carries an error code only.
func failure(q []byte, code byte) []byte {
	a := append([]byte(nil), q[:headerSize]...)
	a[2] |= flagResponse
	a[3] = 0x80 | code
	clear(a[4:])
	if asked := question(q); asked != nil {
		a[5] = 1
		a = append(a, asked...)
	}
	return a
}

func withID(b []byte, id uint16) []byte {
	out := append([]byte(nil), b...)
	binary.BigEndian.PutUint16(out, id)
	return out
}

func randomID() uint16 {
	var b [2]byte
	rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint16(b[:])
}

// limits bounds what one sandbox, and all together, can ask of the resolvers.
type limits struct {
	mu    sync.Mutex
	busy  int
	slots map[int]*budget
}

type budget struct {
	busy   int
	tokens float64
	at     time.Time
}

func newLimits() *limits { return &limits{slots: map[int]*budget{}} }

// take admits one question or connection; give ends it.
func (l *limits) take(slot int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.budgetLocked(slot)
	if l.busy >= relayBusy || b.busy >= slotBusy || b.tokens < 1 {
		return false
	}
	l.busy++
	b.busy++
	b.tokens--
	return true
}

func (l *limits) give(slot int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy--
	l.slots[slot].busy--
}

// spend admits one more question on a connection that was taken.
func (l *limits) spend(slot int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.budgetLocked(slot)
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func (l *limits) budgetLocked(slot int) *budget {
	now := time.Now()
	b := l.slots[slot]
	if b == nil {
		b = &budget{tokens: slotBurst}
		l.slots[slot] = b
	} else {
		b.tokens = min(slotBurst, b.tokens+now.Sub(b.at).Seconds()*slotRate)
	}
	b.at = now
	return b
}

// resolvers are where to pass questions to.
type resolvers struct {
	fixed []netip.AddrPort

	mu     sync.Mutex
	list   []netip.AddrPort
	read   time.Time // when the file was looked at
	change time.Time // the file's time then
}

func newResolvers(fixed []netip.AddrPort) *resolvers { return &resolvers{fixed: fixed} }

const resolvConf = "/etc/resolv.conf"

// current returns the configured resolvers or those of /etc/resolv.conf.
func (r *resolvers) current() []netip.AddrPort {
	if len(r.fixed) > 0 {
		return r.fixed
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.read) < time.Second {
		return r.list
	}
	r.read = time.Now()
	st, err := os.Stat(resolvConf)
	if err != nil || st.ModTime().Equal(r.change) {
		return r.list
	}
	b, err := os.ReadFile(resolvConf)
	if err != nil {
		return r.list
	}
	r.change, r.list = st.ModTime(), parseResolvConf(b)
	return r.list
}

// parseResolvConf returns the first three name servers, as the C library does,
// which asks the local host when there are none.
func parseResolvConf(b []byte) []netip.AddrPort {
	var out []netip.AddrPort
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan() && len(out) < 3; {
		f := strings.Fields(s.Text())
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			out = append(out, netip.AddrPortFrom(a, dnsPort))
		}
	}
	if len(out) == 0 {
		out = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), dnsPort)}
	}
	return out
}
