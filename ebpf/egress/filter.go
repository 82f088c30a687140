package egress

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/ebpf/kernel"
)

// The marks that packets of sandboxes carry when the programs let them pass. A
// guard drops those without, so that losing the programs closes the network.
const (
	Mark      = 0x5b000000 // of all of them
	MarkMask  = 0xff000000
	MarkProxy = 0x5b000001 // to be redirected to the proxy
)

// layout is the version of the maps: another one is another directory, so that
// programs never read what they do not understand.
const layout = "v1"

// Filter is the loaded programs and their maps. Its methods may be called
// concurrently.
type Filter struct {
	dir  string
	objs bpfObjects

	mu         sync.Mutex
	nextPolicy uint32
	entries    map[uint32][]bpfRuleKey // of each policy
}

// Device is the host end of a sandbox's network device.
type Device struct {
	Name     string // unique; names the pins
	Index    int    // of the interface
	Slot     int    // 0..4095, unique among devices at one time
	MAC      [6]byte
	Addr4    netip.Addr
	Gateway4 netip.Addr
	Addr6    netip.Addr // zero: the sandbox has no IPv6
	Gateway6 netip.Addr
	DNSPort  uint16 // of the name relay on the gateway addresses; 0: none
}

// Open loads the programs and pins them and their maps below dir, which must
// lie in a BPF file system. What an earlier process pinned there is adopted:
// policies and flows go on as they are. It fails with ebpf.ErrNotSupported
// where the kernel cannot run the programs.
func Open(dir string) (*Filter, error) {
	kernel.FreeMemlock()
	dir = filepath.Join(dir, layout)
	for _, d := range []string{"maps", "links"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	spec, err := loadBpf()
	if err != nil {
		return nil, err
	}
	for name, m := range spec.Maps {
		if name[0] != '.' { // constants belong to the programs
			m.Pinning = ebpf.PinByName
		}
	}
	spec.Maps["flows"].InnerMap = flowTable()
	f := &Filter{dir: dir, nextPolicy: 1, entries: map[uint32][]bpfRuleKey{}}
	if err := spec.LoadAndAssign(&f.objs, &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: filepath.Join(dir, "maps")}}); err != nil {
		return nil, fmt.Errorf("load the egress programs: %w", err)
	}
	if err := f.adopt(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// flowTable is one sandbox's table. LRU maps evict early when they are small
// for the number of processors.
func flowTable() *ebpf.MapSpec {
	size := 1024
	if n, err := ebpf.PossibleCPU(); err == nil {
		size = min(max(size, 256*n), 1<<14)
	}
	return &ebpf.MapSpec{
		Name: "flow_table", Type: ebpf.LRUHash, MaxEntries: uint32(size),
		KeySize: uint32(unsafe.Sizeof(bpfFlowKey{})), ValueSize: uint32(unsafe.Sizeof(bpfFlow{})),
	}
}

// adopt forgets devices that went while nobody looked, reads which policies are
// in use, and drops the rules of all others.
func (f *Filter) adopt() error {
	used := map[uint32]bool{}
	for device, c := range f.configs() {
		f.nextPolicy = max(f.nextPolicy, c.Policy+1)
		if !kernel.Gone(int(device)) {
			used[c.Policy] = true
			continue
		}
		if err := f.shutLocked(int(device), c); err != nil {
			return fmt.Errorf("forget device %d, which is gone: %w", device, err)
		}
	}
	var key bpfRuleKey
	var rule bpfRule
	it := f.objs.Rules.Iterate()
	for it.Next(&key, &rule) {
		f.entries[key.Policy] = append(f.entries[key.Policy], key)
		f.nextPolicy = max(f.nextPolicy, key.Policy+1)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read the rules: %w", err)
	}
	for policy := range f.entries {
		if !used[policy] {
			f.dropLocked(policy)
		}
	}
	return nil
}

// Close gives the file descriptors back. The programs stay on the devices.
func (f *Filter) Close() error { return f.objs.Close() }

// Attach puts the programs on a device and closes it until Apply. A device
// that has them already gets those of this process and keeps its policy and its
// flows; whatever is known under the index or slot of another one, which may be
// that of a device that went, is forgotten.
func (f *Filter) Attach(d Device) error {
	if d.Slot < 0 || d.Slot >= int(f.objs.Flows.MaxEntries()) {
		return fmt.Errorf("slot %d of device %s is out of range", d.Slot, d.Name)
	}
	kept := true
	for _, a := range []struct {
		pin       string
		program   *ebpf.Program
		direction kernel.Direction
	}{{"in", f.objs.FromSandbox, kernel.Ingress}, {"out", f.objs.ToSandbox, kernel.Egress}} {
		had, err := kernel.Attach(d.Index, a.program, a.direction, f.pin(d, a.pin))
		if err != nil {
			return errors.Join(fmt.Errorf("attach the egress programs to %s: %w", d.Name, err), f.Detach(d))
		}
		kept = kept && had
	}
	if !kept {
		if err := f.clear(d); err != nil {
			return errors.Join(fmt.Errorf("clear the way for %s: %w", d.Name, err), f.Detach(d))
		}
	}
	return f.makeFlows(uint32(d.Slot))
}

// clear forgets what is known of another device under this one's index or slot.
func (f *Filter) clear(d Device) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c, had := f.config(d.Index); had {
		if err := f.shutLocked(d.Index, c); err != nil {
			return err
		}
	}
	if err := f.objs.Early.Put(uint32(d.Index), uint64(0)); err != nil {
		return err
	}
	return gone(f.objs.Flows.Delete(uint32(d.Slot)))
}

