package egress

import (
	"bufio"
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/learn"
	"github.com/atoll-sh/atoll/engine/network"
	"github.com/atoll-sh/atoll/policies"
)

// watch tells of what the filter sees until the test ends.
func (w *world) watch(tell func(engine.ActivityRecord)) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	watched := make(chan error, 1)
	go func() { watched <- w.filter.Watch(ctx, func(_ Holding, r engine.ActivityRecord) { tell(r) }) }()
	w.t.Cleanup(func() { cancel(); must(w.t, <-watched) })
	for deadline := time.Now().Add(wait); w.filter.teller.Load() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatal("nobody watches")
		}
	}
}

// enforce makes a whole policy hold on a slot.
func (w *world) enforce(s network.Slot, p *policies.Policy) {
	w.t.Helper()
	w.filter.mu.Lock()
	defer w.filter.mu.Unlock()
	st, err := w.filter.slotLocked(s)
	must(w.t, err)
	st.learns = false
	must(w.t, w.filter.forgetNamesLocked(st, p))
	must(w.t, w.filter.enforceLocked(st, p))
	w.filter.proxy.recheck(s.Index, p)
}

// resolve looks a name up and returns its first address.
func resolve(t *testing.T, s network.Slot, name string, kind dnsmessage.Type) string {
	t.Helper()
	code, addrs, err := lookup(s, name, kind)
	if err != nil || code != 0 || len(addrs) == 0 {
		t.Fatalf("%s: %v %v %v", name, code, addrs, err)
	}
	return addrs[0].String()
}

// traffic is what a build might do: web hosts by both versions of IP, a host on
// a port of its own, and an address that nobody looked up.
func traffic(t *testing.T, s network.Slot) {
	t.Helper()
	for _, name := range []string{"good.example", "a.cdn.example"} {
		to := net.JoinHostPort(resolve(t, s, name, dnsmessage.TypeA), "443")
		if got, err := get(s, name, to); err != nil || got != "200 good served "+name+"/x" {
			t.Errorf("TLS to %s: %q, %v", name, got, err)
		}
	}
	six := net.JoinHostPort(resolve(t, s, "good.example", dnsmessage.TypeAAAA), "443")
	if got, err := get(s, "good.example", six); err != nil || got != "200 good served good.example/x" {
		t.Errorf("TLS over IPv6: %q, %v", got, err)
	}
	web := net.JoinHostPort(resolve(t, s, "a.cdn.example", dnsmessage.TypeA), "80")
	if got, err := plain(s, web, "GET /y HTTP/1.1\r\nHost: a.cdn.example\r\nConnection: close\r\n\r\n"); err != nil || got != "200 good served a.cdn.example/y" {
		t.Errorf("HTTP: %q, %v", got, err)
	}
	if who, err := greets(s, net.JoinHostPort(resolve(t, s, "good.example", dnsmessage.TypeA), "9000"), wait); err != nil || who != "good" {
		t.Errorf("a port of its own: %q, %v", who, err)
	}
	if who, err := greets(s, evil4+":22", wait); err != nil || who != "evil" {
		t.Errorf("an address: %q, %v", who, err)
	}
}

// The policy that a sandbox's traffic asks for, and no more.
const learned = `name: build
description: learned from what a sandbox did
egress:
  default: deny
  rules:
    - name: addresses-22-tcp
      allow:
        - 203.0.113.9
      ports:
        - 22/tcp
    - name: hosts-443-tcp-9000-tcp
      allow:
        - good.example
      ports:
        - 443/tcp
        - 9000/tcp
    - name: hosts-80-tcp-443-tcp
      allow:
        - a.cdn.example
      ports:
        - 80/tcp
        - 443/tcp
`

