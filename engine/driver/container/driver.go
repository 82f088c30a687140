package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
	"github.com/atoll-sh/atoll/engine/driver/container/refused"
)

const (
	handleVersion = 1
	runtimeName   = "io.containerd.runc.v2"
	callTimeout   = 30 * time.Second // for one call to containerd
	readyTimeout  = 10 * time.Second // for the toolbox to answer after its start
)

// Config says how to reach containerd and where to keep state.
type Config struct {
	Address   string // containerd's socket
	Namespace string // in containerd; empty is "atoll"
	// StateDir holds what is needed while instances run. It is emptied by a
	// reboot, so it belongs below /run. The driver makes it.
	StateDir string
	// Runtime is the program that starts containers, runc or crun, by name or
	// absolute path; empty is runc.
	Runtime  string
	ServerID string // names our control groups and our containers
	// Shim is the program of Spares shims that are started ahead. They need
	// containerd to run the same program.
	Shim   string
	Spares int
	// Keep has the shims answer the system calls that filters refuse, so that
	// Refusals can tell of them. It needs containerd to run Shim.
	Keep bool
	// Group lets all instances share one shim. It saves 6 MB and some
	// milliseconds for each, but all of them end when the shim does.
	Group bool
	Log   *slog.Logger
	// OnStage, when set, is told how long each part of a start took.
	OnStage func(id, stage string, took time.Duration)
}

// Driver is the container driver. It has all abilities of package driver.
type Driver struct {
	cfg      Config
	log      *slog.Logger
	client   *containerd.Client
	boxes    containers.Store
	tasks    tasks.TasksClient
	cgroups  hierarchy
	template template
	jobs     *worker
	pacer    pacer
	spares   *spares
	refusals *refused.Server // nil: calls are refused and not told, for the reason in untold
	untold   error

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	events broadcaster

	mu        sync.Mutex
	instances map[string]*instance
}

// New prepares everything that is the same for all instances. It does not wait
// for containerd: calls do.
func New(c Config) (*Driver, error) {
	if c.Address == "" || c.ServerID == "" || !filepath.IsAbs(c.StateDir) {
		return nil, engine.Errorf(engine.KindInvalid, "the container driver needs containerd's address, a server id and an absolute state directory")
	}
	if c.Namespace == "" {
		c.Namespace = "atoll"
	}
	if c.Runtime == "" {
		c.Runtime = "runc"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(c.StateDir, 0o711); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	cg := detectHierarchy()
	group := ""
	if c.Group {
		group = "atoll-" + c.ServerID
	}
	d := &Driver{
		cfg: c, log: c.Log.With("driver", name), cgroups: cg, spares: newSpares(c), instances: map[string]*instance{},
	}
	if err := d.openRefusals(); err != nil {
		return nil, err
	}
	if err := d.prepareAll(group); err != nil {
		return nil, errors.Join(err, d.closeRefusals())
	}
	d.ctx, d.cancel = context.WithCancel(d.context(context.Background()))
	d.wg.Go(d.watchMemory)
	d.wg.Go(d.spares.fill)
	return d, nil
}

// prepareAll makes the client, and what all specifications have in common.
func (d *Driver) prepareAll(group string) (err error) {
	var listener func(string) listenerNames
	if d.refusals != nil {
		listener = d.listener
	}
	if d.template, err = newTemplate("/atoll-"+d.cfg.ServerID, group, d.cgroups, listener); err != nil {
		return err
	}
	if d.client, err = connect(d.cfg.Address, d.cfg.Namespace); err != nil {
		return err
	}
	d.boxes, d.tasks, d.jobs = d.client.ContainerService(), d.client.TaskService(), newWorker()
	return nil
}

// connect makes a client that comes back within half a second when containerd
// was restarted, and whose calls wait for that.
func connect(address, namespace string) (*containerd.Client, error) {
	quick := grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
		MinConnectTimeout: 5 * time.Second,
	}
	client, err := containerd.New(address,
		containerd.WithDefaultNamespace(namespace),
		containerd.WithDefaultRuntime(runtimeName),
		containerd.WithExtraDialOpts([]grpc.DialOption{grpc.WithConnectParams(quick)}),
		containerd.WithCallOpts([]grpc.CallOption{grpc.WaitForReady(true)}),
	)
	if err != nil {
		return nil, translate(err, "connect to containerd")
	}
	return client, nil
}

// Close ends the driver's background work after what was accepted is done.
// Instances go on.
func (d *Driver) Close() error {
	d.jobs.close()
	d.cancel()
	d.spares.close()
	d.mu.Lock()
	for _, in := range d.instances {
		in.detach()
	}
	d.mu.Unlock()
	d.wg.Wait()
	return errors.Join(d.closeRefusals(), d.client.Close())
}

// Destroy removes what the driver keeps beside its instances, for the end of a
// server's home. Instances have to be removed before.
func (d *Driver) Destroy(context.Context) error {
	d.spares.close()
	for _, dir := range d.cgroups.dirs(d.template.cgroupParent) {
		if err := removeTree(dir); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(d.cfg.StateDir); err != nil {
		return fmt.Errorf("remove the driver's state: %w", err)
	}
	return nil
}

const name = "container"

// Name is "container".
func (d *Driver) Name() string { return name }

// context adds containerd's namespace.
func (d *Driver) context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, d.cfg.Namespace)
}

// firm bounds calls to containerd that change something. They are not given up
// with the caller: containerd would be left half-way, cleaning up behind our
// back.
func (d *Driver) firm(ctx context.Context) (context.Context, context.CancelFunc) {
	return d.call(context.WithoutCancel(ctx))
}

// call bounds one call to containerd.
func (d *Driver) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(d.context(ctx), callTimeout)
}

// runtimeOptions are passed to the shim. The pipes of process 1 belong to root
// inside, who may reopen them.
func (d *Driver) runtimeOptions(uid uint32) (typeurl.Any, error) {
	return typeurl.MarshalAny(&options.Options{
		BinaryName: d.cfg.Runtime,
		Root:       filepath.Join(d.cfg.StateDir, "runc"),
		IoUid:      uid,
		IoGid:      uid,
	})
}

func (d *Driver) stage(id, stage string, since time.Time) time.Time {
	now := time.Now()
	if d.cfg.OnStage != nil {
		d.cfg.OnStage(id, stage, now.Sub(since))
	}
	return now
}

// handleData is what a handle carries, so that most calls need no containerd.
type handleData struct {
	ControlDir string `json:"controlDir"`
	UIDBase    uint32 `json:"uidBase"`
}

func (d *Driver) handle(id string, data handleData) (driver.Handle, error) {
	b, err := json.Marshal(data)
	if err != nil {
		return driver.Handle{}, fmt.Errorf("encode handle of %s: %w", id, err)
	}
	return driver.Handle{Version: handleVersion, Driver: name, ID: id, Data: b}, nil
}

func decodeHandle(h driver.Handle) (handleData, error) {
	var data handleData
	switch {
	case h.Driver != name:
		return data, engine.Errorf(engine.KindInvalid, "handle of instance %s belongs to driver %q", h.ID, h.Driver)
	case h.Version != handleVersion:
		return data, engine.Errorf(engine.KindUnsupported, "handle of instance %s has version %d, this server knows %d", h.ID, h.Version, handleVersion)
	}
	if err := json.Unmarshal(h.Data, &data); err != nil {
		return data, engine.Errorf(engine.KindInternal, "handle of instance %s is damaged", h.ID).Wrap(err)
	}
	return data, validID(h.ID)
}