// Early returns how many packets a device sent before it had its first policy,
// or while it was shut.
func (f *Filter) Early(d Device) (n uint64) {
	if f.objs.Early.Lookup(uint32(d.Index), &n) != nil {
		return 0
	}
	return n
}

// Attached tells whether a device has the programs, or is no more.
func (f *Filter) Attached(d Device) bool {
	return kernel.Attached(d.Index, kernel.Ingress, f.pin(d, "in")) && kernel.Attached(d.Index, kernel.Egress, f.pin(d, "out")) || kernel.Gone(d.Index)
}

func (f *Filter) pin(d Device, end string) string {
	return filepath.Join(f.dir, "links", d.Name+"-"+end)
}

func (f *Filter) makeFlows(slot uint32) error {
	var id ebpf.MapID
	err := f.objs.Flows.Lookup(slot, &id)
	if !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	m, err := ebpf.NewMap(flowTable())
	if err != nil {
		return fmt.Errorf("make a flow table: %w", err)
	}
	defer m.Close()
	return f.objs.Flows.Put(slot, m)
}

// Detach forgets a device: its policy, its flows and its programs. The device
// should be down or gone, since a device without programs is open; the guard
// outside of BPF sees to those that are not. nil when it is unknown.
func (f *Filter) Detach(d Device) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	if c, had := f.config(d.Index); had && int(c.Slot) == d.Slot { // else the index is another one's by now
		errs = append(errs, f.shutLocked(d.Index, c))
	}
	if kernel.Gone(d.Index) { // else it may be another one's by now
		errs = append(errs, gone(f.objs.Early.Delete(uint32(d.Index))))
	}
	for _, end := range []string{"in", "out"} {
		if err := os.Remove(f.pin(d, end)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, gone(f.objs.Flows.Delete(uint32(d.Slot))))
	return errors.Join(errs...)
}

// gone takes an absent entry for success.
func gone(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// forget removes what is kept per sandbox.
func (f *Filter) forget(sandbox uint32) error {
	err := errors.Join(gone(f.objs.Counters.Delete(sandbox)), gone(f.objs.Budgets.Delete(sandbox)))
	return errors.Join(err, f.ForgetNames(sandbox))
}

// Apply makes p the policy of a device whose sandbox has this number, in one
// step. Flows that p allows go on.
func (f *Filter) Apply(d Device, sandbox uint32, p Policy) error {
	entries, err := compile(p.Rules)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	policy := f.nextPolicy
	f.nextPolicy++
	if err := f.insertLocked(policy, entries); err != nil {
		f.dropLocked(policy)
		return fmt.Errorf("write the rules of %s: %w", d.Name, err)
	}
	old, had := f.config(d.Index)
	if had && old.Sandbox != sandbox {
		if err := f.forget(old.Sandbox); err != nil {
			return err
		}
	}
	if err := f.prepare(sandbox); err != nil {
		f.dropLocked(policy)
		return fmt.Errorf("prepare the counters of %s: %w", d.Name, err)
	}
	c := configOf(d, sandbox, p)
	c.Policy, c.Gen = policy, policy // no flow carries a number that was not given out before
	if err := f.objs.Devices.Put(uint32(d.Index), c); err != nil {
		f.dropLocked(policy)
		return fmt.Errorf("apply the policy of %s: %w", d.Name, err)
	}
	if had {
		f.dropLocked(old.Policy)
	}
	return nil
}

// Shut takes a device's policy away, so that nothing passes until Apply.
func (f *Filter) Shut(d Device) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, had := f.config(d.Index)
	if !had {
		return nil
	}
	if err := f.shutLocked(d.Index, c); err != nil {
		return fmt.Errorf("shut %s: %w", d.Name, err)
	}
	return nil
}

// shutLocked removes the entry c of a device and what belongs to it.
func (f *Filter) shutLocked(device int, c bpfCfg) error {
	if err := gone(f.objs.Devices.Delete(uint32(device))); err != nil {
		return err
	}
	f.dropLocked(c.Policy)
	return f.forget(c.Sandbox)
}

func (f *Filter) config(device int) (c bpfCfg, ok bool) {
	err := f.objs.Devices.Lookup(uint32(device), &c)
	return c, err == nil
}

// configs returns the entries of all devices, by index.
func (f *Filter) configs() map[uint32]bpfCfg {
	all := map[uint32]bpfCfg{}
	var device uint32
	var c bpfCfg
	for it := f.objs.Devices.Iterate(); it.Next(&device, &c); {
		all[device] = c
	}
	return all
}

