package egress

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/activity"
)

// told is the ledger of what the filter tells while it is attacked.
type told struct {
	ledger *activity.Ledger
	filter *Filter // that begins to fold anew at each mark

	stop func()
	log  func(...any)

	mu   sync.Mutex
	seen map[string]uint64 // by sandbox, the last record before the attack
}

// eventWait is how long the record of an attack is waited for. Some of them are
// found by looking only.
const eventWait = 2*lookEvery + 2*time.Second

// evidence is which record tells of an attack, where a refusal alone is not it.
var evidence = map[string]func(r engine.ActivityRecord) bool{
	"policy/empty-entries":  policyRecord(engine.PolicyRefused, ""),
	"policy/block-wins":     policyRecord(engine.PolicyApplied, "deny all else"),
	"policy/refused-list":   policyRecord(engine.PolicyRefused, ""),
	"policy/no-policy-yet":  reasoned(engine.ActivityDeny, "no-policy"),
	"sandbox/internet-back": reasoned(engine.ActivityDeny, "unasked"),
	"lifecycle/lost-pins":   reasoned(engine.ActivityGap, "were taken from the device"),

	"dns/deny-all": func(r engine.ActivityRecord) bool {
		return r.Kind == engine.ActivityDeny && strings.HasSuffix(r.Remote, ":53")
	},
	"dns/other-types-allowed-name": lookedUp("not asked, being of type TXT"),
	"dns/two-questions":            reasoned(engine.ActivityDNS, "malformed: 2 questions"),
	"dns/trailing-bytes":           lookedUp("bytes behind it"),
	"dns/edns-option":              lookedUp("bytes of EDNS options"),
	"dns/case":                     lookedUp("case"),
	"dns/identifier":               lookedUp(""),
	"dns/update-and-notify":        reasoned(engine.ActivityDNS, "malformed: operation 5"),
	"dns/other-class":              reasoned(engine.ActivityDNS, "malformed: a question of class CHAOS"),
	"dns/zero-byte":                reasoned(engine.ActivityDNS, "malformed: "),
	"dns/dot-in-label":             reasoned(engine.ActivityDNS, "malformed: "),
	"dns/pointer-loop":             reasoned(engine.ActivityDNS, "malformed: a broken name"),
	"name/half-private":            reasoned(engine.ActivityDNS, "1 of 2 addresses"),

	"tls/allowed-name-foreign-address":  proxied("good.example", evil4+":443", good4, unread),
	"tls/two-hellos":                    proxied("good.example", evil4+":443", good4, unread),
	"tls/fronting":                      proxied("good.example", evil4+":443", good4, unread),
	"tls/relayed-connect":               proxied("good.example", good4+":443", good4, unread),
	"tls/coalescing":                    proxied("good.example", evil4+":443", good4, unread),
	"http/allowed-name-foreign-address": proxied("good.example", evil4+":80", good4, ""),
	"proxy/unset-variables":             proxied("good.example", good4+":443", "", "by the outbound proxy"),
	"proxy/dies":                        reasoned(engine.ActivityConnect, "the outbound proxy does not answer"),

	"raw/icmp-about-flow": func(r engine.ActivityRecord) bool {
		return r.Kind == engine.ActivityDeny && r.Protocol == "icmp" && r.Remote == evil4 && r.Reason == "icmp"
	},
	"host/listed-private": func(r engine.ActivityRecord) bool {
		return r.Kind == engine.ActivityDeny && r.Rule == "blocked/private"
	},

	"update/pending-hello":      cutOf("slow.example"),
	"update/pending-request":    cutOf("slow.example"),
	"update/spliced-connection": cutOf("good.example"),

	"secret/foreign-host":            proxied("evil.example", evil4+":443", evil4, unread),
	"secret/host-at-foreign-address": proxied("good.example", evil4+":443", good4, "opened"),
	"secret/in-the-clear":            ofSecret(engine.SecretWithheld, holder),
	"secret/echo":                    ofSecret(engine.SecretRedacted, "api key"),
	"secret/redirect":                ofSecret(engine.SecretRedacted, "api key"),
	"secret/other-authority":         reasoned(engine.ActivityDeny, "another host"),
	"secret/authority-elsewhere":     ofSecret(engine.SecretUntrusted, ""),
	"secret/fork":                    ofSecret(engine.SecretWithheld, holder),
	"secret/detached":                proxied("good.example", good4+":443", good4, unread),
	"secret/unreadable":              ofSecret(engine.SecretUnreadable, ""),
}

func refused(r engine.ActivityRecord) bool {
	return r.Kind == engine.ActivityDeny || r.Kind == engine.ActivityCut || r.Verdict == "deny"
}

