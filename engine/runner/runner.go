// Package runner is the node side: it turns an engine.Launch into a running
// instance on this host and back into nothing. It owns the order in which
// disk, network, root file system and runtime are made and unmade, the warm
// pool, and the records on this host's own disk that say what exists. The
// parts it drives know nothing of one another.
package runner

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
	"github.com/atoll-sh/atoll/engine/image"
	"github.com/atoll-sh/atoll/engine/network"
	"github.com/atoll-sh/atoll/engine/storage"
)

// Disks is what the runner needs of engine/storage.
type Disks interface {
	Create(ctx context.Context, id string, size int64) (storage.Disk, error)
	Clone(ctx context.Context, id, from string, size int64) (storage.Disk, error)
	Mount(ctx context.Context, id string) (storage.Disk, error)
	Unmount(ctx context.Context, id string) error
	Save(ctx context.Context, id, as string) (int64, error)
	Grow(ctx context.Context, id string, size int64) error
	Usage(ctx context.Context, id string) (used, total int64, err error)
	Pending(ctx context.Context, id string) (int64, error)
	Room(ctx context.Context) (free, total int64, err error)
	Remove(ctx context.Context, id string) error
	Drop(ctx context.Context, saved string) error
	List(ctx context.Context) (disks, saved []string, err error)
}

// Roots mounts root file systems, and the small ones for what host and sandbox
// share; storage.MountRoot, UnmountRoot, MountShare and UnmountShare.
type Roots interface {
	Mount(ctx context.Context, r storage.Root) error
	Unmount(ctx context.Context, target string) error
	Share(ctx context.Context, dir string) error
	Unshare(ctx context.Context, dir string) error
}

// Networks is what the runner needs of engine/network.
type Networks interface {
	Acquire(ctx context.Context) (network.Slot, error)
	Apply(ctx context.Context, s network.Slot, p engine.NetworkPolicy) error
	Release(ctx context.Context, s network.Slot) error
	Recover(ctx context.Context, keep []network.Slot) error
}

// Images is what the runner needs of engine/image.
type Images interface {
	Ensure(ctx context.Context, req engine.EnsureImage, progress func(string)) (engine.Image, error)
	Image(ctx context.Context, ref string) (image.Unpacked, error)
	Remove(ctx context.Context, ref string) error
}

// Config is all that Open needs. Home is on the disk that records live on;
// RunDir is volatile and its path short, because sockets live below it.
type Config struct {
	ID       string
	Home     string
	RunDir   string
	Toolbox  string // path of the toolbox binary
	Driver   driver.Driver
	Disks    Disks
	Roots    Roots
	Networks Networks
	Images   Images
	Confiner Confiner            // nil: the host cannot enforce rules about programs and files
	Seals    Seals               // nil: the host cannot put secrets into traffic
	Traces   Traces              // nil: the host cannot tell what processes do
	Pool     []engine.PoolTarget // warm members to keep, whatever SetPools says
	// Parallel is how many cold creates run at once; 0 means two a core.
	Parallel int
	Host     Host
	Log      *slog.Logger
	// Changed is told when an instance changes without being asked to.
	Changed func(engine.Instance)
	// Progress is told how far the making of an image is.
	Progress func(image, text string)
	// Checkpoint is called between steps with the step's name. Tests kill the
	// process in it; nil in production.
	Checkpoint func(string)
}

// Host is what this machine has.
type Host struct {
	CPU       float64
	MemoryMiB int64
}

// Runner implements engine.Runner for this host.
type Runner struct {
	cfg   Config
	log   *slog.Logger
	pool  *pool
	past  *past
	cold  chan struct{} // a slot per cold create under way
	stop  context.CancelFunc
	tasks sync.WaitGroup

	mu        sync.Mutex
	instances map[string]*instance // by instance id, pool members included
	sandboxes map[string]*instance // by sandbox id
	making    map[string]bool      // instance ids under way
	layers    map[string]int       // by image, instances under way, or dropping
	locks     map[string]*keyLock
}

var _ engine.Runner = (*Runner)(nil)

