package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Name is what a resolved name opens at one of its addresses.
type Name struct {
	Rule   uint32
	Domain uint32 // told in events
	Ranges []Range
	TTL    time.Duration // of new flows; those that stand go on
}

// Learn opens an address for a sandbox, because a name that its policy allows
// was resolved to it. It must return before the sandbox gets the answer. Rules
// about addresses that deny, and the block list, still hold.
func (f *Filter) Learn(sandbox uint32, a netip.Addr, n Name) error {
	v := bpfNameRule{Expires: uint64(max(bootNow()+n.TTL, 0)), Id: n.Rule, Domain: n.Domain}
	if len(n.Ranges) > len(v.Ranges) {
		return fmt.Errorf("a name has %d port ranges, of at most %d", len(n.Ranges), len(v.Ranges))
	}
	if len(n.Ranges) == 0 {
		v.Flags = ruleAny
	}
	for i, g := range n.Ranges {
		v.Ranges[i].Proto, v.Ranges[i].First, v.Ranges[i].Last = g.Protocol, g.First, g.Last
		v.Count++
	}
	return f.objs.Names.Put(bpfNameKey{Sandbox: sandbox, Addr: a.As16()}, v)
}

// ForgetNames closes every address that a sandbox's names opened.
func (f *Filter) ForgetNames(sandbox uint32) error {
	return f.dropNames(func(k bpfNameKey, _ bpfNameRule) bool { return k.Sandbox == sandbox })
}

// ExpireNames removes the entries that expired longer than grace ago. The
// programs do not heed them any more for new flows.
func (f *Filter) ExpireNames(grace time.Duration) error {
	before := uint64(max(bootNow()-grace, 0))
	return f.dropNames(func(_ bpfNameKey, v bpfNameRule) bool { return v.Expires < before })
}

func (f *Filter) dropNames(which func(bpfNameKey, bpfNameRule) bool) error {
	var all []bpfNameKey
	var key bpfNameKey
	var value bpfNameRule
	it := f.objs.Names.Iterate()
	for it.Next(&key, &value) {
		if which(key, value) {
			all = append(all, key)
		}
	}
	errs := []error{it.Err()}
	for _, k := range all {
		errs = append(errs, gone(f.objs.Names.Delete(k)))
	}
	return errors.Join(errs...)
}

// Forget closes one address that a sandbox's names opened; nil when it is not
// open.
func (f *Filter) Forget(sandbox uint32, a netip.Addr) error {
	return gone(f.objs.Names.Delete(bpfNameKey{Sandbox: sandbox, Addr: a.As16()}))
}
