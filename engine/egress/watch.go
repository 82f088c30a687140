package egress

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	kernel "github.com/atoll-sh/atoll/ebpf/egress"
	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/policies"
)

// Holding is one use of a slot: no two sandboxes ever have the same number.
type Holding struct {
	Slot   int
	Number uint32
}

// teller is told of what the filter sees.
type teller func(h Holding, r engine.ActivityRecord)

// maxPast bounds the slots that are remembered for events that come late.
const maxPast = 1024

// Watch tells of the flows and names of all sandboxes until ctx ends. The
// records have no sandbox; the kernel does not know it. One Watch at a time
// gets each flow. The kernel tells of flows that are allowed from the first
// Watch on, and goes on after the last one: what it kept meanwhile, as far as
// there is room, is for the next one, which may be in another process.
func (f *Filter) Watch(ctx context.Context, tell func(h Holding, r engine.ActivityRecord)) error {
	r, err := f.kernel.Events()
	if err != nil {
		return err
	}
	t := teller(tell)
	f.teller.Store(&t)
	if err := f.logFlows(); err != nil {
		return errors.Join(err, r.Close())
	}
	defer f.teller.Store(nil)
	stop := context.AfterFunc(ctx, func() { r.Close() })
	defer stop()
	looking, enough := context.WithCancel(ctx)
	var look sync.WaitGroup
	look.Go(func() { f.look(looking, t) })
	defer func() {
		enough()
		look.Wait()
	}()
	for {
		e, err := r.Read()
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if h, rec, ok := f.flow(e); ok {
			tell(h, rec)
		}
	}
}

func (f *Filter) logFlows() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watched = true
	return f.kernel.SetLogAllow(true)
}

// tell passes on what this process saw of a slot.
func (f *Filter) tell(index int, r engine.ActivityRecord) {
	t := f.teller.Load()
	if t == nil {
		return
	}
	f.mu.Lock()
	st := f.slots[index]
	f.mu.Unlock()
	if st != nil {
		(*t)(Holding{index, st.number}, r)
	}
}

// flow makes a record of a kernel's event.
func (f *Filter) flow(e kernel.Event) (Holding, engine.ActivityRecord, bool) {
	kinds := map[kernel.EventType]engine.ActivityKind{
		kernel.EventNew: engine.ActivityConnect, kernel.EventDeny: engine.ActivityDeny,
		kernel.EventClose: engine.ActivityClose, kernel.EventCut: engine.ActivityCut,
	}
	r := engine.ActivityRecord{
		Kind: kinds[e.Type], Protocol: protocol(e.Protocol), Inbound: e.Inbound, Local: address(e.Local), Remote: address(e.Remote),
		Sent: e.Sent.Bytes, Received: e.Got.Bytes,
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.numbers[e.Sandbox]
	if st == nil || r.Kind == "" || e.Type != kernel.EventDeny && st.resolves(e.Remote) {
		return Holding{}, r, false
	}
	r.Host = st.names[e.Remote.Addr()]
	r.Rule = ruleName(st.policy, e)
	if f.guarded(e) && !st.leads(e) {
		if e.Type != kernel.EventNew {
			return Holding{}, r, false
		}
		r.Kind, r.Rule, r.Reason = engine.ActivityDeny, "blocked/private", "private"
	}
	if e.Type == kernel.EventDeny || e.Type == kernel.EventCut {
		r.Reason = e.Reason.String()
		if !byPolicy(r.Reason) {
			r.Rule = ""
		}
	}
	return Holding{st.device.Slot, st.number}, r, true
}

// guarded tells whether a flow that the programs let pass goes where the guard
// lets nobody go, whatever a policy says: a network that is not of the internet.
func (f *Filter) guarded(e kernel.Event) bool {
	return (e.Type == kernel.EventNew || e.Type == kernel.EventClose) && !e.Inbound && f.host != nil && f.host.Denied(e.Remote.Addr())
}

// leads tells whether a flow is led to the proxy, which tells of it by itself
// where it may not go on.
func (st *slot) leads(e kernel.Event) bool {
	if e.Protocol != unix.IPPROTO_TCP || e.Remote.Port() != 80 && e.Remote.Port() != 443 {
		return false
	}
	if st.seal != nil || st.upstream != nil {
		return true
	}
	byAddress := st.policy != nil && e.Rule >= 1 && int(e.Rule) <= len(st.policy.Egress.Rules) && len(st.policy.Egress.Rules[e.Rule-1].Networks) > 0
	return (st.byName || st.learns) && !byAddress
}

// resolves tells whether an address is where the slot's sandbox asks for
// names; the names are told instead.
func (st *slot) resolves(a netip.AddrPort) bool {
	return a.Port() == dnsPort && (a.Addr() == st.device.Gateway4 || a.Addr() == st.device.Gateway6)
}

// byPolicy tells whether a packet was refused by a rule, rather than for what
// it was: no policy would have let it through.
func byPolicy(reason string) bool {
	switch reason {
	case "rule", "default", "blocked", "name-expired", "cut":
		return true
	}
	return false
}

// ruleName names what decided, as policies.Decide does.
func ruleName(p *policies.Policy, e kernel.Event) string {
	switch {
	case e.Reason.String() == "blocked":
		if blocked := policies.Blocked(); e.Rule >= 1 && int(e.Rule) <= len(blocked) {
			if b, ok := policies.BlockedAddress(e.Remote.Addr()); ok {
				return "blocked/" + b.Name
			}
		}
		return "blocked"
	case p == nil:
		return ""
	case e.Rule >= 1 && int(e.Rule) <= len(p.Egress.Rules):
		return p.Egress.Rules[e.Rule-1].Name
	}
	if e.Type != kernel.EventDeny && p.Egress.Default != policies.Allow {
		return "" // led to the proxy, which judges the name
	}
	return "default"
}

func protocol(n uint8) string {
	switch n {
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 1, 58:
		return "icmp"
	}
	return ""
}

func address(a netip.AddrPort) string {
	switch {
	case !a.Addr().IsValid() || a.Addr().IsUnspecified() && a.Port() == 0:
		return ""
	case a.Port() == 0:
		return a.Addr().String()
	}
	return a.String()
}

// nameRecord is the record of a name that was asked for.
func nameRecord(name string, d policies.Decision) engine.ActivityRecord {
	r := engine.ActivityRecord{Kind: engine.ActivityDNS, Host: name, Verdict: "deny", Rule: d.Rule, Reason: d.Reason}
	if d.Allow {
		r.Verdict, r.Reason = "allow", ""
	}
	return r
}

// rememberLocked keeps a slot for events that come after it is gone.
func (f *Filter) rememberLocked(number uint32) {
	if f.past = append(f.past, number); len(f.past) > maxPast {
		delete(f.numbers, f.past[0])
		f.past = f.past[1:]
	}
}
