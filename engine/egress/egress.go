// Package egress makes network policies hold: it compiles them for the kernel's
// programs (ebpf/egress), judges the names that sandboxes ask for, and proxies
// what a policy about names is about, so that the name in the request decides
// and not the address it happens to go to.
//
// Everything fails closed. A slot without a policy gets nothing; names that
// cannot be judged do not resolve; when the server is down the kernel goes on
// with the last policy, and what needs the server is refused.
package egress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"

	kernel "github.com/atoll-sh/atoll/ebpf/egress"
	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/network"
	"github.com/atoll-sh/atoll/engine/secret"
	"github.com/atoll-sh/atoll/policies"
)

// Filter implements network.Filter.
type Filter struct {
	log    *slog.Logger
	kernel *kernel.Filter
	proxy  *proxy
	teller atomic.Pointer[teller]
	folds  *folder
	// upstreams are private networks that outbound proxies may be in.
	upstreams []netip.Prefix

	resolver atomic.Pointer[secret.Resolver] // nil until SetResolver

	mu      sync.Mutex
	host    network.Host
	slots   map[int]*slot
	next    uint32           // number of the next sandbox
	numbers map[uint32]*slot // all of slots, and some that are gone
	past    []uint32         // numbers of those, the oldest first
	watched bool             // somebody wants to know of flows that are allowed
}

// slot is one sandbox's network.
type slot struct {
	device kernel.Device
	number uint32           // of the sandbox, to the kernel
	policy *policies.Policy // nil until the first Apply
	byName bool             // the policy allows names
	learns bool             // everything is open, and names are noted
	seal   *seal            // what puts secrets into its traffic; nil: it has none
	// upstream is the proxy of its web connections; nil: it has none.
	upstream *upstream
	early    uint64 // packets before the policy, as far as they were told
	fresh    bool   // nothing was resolved for it by an earlier run
	names    map[netip.Addr]string
	budget   nameBudget
}

// Open loads the programs and adopts what an earlier run left below dir, which
// is in a BPF file system. Outbound proxies of sandboxes are on the public
// internet or in one of the networks upstreams. It fails with KindUnsupported
// where the kernel cannot do it.
func Open(dir string, upstreams []netip.Prefix, log *slog.Logger) (*Filter, error) {
	k, err := kernel.Open(dir)
	if errors.Is(err, ebpf.ErrNotSupported) {
		return nil, engine.Errorf(engine.KindUnsupported, "this kernel cannot run the egress programs").
			WithHint("Linux 5.12 or later with BPF is needed").Wrap(err)
	}
	if err != nil {
		return nil, err
	}
	f := &Filter{log: log, kernel: k, folds: newFolder(), slots: map[int]*slot{}, numbers: map[uint32]*slot{}, upstreams: upstreams, next: 1}
	for _, n := range k.Sandboxes() {
		f.next = max(f.next, n+1)
	}
	f.proxy = newProxy(f)
	return f, nil
}

// Start implements network.Filter.
func (f *Filter) Start(ctx context.Context, host network.Host) (network.Marks, error) {
	f.mu.Lock()
	f.host = host
	f.mu.Unlock()
	blocked := map[netip.Prefix]uint32{}
	for i, b := range policies.Blocked() {
		if !b.Prefix.Addr().Is4In6() { // to the kernel, these are the IPv4 addresses
			blocked[b.Prefix] = uint32(i + 1)
		}
	}
	for _, a := range host.Gateways() {
		blocked[netip.PrefixFrom(a, a.BitLen())] = 1
	}
	if err := f.kernel.SetBlocked(blocked); err != nil {
		return network.Marks{}, err
	}
	port, err := f.proxy.listen(ctx, host.Gateways())
	if err != nil {
		return network.Marks{}, fmt.Errorf("listen for the proxy: %w", err)
	}
	return network.Marks{Mark: kernel.Mark, Mask: kernel.MarkMask, Proxy: kernel.MarkProxy, ProxyPort: port}, nil
}

// Close ends the proxy and gives the programs' descriptors back. The programs
// go on.
func (f *Filter) Close() error {
	f.proxy.close()
	return f.kernel.Close()
}

// Attach implements network.Filter.
func (f *Filter) Attach(s network.Slot, device int) error {
	d := kernel.Device{
		Name: s.Device, Index: device, Slot: s.Index, MAC: network.InsideMAC(), DNSPort: dnsPort,
		Addr4: s.Addr4, Gateway4: s.Gateway4, Addr6: s.Addr6, Gateway6: s.Gateway6,
	}
	if err := f.kernel.Attach(d); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	number, known := f.kernel.Sandbox(d)
	if !known {
		number = f.next
		f.next++
	}
	st := &slot{device: d, number: number, fresh: !known, names: map[netip.Addr]string{}}
	f.slots[s.Index], f.numbers[number] = st, st
	return nil
}

