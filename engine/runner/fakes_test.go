package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver/fake"
	"github.com/atoll-sh/atoll/engine/image"
	"github.com/atoll-sh/atoll/engine/network"
	"github.com/atoll-sh/atoll/engine/storage"
)

// host is everything that outlives a runner, in memory.
type host struct {
	mu              sync.Mutex
	disks           map[string]bool
	saved           map[string]bool
	removed         []string // images
	roots           map[string]bool
	shares          map[string]bool
	slots           map[int]engine.NetworkPolicy // in use, with what was applied
	open            map[int]bool
	next            int
	fail            map[string]error // by operation
	saving          chan struct{}    // when set, a save says that it began and waits for its turn
	driver          *fake.Driver
	filled, written int64  // bytes of the pool, and of writer's disk
	writer          string // instance that writes
	home            string
	run             string
}

func newHost(t *testing.T) *host {
	h := &host{
		disks: map[string]bool{}, saved: map[string]bool{}, roots: map[string]bool{}, shares: map[string]bool{},
		slots: map[int]engine.NetworkPolicy{}, open: map[int]bool{}, fail: map[string]error{},
		driver: fake.New(nil), home: t.TempDir(), run: t.TempDir(),
	}
	t.Cleanup(func() {
		list, _ := h.driver.List(context.Background())
		for _, handle := range list {
			_ = h.driver.Remove(context.Background(), handle)
		}
	})
	return h
}

// runner opens a runner on the host, as a server start does.
func (h *host) runner(t *testing.T, edit ...func(*Config)) *Runner {
	t.Helper()
	cfg := Config{
		ID: "r1", Home: h.home, RunDir: h.run, Toolbox: "/toolbox", Driver: h.driver.Reopen(),
		Disks: (*fakeDisks)(h), Roots: (*fakeRoots)(h), Networks: (*fakeNetworks)(h), Images: (*fakeImages)(h),
		Host: Host{CPU: 2, MemoryMiB: 4096}, Log: slog.New(slog.DiscardHandler),
	}
	for _, f := range edit {
		f(&cfg)
	}
	r, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// held is what is on the host, for comparing.
func (h *host) held() string {
	instances, _ := h.driver.List(context.Background())
	h.mu.Lock()
	defer h.mu.Unlock()
	return fmt.Sprintf("disks %d roots %d shares %d slots %d instances %d", len(h.disks), len(h.roots), len(h.shares), len(h.slots), len(instances))
}

func (h *host) failing(op string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fail[op]
}

type fakeDisks host

func (d *fakeDisks) put(op, id string) (storage.Disk, error) {
	if err := (*host)(d).failing(op); err != nil {
		return storage.Disk{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.disks[id] = true
	return storage.Disk{ID: id}, nil
}

func (d *fakeDisks) Create(_ context.Context, id string, _ int64) (storage.Disk, error) {
	return d.put("disk", id)
}

func (d *fakeDisks) Clone(_ context.Context, id, from string, _ int64) (storage.Disk, error) {
	d.mu.Lock()
	ok := d.saved[from]
	d.mu.Unlock()
	if !ok {
		return storage.Disk{}, engine.Errorf(engine.KindNotFound, "no saved disk %s", from)
	}
	return d.put("disk", id)
}

func (d *fakeDisks) Mount(_ context.Context, id string) (storage.Disk, error) {
	return storage.Disk{ID: id}, nil
}
func (d *fakeDisks) Unmount(context.Context, string) error     { return nil }
func (d *fakeDisks) Grow(context.Context, string, int64) error { return nil }

func (d *fakeDisks) Save(_ context.Context, _, as string) (int64, error) {
	if d.saving != nil {
		d.saving <- struct{}{}
		<-d.saving
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.saved[as] = true
	return 7, nil
}

// Room is smaller than any host's disk, as a pool file may be.
func (d *fakeDisks) Room(context.Context) (int64, int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return 7<<20 - d.filled, 9 << 20, nil
}

func (d *fakeDisks) Pending(context.Context, string) (int64, error) { return 0, nil }

// Usage of the disk that writer names grows with every look.
func (d *fakeDisks) Usage(_ context.Context, id string) (int64, int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if id != d.writer {
		return 0, 1 << 40, nil
	}
	d.written++
	return d.written, 1 << 40, nil
}

func (d *fakeDisks) Remove(_ context.Context, id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.disks, id)
	return nil
}

func (d *fakeDisks) Drop(_ context.Context, saved string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.saved, saved)
	return nil
}

func (d *fakeDisks) List(context.Context) (disks, saved []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id := range d.disks {
		disks = append(disks, id)
	}
	return disks, nil, nil
}

type fakeRoots host

func (m *fakeRoots) Mount(_ context.Context, r storage.Root) error {
	if err := (*host)(m).failing("root"); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.roots[r.Target] = true
	return nil
}

func (m *fakeRoots) Share(_ context.Context, dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shares[dir] = true
	return nil
}

func (m *fakeRoots) Unshare(_ context.Context, dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.shares, dir)
	return nil
}

func (m *fakeRoots) Unmount(_ context.Context, target string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.roots, target)
	return nil
}

type fakeNetworks host

func (n *fakeNetworks) Acquire(context.Context) (network.Slot, error) {
	if err := (*host)(n).failing("network"); err != nil {
		return network.Slot{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next++
	n.slots[n.next] = engine.NetworkPolicy{BlockAll: true}
	return network.Slot{Index: n.next, NetNS: fmt.Sprintf("/run/netns/fake-%d", n.next), Addr4: netip.MustParseAddr("198.51.100.2")}, nil
}

func (n *fakeNetworks) Apply(_ context.Context, s network.Slot, p engine.NetworkPolicy) error {
	if err := (*host)(n).failing("policy"); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.slots[s.Index]; !ok {
		return errors.New("policy for a slot that is not in use")
	}
	n.slots[s.Index] = p
	return nil
}

func (n *fakeNetworks) Release(_ context.Context, s network.Slot) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.slots, s.Index)
	return nil
}

func (n *fakeNetworks) Recover(_ context.Context, keep []network.Slot) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range n.slots {
		if !slices.ContainsFunc(keep, func(s network.Slot) bool { return s.Index == i }) {
			delete(n.slots, i)
		}
	}
	return nil
}

type fakeImages host

func (i *fakeImages) Remove(_ context.Context, ref string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.removed = append(i.removed, ref)
	return nil
}

func (i *fakeImages) Ensure(_ context.Context, req engine.EnsureImage, _ func(string)) (engine.Image, error) {
	return engine.Image{Ref: req.Ref}, nil
}

func (i *fakeImages) Image(_ context.Context, ref string) (image.Unpacked, error) {
	if err := (*host)(i).failing("image"); err != nil {
		return image.Unpacked{}, err
	}
	return image.Unpacked{Image: engine.Image{Ref: ref}, Lowers: []string{"/layer"}}, nil
}
