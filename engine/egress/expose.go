package egress

import (
	"bytes"
	"net"
	"strings"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/secret"
)

// placeholderLength is that of secret.Placeholder, which ends with a UUID.
const placeholderLength = len(secret.PlaceholderPrefix) + 36

// placeholders calls found for each placeholder of whatever secret in a text,
// and returns how many bytes at its end may be the begin of one.
func placeholders(text []byte, found func(placeholder string)) (open int) {
	prefix := []byte(secret.PlaceholderPrefix)
	for {
		at := bytes.Index(text, prefix)
		if at < 0 {
			break
		}
		if text = text[at:]; len(text) < placeholderLength {
			return len(text)
		}
		if holder := text[:placeholderLength]; proper(holder[len(prefix):]) {
			found(string(holder))
		}
		text = text[len(prefix):]
	}
	for n := min(len(prefix)-1, len(text)); n > 0; n-- {
		if bytes.HasSuffix(text, prefix[:n]) {
			return n
		}
	}
	return 0
}

// proper tells whether a text could be the id of a secret.
func proper(id []byte) bool {
	return strings.Trim(string(id), "0123456789abcdefABCDEF-") == ""
}

// looked is a connection that is looked through for placeholders. What it reads
// stays as it is.
type looked struct {
	net.Conn
	found func(placeholder string)
	open  []byte // the begin of one, perhaps
}

// Read implements net.Conn.
func (l *looked) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	text := b[:n]
	if len(l.open) > 0 {
		text = append(l.open, text...)
	}
	l.open = bytes.Clone(text[len(text)-placeholders(text, l.found):])
	return n, err
}

// CloseWrite passes the end on where the connection can.
func (l *looked) CloseWrite() error {
	if w, ok := l.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// sealed tells whether a slot's sandbox has secrets.
func (f *Filter) sealed(slot int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.slots[slot]
	return st != nil && st.seal != nil
}

// ofSecret tells what became of a secret on a connection. name may be empty.
func (p *proxy) ofSecret(c *conn, operation, name, host, verdict, reason string) {
	p.filter.tellOnce(c.slot, engine.ActivityRecord{
		Kind: engine.ActivitySecret, Operation: operation, Detail: name, Host: host, Verdict: verdict, Reason: reason,
		Protocol: "tcp", Local: c.local(), Remote: c.to.String(),
	})
}

// swapped tells what was done to a secret in a request, or in its answer.
func (p *proxy) swapped(c *conn, operation, name, host string) {
	switch operation {
	case engine.SecretSent:
		p.ofSecret(c, operation, name, host, "allow", "")
	case engine.SecretWithheld:
		p.ofSecret(c, operation, name, host, "deny", "it is not for this host, or not of this sandbox")
	case engine.SecretRedacted:
		p.ofSecret(c, operation, name, host, "", "the host's answer held the value")
	}
}

// exposed tells of a placeholder in what a sandbox sends in the clear.
func (p *proxy) exposed(c *conn, placeholder string) {
	c.mu.Lock()
	host := c.name
	c.mu.Unlock()
	p.ofSecret(c, engine.SecretWithheld, placeholder, host, "deny", "it went in the clear, where no value is put in its place")
}

// unreadable tells that a connection was refused because nobody knows which
// secrets are for its host.
func (p *proxy) unreadable(c *conn, host string) {
	p.ofSecret(c, engine.SecretUnreadable, "", host, "deny", "the sandbox's secrets cannot be read now")
}
