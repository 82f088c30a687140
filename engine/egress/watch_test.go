package egress

import (
	"context"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/atoll-sh/atoll/engine"
)

// TestRefusalsAreTold refuses a sandbox something in every way there is: each
// must leave a record of its own sandbox.
func TestRefusalsAreTold(t *testing.T) {
	w := newWorld(t)
	s := w.slot(domains("good.example", "rebind.example"))
	ctx, stop := context.WithCancel(context.Background())
	var mu sync.Mutex
	var told []engine.ActivityRecord
	var watching sync.WaitGroup
	watching.Go(func() {
		_ = w.filter.Watch(ctx, func(h Holding, r engine.ActivityRecord) {
			mu.Lock()
			defer mu.Unlock()
			if h.Slot == s.Index && (r.Kind == engine.ActivityDeny || r.Verdict == "deny") {
				told = append(told, r)
			}
		})
	})
	defer watching.Wait()
	defer stop()
	for end := time.Now().Add(wait); w.filter.teller.Load() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody watches")
		}
	}
	for _, tt := range []struct {
		story string
		try   func()
	}{
		{"an address", func() { _, _ = greets(s, evil4+":9000", patience) }},
		{"a name", func() { _, _, _ = lookup(s, "evil.example", dnsmessage.TypeA) }},
		{"a name of private addresses", func() { _, _, _ = lookup(s, "rebind.example", dnsmessage.TypeA) }},
		{"TLS to a foreign name", func() { _, _ = get(s, "evil.example", good4+":443") }},
		{"TLS to a name of private addresses", func() { _, _ = get(s, "rebind.example", good4+":443") }},
		{"no TLS", func() { _, _ = plain(s, good4+":443", "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n") }},
		{"a foreign host", func() { _, _ = plain(s, good4+":80", "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n") }},
		{"two hosts", func() {
			_, _ = plain(s, good4+":80", "GET / HTTP/1.1\r\nHost: good.example\r\nHost: evil.example\r\n\r\n")
		}},
		{"no HTTP", func() { _, _ = plain(s, good4+":80", "\x05\x01\x00\r\n\r\n") }},
	} {
		mu.Lock()
		told = nil
		mu.Unlock()
		tt.try()
		for end := time.Now().Add(wait); ; time.Sleep(time.Millisecond) {
			mu.Lock()
			n := len(told)
			mu.Unlock()
			if n > 0 {
				break
			}
			if time.Now().After(end) {
				t.Errorf("%s: nothing was told", tt.story)
				break
			}
		}
	}
}