func policyRecord(operation, detail string) func(engine.ActivityRecord) bool {
	return func(r engine.ActivityRecord) bool {
		return r.Kind == engine.ActivityPolicy && r.Operation == operation && r.Detail == detail && (r.Reason != "") == (operation == engine.PolicyRefused)
	}
}

func reasoned(kind engine.ActivityKind, reason string) func(engine.ActivityRecord) bool {
	return func(r engine.ActivityRecord) bool { return r.Kind == kind && strings.Contains(r.Reason, reason) }
}

// lookedUp is a question for a name that is allowed, of which something went no
// further.
func lookedUp(detail string) func(engine.ActivityRecord) bool {
	return func(r engine.ActivityRecord) bool {
		return r.Kind == engine.ActivityDNS && r.Verdict == "allow" && r.Host != "" && strings.Contains(r.Detail, detail)
	}
}

// proxied is a web connection to an address, and where it really went; empty:
// nobody says.
func proxied(host, to, went, how string) func(engine.ActivityRecord) bool {
	return func(r engine.ActivityRecord) bool {
		return r.Operation == engine.Proxied && r.Host == host && r.Remote == to && strings.Join(r.Addresses, " ") == went && strings.Contains(r.Detail, how) && r.Reason == ""
	}
}

func cutOf(host string) func(engine.ActivityRecord) bool {
	return func(r engine.ActivityRecord) bool {
		return r.Kind == engine.ActivityCut && r.Host == host && r.Rule != ""
	}
}

func ofSecret(operation, name string) func(engine.ActivityRecord) bool {
	return func(r engine.ActivityRecord) bool {
		return r.Kind == engine.ActivitySecret && r.Operation == operation && r.Detail == name
	}
}

// watchEvents keeps what the filter tells until the test ends.
func watchEvents(t testing.TB, f *Filter) *told {
	t.Helper()
	l, err := activity.Open(activity.Config{Dir: t.TempDir(), Key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))})
	must(t, err)
	w := &told{ledger: l, log: t.Log, seen: map[string]uint64{}}
	w.watch(t, f)
	t.Cleanup(func() {
		w.stop()
		l.Close()
	})
	return w
}

// watch keeps what another filter tells, until stop.
func (w *told) watch(t testing.TB, f *Filter) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() { _ = f.Watch(ctx, w.record) })
	w.filter = f
	w.stop = func() {
		cancel()
		watching.Wait()
	}
	for end := time.Now().Add(wait); f.teller.Load() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody watches")
		}
	}
}

func (w *told) record(h Holding, r engine.ActivityRecord) {
	r.Sandbox = fmt.Sprintf("slot-%d", h.Number)
	w.mu.Lock()
	if _, known := w.seen[r.Sandbox]; !known {
		w.seen[r.Sandbox] = 0
	}
	w.mu.Unlock()
	w.ledger.Record(r)
}

// mark forgets what was told so far.
func (w *told) mark(ctx context.Context) {
	w.filter.folds.all(w.record)
	w.each(ctx, func(engine.ActivityRecord) bool { return false })
}

// each visits what was told since, until it is taken.
func (w *told) each(ctx context.Context, take func(engine.ActivityRecord) bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, after := range w.seen {
		for more := true; more; {
			page, err := w.ledger.Query(ctx, id, engine.ActivityQuery{After: after, Limit: 1000})
			if err != nil {
				break
			}
			for _, r := range page.Items {
				if take(r) {
					return true
				}
			}
			after, more = page.Next, page.More
		}
		w.seen[id] = after
	}
	return false
}

// of returns the record since mark that tells of an attack, as
// SANDBOX/SEQUENCE; empty when there is none.
func (w *told) of(ctx context.Context, attack string) string {
	tells := evidence[attack]
	if tells == nil {
		tells = refused
	}
	r := w.wait(ctx, tells)
	if r == nil {
		return ""
	}
	return fmt.Sprintf("%s/%d", r.Sandbox, r.Sequence)
}

// wait returns the first record since mark that is wanted; nil when none comes.
func (w *told) wait(ctx context.Context, wanted func(engine.ActivityRecord) bool) (found *engine.ActivityRecord) {
	var others []string
	take := func(r engine.ActivityRecord) bool {
		if wanted(r) {
			found = &r
		}
		if line, err := json.Marshal(r); err == nil && len(others) < 20 {
			others = append(others, string(line))
		}
		return found != nil
	}
	for end := time.Now().Add(eventWait); !w.each(ctx, take) && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if found == nil {
		w.log("there is only\n" + strings.Join(others, "\n"))
	}
	return found
}