const dnsPort = 53

// Apply implements network.Filter.
func (f *Filter) Apply(s network.Slot, p engine.NetworkPolicy) error {
	told, err := f.apply(s, p)
	if err != nil {
		told = []engine.ActivityRecord{{Kind: engine.ActivityPolicy, Operation: engine.PolicyRefused, Reason: err.Error()}}
	}
	for _, r := range told {
		f.tellOnce(s.Index, r)
	}
	return err
}

// apply returns what there is to tell of the change: the policy, when it is
// another than before, and the connections that ended.
func (f *Filter) apply(s network.Slot, p engine.NetworkPolicy) (told []engine.ActivityRecord, err error) {
	policy, err := FromNetwork(p)
	if err != nil {
		return nil, err
	}
	up, err := f.outboundProxy(p.OutboundProxyURL)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	st, err := f.slotLocked(s)
	if err != nil {
		return nil, err
	}
	if err := f.forgetNamesLocked(st, policy); err != nil {
		return nil, err
	}
	old, before, had := st.upstream, st.learns, st.policy
	st.upstream, st.learns = up, p.Learn
	if err := f.enforceLocked(st, policy); err != nil {
		st.upstream, st.learns = old, before
		return nil, err
	}
	if had != nil && (before != p.Learn || !old.same(up) || !reflect.DeepEqual(had, policy)) {
		told = append(told, engine.ActivityRecord{Kind: engine.ActivityPolicy, Operation: engine.PolicyApplied, Detail: describe(policy, p.Learn)})
	}
	if !old.same(up) {
		f.proxy.drop(s.Index)
	}
	return append(told, f.proxy.recheck(s.Index, policy)...), nil
}

// outboundProxy reads a proxy's URL, and refuses one at an address that no
// sandbox may use. A name is looked up with each connection.
func (f *Filter) outboundProxy(text string) (*upstream, error) {
	up, err := upstreamOf(text)
	if up == nil || err != nil {
		return nil, err
	}
	if a, err := netip.ParseAddr(up.host); err == nil && f.refusesUpstream(a) {
		return nil, engine.Errorf(engine.KindDenied, "the outbound proxy is at a private address").
			WithHint("the operator may allow its network with outbound_proxies")
	}
	return up, nil
}

func (f *Filter) slotLocked(s network.Slot) (*slot, error) {
	st := f.slots[s.Index]
	if st == nil || st.device.Name != s.Device {
		return nil, engine.Errorf(engine.KindInternal, "network slot %d has no filter", s.Index)
	}
	return st, nil
}

// enforceLocked gives the kernel a policy. Web connections of a sandbox with
// secrets or an outbound proxy go through the proxy whatever the policy is about
// and by whichever rule they are allowed, and so do those of one that learns.
func (f *Filter) enforceLocked(st *slot, policy *policies.Policy) error {
	program := compile(policy)
	byName := program.Proxy
	program.ProxyAll = st.seal != nil || st.upstream != nil
	program.Proxy = byName || st.learns || program.ProxyAll
	program.LogAllow = f.watched
	program.NoRelay = !program.DefaultAllow && !allowsAny(policy) // nobody answers there, so that it is refused, and told, as all else is
	if err := f.kernel.Apply(st.device, st.number, program); err != nil {
		return engine.Errorf(engine.KindInvalid, "the network policy cannot be enforced: %v", err).
			WithHint("use fewer or wider ranges")
	}
	st.policy, st.byName, st.fresh = policy, byName, true
	return nil
}

// forgetNamesLocked closes the addresses of names that the new policy does not
// allow. What an earlier run resolved is not known by name: the first policy
// after a restart is the one it was resolved under, so it stays.
func (f *Filter) forgetNamesLocked(st *slot, p *policies.Policy) error {
	if !st.fresh {
		return nil
	}
	if st.policy == nil {
		return f.kernel.ForgetNames(st.number)
	}
	for a, name := range st.names {
		if policies.Decide(p, policies.LookupRequest{Name: name}).Allow {
			continue
		}
		if err := f.kernel.Forget(st.number, a); err != nil {
			return err
		}
		delete(st.names, a)
	}
	return nil
}

// Detach implements network.Filter.
func (f *Filter) Detach(s network.Slot) error {
	f.mu.Lock()
	st := f.slots[s.Index]
	delete(f.slots, s.Index)
	if st != nil {
		f.rememberLocked(st.number)
	}
	f.mu.Unlock()
	if st != nil {
		f.tellLast(st)
	}
	f.proxy.drop(s.Index)
	if st == nil {
		return nil
	}
	return f.kernel.Detach(st.device)
}
