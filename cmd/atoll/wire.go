package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/ebpf/kernel"
	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/activity"
	"github.com/atoll-sh/atoll/engine/config"
	"github.com/atoll-sh/atoll/engine/confine"
	"github.com/atoll-sh/atoll/engine/driver/container"
	"github.com/atoll-sh/atoll/engine/egress"
	"github.com/atoll-sh/atoll/engine/image"
	"github.com/atoll-sh/atoll/engine/libexec"
	"github.com/atoll-sh/atoll/engine/network"
	"github.com/atoll-sh/atoll/engine/runner"
	"github.com/atoll-sh/atoll/engine/storage"
	"github.com/atoll-sh/atoll/engine/trace"
)

// identity is what makes a home the same server across restarts.
type identity struct {
	ID           string `json:"id"`           // short; part of host-side names
	NetworkIndex int    `json:"networkIndex"` // which address range; -1 before the first start
}

// host is the runner side of a server: everything that touches this machine.
type host struct {
	cfg    config.Config
	log    *slog.Logger
	id     identity
	runDir string
	lock   *os.File

	containerd *container.Supervisor
	images     *image.Store
	disks      *storage.Pool
	networks   *network.Manager
	filter     *egress.Filter // nil: the kernel cannot
	unfiltered error          // why there is none
	driver     *container.Driver
	confiner   *confine.Confiner // nil: the kernel cannot
	runner     *runner.Runner
	ledger     *activity.Ledger
	tracer     *trace.Tracer // nil: the kernel cannot
	untraced   error         // why there is none
}

// watchers are told by the runner of what happens without being asked for.
type watchers struct {
	changed  func(engine.Instance)
	progress func(image, text string)
}

// roots adapts the storage functions to what the runner calls.
type roots struct{}

func (roots) Mount(ctx context.Context, r storage.Root) error { return storage.MountRoot(ctx, r) }
func (roots) Unmount(ctx context.Context, target string) error {
	return storage.UnmountRoot(ctx, target)
}
func (roots) Share(ctx context.Context, dir string) error   { return storage.MountShare(ctx, dir) }
func (roots) Unshare(ctx context.Context, dir string) error { return storage.UnmountShare(ctx, dir) }