// TestLearnedPolicyReplays lets a sandbox do its work in the open, makes the
// policy of what the filter saw, and lets it do the same again under that.
func TestLearnedPolicyReplays(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	seen := learn.New()
	w.watch(func(r engine.ActivityRecord) {
		mu.Lock()
		defer mu.Unlock()
		seen.Add(r)
	})
	s := w.slot(engine.NetworkPolicy{Learn: true})
	resolve(t, s, "half.example", dnsmessage.TypeA) // looked up only
	traffic(t, s)
	var text string
	var notes []string
	for deadline := time.Now().Add(wait); text != learned && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		mu.Lock()
		p, n := seen.Policy("build", false)
		mu.Unlock()
		b, err := policies.Format(p)
		must(t, err)
		text, notes = string(b), n
	}
	if diff := cmp.Diff(learned, text); diff != "" {
		t.Fatalf("the policy (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"looked up but not connected to, so not allowed: half.example"}, notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}

	p, err := policies.Parse([]byte(text))
	must(t, err)
	w.enforce(s, p)
	traffic(t, s)
	for _, name := range []string{"half.example", "evil.example", "b.cdn.example", "cdn.example"} {
		if code, _, err := lookup(s, name, dnsmessage.TypeA); err != nil || code != dnsmessage.RCodeNameError {
			t.Errorf("%s resolved: %v, %v", name, code, err)
		}
	}
	for _, a := range []string{good4 + ":22", evil4 + ":9000", evil4 + ":80"} {
		if who, err := greets(s, a, patience); err == nil {
			t.Errorf("%s answered %q", a, who)
		}
	}
	for name, to := range map[string]string{"evil.example": good4 + ":443", "b.cdn.example": good4 + ":443"} {
		if got, err := get(s, name, to); err == nil {
			t.Errorf("TLS for %s at %s: %q", name, to, got)
		}
	}
	if got, err := plain(s, good4+":80", "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n"); err == nil && got[:3] == "200" {
		t.Errorf("HTTP to a host that only had TLS: %q", got)
	}
}

// A web connection that names no host is denied by its address, which is what
// an operator can allow.
func TestDenialsOfAddressesNameThem(t *testing.T) {
	w := newWorld(t)
	told := make(chan engine.ActivityRecord, 64)
	w.watch(func(r engine.ActivityRecord) {
		if r.Kind == engine.ActivityDeny {
			told <- r
		}
	})
	s := w.slot(domains("good.example"))
	for what, try := range map[string]func() (string, error){
		evil4 + ":443": func() (string, error) { return get(s, evil4, evil4+":443") }, // without a name in the hello
		evil4 + ":80": func() (string, error) {
			return plain(s, evil4+":80", "GET / HTTP/1.1\r\nHost: "+evil4+"\r\n\r\n")
		},
	} {
		if got, err := try(); err == nil && got[:3] == "200" {
			t.Errorf("%s: got %q", what, got)
		}
		select {
		case r := <-told:
			if r.Remote != what || r.Rule != "egress/default" || r.Protocol != "tcp" {
				t.Errorf("%s: told %+v", what, r)
			}
		case <-time.After(wait):
			t.Errorf("%s: nothing was told", what)
		}
	}
}

// TestGrants opens what an operator allowed beside the lists, and cuts nothing.
func TestGrants(t *testing.T) {
	w := newWorld(t)
	base := networks(good4 + "/32")
	s := w.slot(base)
	kept, err := connect(s, "tcp", good4+":9000", wait)
	must(t, err)
	defer kept.Close()
	_ = kept.SetDeadline(time.Now().Add(2 * wait))
	answers := bufio.NewReader(kept)
	if line, err := answers.ReadString('\n'); err != nil || line != "good\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	if code, _, err := lookup(s, "evil.example", dnsmessage.TypeA); err != nil || code != dnsmessage.RCodeNameError {
		t.Fatalf("before: %v, %v", code, err)
	}
	base.Grants = []engine.NetworkGrant{
		{ID: "a", Host: "evil.example"}, {ID: "b", Host: "alias.example", Port: 22, Protocol: "tcp"}, {ID: "c", Address: evil4, Port: 9000, Protocol: "tcp"},
	}
	must(t, w.manager.Apply(t.Context(), s, base))
	if got, err := get(s, "evil.example", net.JoinHostPort(resolve(t, s, "evil.example", dnsmessage.TypeA), "443")); err != nil || got != "200 evil served evil.example/x" {
		t.Errorf("a host: %q, %v", got, err)
	}
	if who, err := greets(s, evil4+":9000", wait); err != nil || who != "evil" {
		t.Errorf("an address: %q, %v", who, err)
	}
	if who, err := greets(s, evil4+":22", patience); err == nil {
		t.Errorf("another port answered %q", who)
	}
	_, err = kept.Write([]byte("still there\n"))
	must(t, err)
	if line, err := answers.ReadString('\n'); err != nil || line != "still there\n" {
		t.Errorf("a connection was cut: %q, %v", line, err)
	}

	blocked := w.slot(engine.NetworkPolicy{BlockAll: true, Grants: base.Grants[2:]})
	if who, err := greets(blocked, evil4+":9000", wait); err != nil || who != "evil" {
		t.Errorf("an address beside a closed network: %q, %v", who, err)
	}
	must(t, w.manager.Apply(t.Context(), blocked, engine.NetworkPolicy{BlockAll: true}))
	if who, err := greets(blocked, evil4+":9000", patience); err == nil {
		t.Errorf("a grant that ended: %q", who)
	}
}