// Open adopts what a previous run left behind, removes what has no record,
// and starts the warm pool.
func Open(ctx context.Context, cfg Config) (*Runner, error) {
	if cfg.Parallel <= 0 {
		cfg.Parallel = 2 * runtime.NumCPU()
	}
	if cfg.Checkpoint == nil {
		cfg.Checkpoint = func(string) {}
	}
	if cfg.Progress == nil {
		cfg.Progress = func(string, string) {}
	}
	if cfg.Changed == nil {
		cfg.Changed = func(engine.Instance) {}
	}
	for _, dir := range []string{filepath.Join(cfg.Home, "instances"), filepath.Join(cfg.RunDir, "i")} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, err
		}
	}
	r := &Runner{
		cfg:       cfg,
		log:       cfg.Log.With("runner", cfg.ID),
		cold:      make(chan struct{}, cfg.Parallel),
		instances: map[string]*instance{},
		sandboxes: map[string]*instance{},
		making:    map[string]bool{},
		layers:    map[string]int{},
		locks:     map[string]*keyLock{},
	}
	if err := r.recover(ctx); err != nil {
		return nil, err
	}
	bg, stop := context.WithCancel(context.WithoutCancel(ctx))
	r.stop = stop
	r.pool = newPool(r, cfg.Pool)
	r.past = openPast(filepath.Join(cfg.Home, "history"), r.log)
	if w, ok := driver.As[driver.Watcher](cfg.Driver); ok {
		events, err := w.Watch(bg)
		if err != nil {
			stop()
			return nil, err
		}
		r.tasks.Go(func() { r.watch(events) })
	}
	r.tasks.Go(func() { r.pool.run(bg) })
	r.tasks.Go(func() { r.sweep(bg) })
	r.tasks.Go(func() { r.guardSpace(bg) })
	r.tasks.Go(func() { r.sample(bg) })
	return r, nil
}

// Close stops background work and leaves the instances running.
func (r *Runner) Close() {
	r.stop()
	r.tasks.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, in := range r.instances {
		in.tr.CloseIdleConnections()
	}
}

// Dial opens a connection to the toolbox of a started sandbox.
func (r *Runner) Dial(ctx context.Context, sandbox string) (net.Conn, error) {
	in, err := r.find(sandbox)
	if err != nil {
		return nil, err
	}
	return in.dial(ctx)
}

// find returns the instance that holds a sandbox.
func (r *Runner) find(sandbox string) (*instance, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if in := r.sandboxes[sandbox]; in != nil {
		return in, nil
	}
	return nil, engine.Errorf(engine.KindNotFound, "sandbox %s is not on this runner", sandbox)
}

func (r *Runner) add(in *instance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.instances[in.rec.ID] = in
	if in.rec.Sandbox != "" {
		r.sandboxes[in.rec.Sandbox] = in
	}
}

func (r *Runner) forget(in *instance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.instances, in.rec.ID)
	if r.sandboxes[in.rec.Sandbox] == in {
		delete(r.sandboxes, in.rec.Sandbox)
	}
}

// all returns every instance that holds a sandbox.
func (r *Runner) all() []*instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*instance, 0, len(r.sandboxes))
	for _, in := range r.sandboxes {
		list = append(list, in)
	}
	return list
}

// keyLock serialises the calls about one sandbox.
type keyLock struct {
	mu   sync.Mutex
	refs int
}

// lock waits for the sandbox's turn and returns the function that ends it.
func (r *Runner) lock(sandbox string) func() {
	r.mu.Lock()
	l := r.locks[sandbox]
	if l == nil {
		l = &keyLock{}
		r.locks[sandbox] = l
	}
	l.refs++
	r.mu.Unlock()
	l.mu.Lock()
	return func() {
		l.mu.Unlock()
		r.mu.Lock()
		defer r.mu.Unlock()
		if l.refs--; l.refs == 0 {
			delete(r.locks, sandbox)
		}
	}
}

// EnsureImage implements engine.Runner.
func (r *Runner) EnsureImage(ctx context.Context, req engine.EnsureImage) (engine.Image, error) {
	img, err := r.cfg.Images.Ensure(ctx, req, func(line string) {
		r.log.Info("image", "ref", req.Ref, "step", line)
		r.cfg.Progress(req.Ref, line)
	})
	if err == nil {
		r.pool.wake()
	}
	return img, err
}

// DropDisk implements engine.Runner. It waits for a SaveDisk of the same disk:
// a caller that gave up on that one would otherwise leave a disk behind that
// nobody knows.
func (r *Runner) DropDisk(ctx context.Context, disk string) error {
	defer r.lock(savedLock(disk))()
	return r.cfg.Disks.Drop(ctx, disk)
}

// savedLock is the key of a saved disk among the locks. No id of a sandbox
// looks like it. It is taken before a sandbox's lock.
func savedLock(disk string) string { return "disk " + disk }

// Info implements engine.Runner.
func (r *Runner) Info(ctx context.Context) (engine.RunnerInfo, error) {
	free, _, err := r.cfg.Disks.Room(ctx)
	if err != nil {
		return engine.RunnerInfo{}, err
	}
	info := engine.RunnerInfo{
		Confines: r.cfg.Confiner != nil,
		ID:       r.cfg.ID, Classes: []engine.Class{engine.ClassContainer},
		CPU: r.cfg.Host.CPU, MemoryMiB: r.cfg.Host.MemoryMiB,
		DiskMiB: free >> 20, UpdatedAt: time.Now(),
	}
	for _, in := range r.all() {
		info.Sandboxes++
		snap := in.snapshot()
		info.Used.DiskMiB += snap.Resources.DiskMiB
		if snap.State == engine.StateStarted {
			info.Used.CPU += snap.Resources.CPU
			info.Used.MemoryMiB += snap.Resources.MemoryMiB
		}
	}
	return info, nil
}

