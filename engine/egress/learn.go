package egress

import (
	"bufio"
	"net/http"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/learn"
	"github.com/atoll-sh/atoll/policies"
)

// learning tells whether a slot's names are to be noted.
func (f *Filter) learning(slot int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.slots[slot]
	return st != nil && st.learns
}

// noteAnswer tells which addresses a name stands for.
func (f *Filter) noteAnswer(index int, q, a []byte) {
	_, question, err := parseQuestion(q)
	if err != nil {
		return
	}
	found, err := addresses(question, a)
	if err != nil || len(found.records) == 0 {
		return
	}
	r := nameRecord(plainName(question), policies.Decision{Allow: true, Rule: "default"})
	r.Operation = learn.Resolved
	for _, one := range found.records {
		r.Addresses = append(r.Addresses, one.addr.Unmap().String())
	}
	f.tell(index, r)
}

// noteName tells for which name a connection was made, while the sandbox
// learns. It does not let the connection pass by that name: the address is the
// sandbox's own choice.
func (p *proxy) noteName(c *conn, name string) {
	if !p.filter.learning(c.slot) {
		return
	}
	p.filter.tell(c.slot, engine.ActivityRecord{
		Kind: engine.ActivityConnect, Operation: learn.Named, Protocol: "tcp", Host: name, Rule: "default",
		Local: c.local(), Remote: c.to.String(),
	})
}

// noteRequest reads the first HTTP request's header of a sandbox that learns,
// for its host, and returns it, empty when there is none, and what was read,
// whatever it was.
func (p *proxy) noteRequest(c *conn) (host string, read []byte) {
	if !p.filter.learning(c.slot) {
		return "", nil
	}
	rec := &recorder{Conn: c}
	in := bufio.NewReader(rec)
	if first, err := in.Peek(1); err != nil || first[0] < 'A' || first[0] > 'Z' {
		return "", rec.read.Bytes() // no HTTP
	}
	r, err := http.ReadRequest(in)
	if err == nil {
		if host, err = requestHost(r, &webConn{conn: c}); err == nil {
			p.noteName(c, host)
		}
	}
	return host, rec.read.Bytes()
}