// openHost locks the home and opens every part in order. On error the parts
// that were opened are closed again.
func openHost(ctx context.Context, cfg config.Config, log *slog.Logger, tell watchers) (*host, error) {
	if os.Geteuid() != 0 {
		return nil, engine.Errorf(engine.KindDenied, "the server must run as root: it makes namespaces, mounts and cgroups").WithHint("run it with sudo, or use --url to reach a server that runs already")
	}
	h := &host{cfg: cfg, log: log}
	if err := h.open(ctx, tell); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

func (h *host) open(ctx context.Context, tell watchers) (err error) {
	cfg := h.cfg
	if err := os.MkdirAll(filepath.Join(cfg.Home, "logs"), 0o711); err != nil {
		return err
	}
	if h.lock, err = lockHome(cfg.Home); err != nil {
		return err
	}
	if h.id, err = loadIdentity(cfg.Home); err != nil {
		return err
	}
	h.runDir = filepath.Join("/run/atoll", h.id.ID)
	if err := os.MkdirAll(h.runDir, 0o711); err != nil {
		return err
	}
	paths, err := libexec.Extract(filepath.Join(cfg.Home, "libexec"))
	if err != nil {
		return err
	}
	if err := h.openLedger(); err != nil {
		return fmt.Errorf("open ledger: %w", err)
	}
	if err := h.openTracer(); err != nil {
		return fmt.Errorf("watch processes: %w", err)
	}
	// The network first: it makes the directory of namespaces a shared mount,
	// and containerd must see it so.
	if err := h.openNetwork(ctx); err != nil {
		return fmt.Errorf("open network: %w", err)
	}
	address, err := h.openContainerd(ctx, paths.ShimDir)
	if err != nil {
		return err
	}
	if err := h.openParts(ctx, address, paths.Shim()); err != nil {
		return err
	}
	if err := h.openConfiner(); err != nil {
		return fmt.Errorf("open the rules about programs and files: %w", err)
	}
	rc := runner.Config{
		ID: "runner-" + h.id.ID, Home: cfg.Home, RunDir: h.runDir, Toolbox: paths.Toolbox,
		Driver: h.driver, Disks: h.disks, Roots: roots{}, Networks: h.networks, Images: h.images,
		Pool: poolTargets(cfg), Host: hostSize(), Log: h.log, Changed: tell.changed, Progress: tell.progress, Checkpoint: faultPoint,
	}
	if h.filter != nil {
		rc.Seals = h.filter
	}
	if h.confiner != nil {
		rc.Confiner = h.confiner
	}
	if h.tracer != nil {
		rc.Traces = h.tracer
	}
	if h.runner, err = runner.Open(ctx, rc); err == nil {
		h.settleConfiner()
	}
	return err
}

// openContainerd returns the socket of the containerd to use.
func (h *host) openContainerd(ctx context.Context, shimDir string) (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	h.containerd = &container.Supervisor{
		Home: h.cfg.Home, RunDir: h.runDir, ServerID: h.id.ID, Binary: exe, ShimDir: shimDir,
		External: h.cfg.Containerd, Log: h.log,
	}
	return h.containerd.Start(ctx)
}

func (h *host) openNetwork(ctx context.Context) error {
	resolvers, err := h.cfg.DNS()
	if err != nil {
		return err
	}
	if err := h.openFilter(); err != nil {
		return err
	}
	nc := network.Config{ID: h.id.ID, Index: h.id.NetworkIndex, Ready: h.cfg.Warm() + 2, Resolvers: resolvers, Log: h.log}
	if h.filter != nil {
		nc.Filter = h.filter
	}
	h.networks, err = network.Open(ctx, nc)
	if err != nil || h.networks.Index() == h.id.NetworkIndex {
		return err
	}
	h.id.NetworkIndex = h.networks.Index()
	return h.id.save(h.cfg.Home)
}

// openFilter loads the egress programs. Where the kernel cannot run them the
// server goes on with its guard, which knows all or nothing.
func (h *host) openFilter() error {
	if err := kernel.Mount(h.bpfDir()); err != nil {
		h.log.Warn("network lists cannot be enforced", "err", err)
		h.unfiltered = err
		return nil
	}
	proxies, err := h.cfg.ProxyNetworks()
	if err != nil {
		return err
	}
	f, err := egress.Open(h.bpfDir(), proxies, h.log)
	if engine.KindOf(err) == engine.KindUnsupported {
		h.log.Warn("network lists cannot be enforced", "err", err)
		h.unfiltered = err
		return kernel.Unmount(h.bpfDir())
	}
	h.filter = f
	return err
}

// bpfDir keeps the egress programs while no server runs.
func (h *host) bpfDir() string { return filepath.Join(h.runDir, "bpf") }

func (h *host) openParts(ctx context.Context, address, shim string) (err error) {
	const namespace = "atoll"
	own, spares := h.cfg.Containerd == "", 2
	if !own {
		spares = 0 // somebody else's containerd runs its own shim
	}
	h.images, err = image.Open(ctx, image.Config{Address: address, Namespace: namespace, Home: h.cfg.Home, Log: h.log})
	if err != nil {
		return fmt.Errorf("open images: %w", err)
	}
	ready := map[int64]int{}
	for _, t := range poolTargets(h.cfg) {
		ready[t.DiskMiB<<20] = t.Size
	}
	h.disks, err = storage.Open(ctx, storage.Config{Home: h.cfg.Home, Size: h.cfg.DiskGiB << 30, Ready: ready, Log: h.log})
	if err != nil {
		return fmt.Errorf("open storage: %w", err)
	}
	h.driver, err = container.New(container.Config{
		Address: address, Namespace: namespace, StateDir: filepath.Join(h.runDir, "d"),
		Runtime: h.cfg.Runtime, ServerID: h.id.ID, Shim: shim, Spares: spares, Keep: own && h.tracer != nil, Log: h.log,
	})
	if err != nil {
		return fmt.Errorf("open container driver: %w", err)
	}
	return nil
}

// close stops background work and leaves sandboxes and containerd running.
func (h *host) close() {
	if h.runner != nil {
		h.runner.Close()
	}
	h.closeConfiner()
	if h.driver != nil {
		h.driver.Close()
	}
	if h.networks != nil {
		h.networks.Close()
	}
	if h.filter != nil {
		h.filter.Close()
	}
	if h.disks != nil {
		h.disks.Close()
	}
	if h.images != nil {
		h.images.Close()
	}
	if h.containerd != nil {
		h.containerd.Close()
	}
	h.closeTracer()
	if h.ledger != nil {
		h.ledger.Close()
	}
	if h.lock != nil {
		h.lock.Close()
	}
}

// destroy stops every sandbox and takes away all that the server made on this
// host but its home: processes, mounts, namespaces, devices, cgroups, tables.
func (h *host) destroy(ctx context.Context) error {
	err := h.runner.StopAll(ctx)
	h.runner.Close()
	h.closeConfiner()
	err = errors.Join(err, h.driver.Destroy(ctx), h.images.Close(), h.networks.Destroy(ctx), h.closeFilter(), h.disks.Destroy(ctx), h.containerd.Stop(ctx), os.RemoveAll(h.runDir))
	h.closeTracer()
	h.ledger.Close()
	h.lock.Close()
	h.runner, h.driver, h.images, h.networks, h.disks, h.containerd, h.lock = nil, nil, nil, nil, nil, nil, nil
	return err
}

// closeFilter takes the egress programs away.
func (h *host) closeFilter() (err error) {
	if h.filter != nil {
		err = h.filter.Close()
		h.filter = nil
	}
	return errors.Join(err, kernel.Unmount(h.bpfDir()))
}

// poolTargets is the warm pool: members for the default snapshot.
func poolTargets(cfg config.Config) []engine.PoolTarget {
	if cfg.Warm() == 0 {
		return nil
	}
	def := image.DefaultSnapshots()[0]
	return []engine.PoolTarget{{PoolKind: engine.PoolKind{Image: def.Image, DiskMiB: def.Resources.DiskMiB}, Size: cfg.Warm()}}
}

// lockHome makes sure that one server uses a home at a time. The lock goes
// with the process, however it ends.
func lockHome(home string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(home, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(3 * time.Second) // a server that just ended may hold it still
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if time.Now().After(deadline) {
			f.Close()
			return nil, engine.Errorf(engine.KindConflict, "another server uses the home %s", home).WithHint("stop it, or choose another --home and --listen").Wrap(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func loadIdentity(home string) (identity, error) {
	id := identity{NetworkIndex: -1}
	b, err := os.ReadFile(filepath.Join(home, "server.json"))
	switch {
	case err == nil:
		if err := json.Unmarshal(b, &id); err != nil || id.ID == "" {
			return id, engine.Errorf(engine.KindInternal, "%s is damaged", filepath.Join(home, "server.json")).WithHint("restore it from a backup; without it the sandboxes of this home cannot be found").Wrap(err)
		}
		return id, nil
	case !os.IsNotExist(err):
		return id, err
	}
	id.ID = randomText(6, "abcdefghijklmnopqrstuvwxyz0123456789")
	return id, id.save(home)
}

func (id identity) save(home string) error {
	b, err := json.Marshal(id)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(home, "server.json"), b, 0o600)
}

// hostSize is the machine's cores and memory.
func hostSize() runner.Host {
	var info unix.Sysinfo_t
	_ = unix.Sysinfo(&info)
	var set unix.CPUSet
	_ = unix.SchedGetaffinity(0, &set)
	return runner.Host{CPU: float64(set.Count()), MemoryMiB: int64(uint64(info.Totalram) * uint64(info.Unit) >> 20)}
}

// apiURL is what the server's own clients connect to.
func apiURL(cfg config.Config, addr string) string {
	if cfg.PublicURL != "" {
		return strings.TrimSuffix(cfg.PublicURL, "/")
	}
	if cfg.TLS() {
		return "https://" + addr
	}
	return "http://" + addr
}