func configOf(d Device, sandbox uint32, p Policy) bpfCfg {
	c := bpfCfg{Sandbox: sandbox, Mac: d.MAC, Slot: uint16(d.Slot), Ip4: order(d.Addr4), Gw4: order(d.Gateway4)}
	if d.Addr6.IsValid() {
		c.Ip6, c.Gw6 = d.Addr6.As16(), d.Gateway6.As16()
	}
	for _, b := range []struct {
		on   bool
		flag uint32
	}{
		{p.DefaultAllow, flagDefaultAllow},
		{!p.Silent, flagRefuse},
		{p.LogAllow, flagLogAllow},
		{p.Proxy, flagProxy | flagNoQUIC},
		{d.DNSPort != 0 && !p.NoRelay, flagDNS},
		{p.Learn, flagLearn},
		{p.Proxy && p.ProxyAll, flagProxyAll},
	} {
		if b.on {
			c.Flags |= b.flag
		}
	}
	c.DnsPort = d.DNSPort
	return c
}

// The flags of a device, as in egress.h.
const (
	flagDefaultAllow = 1 << iota
	flagRefuse
	flagLogAllow
	flagProxy
	flagNoQUIC
	flagDNS
	flagLearn
	_ // inbound
	flagProxyAll
)

// order brings an IPv4 address into the form of the wire.
func order(a netip.Addr) uint32 {
	if !a.Is4() {
		return 0
	}
	b := a.As4()
	return binary.NativeEndian.Uint32(b[:])
}

func (f *Filter) insertLocked(policy uint32, entries []keyed) error {
	if len(entries) == 0 {
		return nil
	}
	keys, values := make([]bpfRuleKey, len(entries)), make([]bpfRule, len(entries))
	for i, e := range entries {
		keys[i], values[i] = trieKey(policy, e.network), e.rule
	}
	f.entries[policy] = keys
	_, err := f.objs.Rules.BatchUpdate(keys, values, nil)
	if !errors.Is(err, ebpf.ErrNotSupported) {
		return err
	}
	for i := range keys { // tries have no batches before 5.13
		if err := f.objs.Rules.Put(keys[i], values[i]); err != nil {
			return err
		}
	}
	return nil
}

// dropLocked removes the rules of a policy that no device uses any more.
func (f *Filter) dropLocked(policy uint32) {
	keys := f.entries[policy]
	delete(f.entries, policy)
	if len(keys) == 0 {
		return
	}
	if _, err := f.objs.Rules.BatchDelete(keys, nil); err == nil {
		return
	}
	for _, k := range keys { // tries have no batches before 5.13
		_ = f.objs.Rules.Delete(k)
	}
}

// prepare makes what is counted per sandbox.
func (f *Filter) prepare(sandbox uint32) error {
	n, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	err = f.objs.Counters.Update(sandbox, make([]bpfStats, n), ebpf.UpdateNoExist)
	if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return err
	}
	err = f.objs.Budgets.Update(sandbox, bpfBudget{}, ebpf.UpdateNoExist)
	if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return err
	}
	return nil
}

// SetBlocked makes these the networks that only an overriding rule opens.
func (f *Filter) SetBlocked(networks map[netip.Prefix]uint32) error {
	want := map[bpfRuleKey]uint32{}
	for n, id := range networks {
		want[trieKey(0, n)] = id
	}
	for k, id := range want {
		if err := f.objs.Blocked.Put(k, id); err != nil {
			return fmt.Errorf("write the block list: %w", err)
		}
	}
	var extra []bpfRuleKey
	var key bpfRuleKey
	var id uint32
	for it := f.objs.Blocked.Iterate(); it.Next(&key, &id); {
		if _, ok := want[key]; !ok {
			extra = append(extra, key)
		}
	}
	var errs []error
	for _, k := range extra {
		errs = append(errs, gone(f.objs.Blocked.Delete(k)))
	}
	return errors.Join(errs...)
}

// Sandbox returns the number of the sandbox whose policy a device has, if any.
func (f *Filter) Sandbox(d Device) (uint32, bool) {
	c, had := f.config(d.Index)
	return c.Sandbox, had
}

// Sandboxes returns the numbers of all sandboxes that have a policy.
func (f *Filter) Sandboxes() []uint32 {
	var all []uint32
	for _, c := range f.configs() {
		all = append(all, c.Sandbox)
	}
	return all
}

// SetLogAllow changes LogAllow of every policy in force.
func (f *Filter) SetLogAllow(on bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for device, c := range f.configs() {
		flags := c.Flags &^ flagLogAllow
		if on {
			flags |= flagLogAllow
		}
		if flags == c.Flags {
			continue
		}
		c.Flags = flags
		if err := f.objs.Devices.Put(device, c); err != nil {
			return fmt.Errorf("change what device %d reports: %w", device, err)
		}
	}
	return nil
}

// bootNow is the clock that expiries are compared with.
func bootNow() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}