// askAtOnce is how many toolboxes are asked at the same time. A silent one
// keeps its place for a second, so a few must not hold up all others.
const askAtOnce = 256

// askLimit bounds the asking of all toolboxes. What is known by then is told.
const askLimit = 3 * time.Second

// Instances implements engine.Runner. It asks each running toolbox for its
// activity and gives up on one after a second.
func (r *Runner) Instances(ctx context.Context) ([]engine.Instance, error) {
	list := r.all()
	out := make([]engine.Instance, len(list))
	sem := make(chan struct{}, askAtOnce)
	asking, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	var wg sync.WaitGroup
	for i, in := range list {
		wg.Go(func() {
			sem <- struct{}{}
			defer func() { <-sem }()
			in.refresh(asking)
			out[i] = in.snapshot()
		})
	}
	wg.Wait()
	return out, ctx.Err()
}

// Stats implements engine.Runner.
func (r *Runner) Stats(ctx context.Context, sandbox string) (engine.Stats, error) {
	in, err := r.find(sandbox)
	if err != nil {
		return engine.Stats{}, err
	}
	st := engine.Stats{Time: time.Now()}
	if s, ok := driver.As[driver.Sampler](r.cfg.Driver); ok && in.state() == engine.StateStarted {
		if st, err = s.Stats(ctx, in.handle()); err != nil {
			return st, err
		}
	}
	in.mu.Lock()
	st.OOMKills, st.LastOOM = max(st.OOMKills, in.ooms), in.lastOOM
	in.mu.Unlock()
	if used, _, err := r.cfg.Disks.Usage(ctx, in.rec.ID); err == nil {
		st.DiskBytes = uint64(used)
	}
	return st, nil
}

// SetNetwork implements engine.Runner.
func (r *Runner) SetNetwork(ctx context.Context, sandbox string, p engine.NetworkPolicy) error {
	defer r.lock(sandbox)()
	in, err := r.find(sandbox)
	if err != nil {
		return err
	}
	if in.state() == engine.StateStarted {
		if err := r.cfg.Networks.Apply(ctx, in.rec.Slot, p); err != nil {
			return err
		}
	}
	in.rec.Launch.Network = p
	return in.save(false)
}

// SaveDisk implements engine.Runner.
func (r *Runner) SaveDisk(ctx context.Context, sandbox, disk string) (engine.SavedDisk, error) {
	defer r.lock(savedLock(disk))()
	defer r.lock(sandbox)()
	in, err := r.find(sandbox)
	if err != nil {
		return engine.SavedDisk{}, err
	}
	n, err := r.cfg.Disks.Save(ctx, in.rec.ID, disk)
	if err != nil {
		return engine.SavedDisk{}, err
	}
	return engine.SavedDisk{Disk: disk, SizeBytes: n}, nil
}

// Resize implements engine.Runner. It leaves the state as it is.
func (r *Runner) Resize(ctx context.Context, sandbox string, res engine.Resources) (engine.Instance, error) {
	defer r.lock(sandbox)()
	in, err := r.find(sandbox)
	if err != nil {
		return engine.Instance{}, err
	}
	running := in.state() == engine.StateStarted
	if running {
		rz, ok := driver.As[driver.Resizer](r.cfg.Driver)
		if !ok {
			return engine.Instance{}, engine.Errorf(engine.KindUnsupported, "this sandbox cannot be resized while it runs").WithHint("stop it first")
		}
		if err := rz.Resize(ctx, in.handle(), res); err != nil {
			return engine.Instance{}, err
		}
	} else if res.DiskMiB > in.rec.Launch.Resources.DiskMiB {
		if err := errors.Join(r.unmake(ctx, in), r.cfg.Disks.Grow(ctx, in.rec.ID, res.DiskMiB<<20)); err != nil {
			return engine.Instance{}, err
		}
	}
	in.mu.Lock()
	in.rec.Launch.Resources = res
	in.mu.Unlock()
	if err := in.save(true); err != nil {
		return engine.Instance{}, err
	}
	return in.snapshot(), nil
}

// transport returns an HTTP transport to the toolbox of in.
func (r *Runner) transport(in *instance) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return in.dial(ctx) },
		// One idle connection is enough for the runner's own calls.
		MaxIdleConns: 1, IdleConnTimeout: 30 * time.Second, DisableCompression: true,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// hostsFile is /etc/hosts of a sandbox.
func hostsFile(name string, addr netip.Addr) string {
	s := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	if addr.IsValid() {
		s += addr.String() + "\t" + name + "\n"
	}
	return s
}
