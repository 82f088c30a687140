// Package fake is a driver in memory with the semantics of a real one, for
// tests of the layers above. Failures, delays and crashes are scripted.
package fake

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
)

// Name is the driver's name in handles.
const Name = "fake"

// Op names a method of the driver, for scripts and records of calls.
type Op string

// The methods.
const (
	OpCreate  Op = "create"
	OpStart   Op = "start"
	OpStop    Op = "stop"
	OpRemove  Op = "remove"
	OpInspect Op = "inspect"
	OpRecover Op = "recover"
	OpDial    Op = "dial"
	OpPause   Op = "pause"
	OpResume  Op = "resume"
	OpResize  Op = "resize"
	OpRename  Op = "rename"
	OpStats   Op = "stats"
	OpList    Op = "list"
)

// Call is one call that was made.
type Call struct {
	Op Op
	ID string
}

// Instance is what the fake holds of one instance, for tests to look at.
type Instance struct {
	Spec     driver.Spec
	Status   driver.Status
	Sandbox  string // as last given by Create or Rename
	Hostname string
	Labels   map[string]string
	Starts   int
}

// Driver is the fake. All abilities of package driver are there.
type Driver struct {
	w *world
}

// world is the machine that outlives a driver.
type world struct {
	mu        sync.Mutex
	toolbox   func(driver.Spec) http.Handler
	instances map[string]*state
	nextPID   int
	calls     []Call
	failures  map[Op]map[int]error
	counts    map[Op]int
	delays    map[Op]time.Duration
	watchers  []chan driver.Event
}

type state struct {
	Instance
	server *server
	began  time.Time
	oom    uint64
}

// New makes a driver. toolbox serves the requests of one instance; nil is
// Toolbox.
func New(toolbox func(driver.Spec) http.Handler) *Driver {
	if toolbox == nil {
		toolbox = func(driver.Spec) http.Handler { return Toolbox() }
	}
	return &Driver{&world{
		toolbox: toolbox, instances: map[string]*state{}, nextPID: 1000,
		failures: map[Op]map[int]error{}, counts: map[Op]int{}, delays: map[Op]time.Duration{},
	}}
}

// Reopen returns another driver on the same instances, as after a restart of
// the server. Scripts and records go on.
func (d *Driver) Reopen() *Driver { return &Driver{d.w} }

// Toolbox is a handler that knows the runner's endpoints and nothing else.
func Toolbox() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /internal/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"version": "fake", "startedAt": time.Now(), "busy": 0, "lastActivity": time.Now(), "processes": 1,
		})
	})
	mux.HandleFunc("POST /internal/trust", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("POST /internal/identity", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	return mux
}

// Fail lets the nth call of op from now on fail with err, 1 being the next. A
// failing call changes nothing.
func (d *Driver) Fail(op Op, nth int, err error) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	if d.w.failures[op] == nil {
		d.w.failures[op] = map[int]error{}
	}
	d.w.failures[op][d.w.counts[op]+nth] = err
}

// Delay lets every call of op take this long, or until its context ends.
func (d *Driver) Delay(op Op, by time.Duration) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	d.w.delays[op] = by
}

// Crash ends the toolbox of a running instance with a code, and tells watchers.
func (d *Driver) Crash(id string, code int) error {
	return d.w.crash(id, code, false)
}

// OutOfMemory counts a kill for memory, which does not end the instance.
func (d *Driver) OutOfMemory(id string) error {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	s, err := d.w.running(id)
	if err != nil {
		return err
	}
	s.Status.OOM = true
	s.oom++
	d.w.send(driver.Event{ID: id, Kind: driver.EventOOM, Time: time.Now()})
	return nil
}

// Calls returns all calls made so far.
func (d *Driver) Calls() []Call {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	return slices.Clone(d.w.calls)
}

// Instance returns a copy of what is held of an instance.
func (d *Driver) Instance(id string) (Instance, bool) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	s, ok := d.w.instances[id]
	if !ok {
		return Instance{}, false
	}
	return s.Instance, true
}

func (w *world) crash(id string, code int, oom bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, err := w.running(id)
	if err != nil {
		return err
	}
	s.end(code)
	s.Status.OOM = s.Status.OOM || oom
	w.send(driver.Event{ID: id, Kind: driver.EventExit, Time: s.Status.ExitedAt, Exit: code})
	return nil
}

// end makes a running instance a stopped one.
func (s *state) end(code int) {
	s.server.close()
	s.server = nil
	s.Status = driver.Status{Phase: driver.PhaseStopped, ExitCode: code, OOM: s.Status.OOM, ExitedAt: time.Now()}
}

// enter records a call and plays its script. It holds no lock while it waits.
func (w *world) enter(ctx context.Context, op Op, id string) error {
	w.mu.Lock()
	w.counts[op]++
	w.calls = append(w.calls, Call{op, id})
	err, delay := w.failures[op][w.counts[op]], w.delays[op]
	w.mu.Unlock()
	if delay > 0 {
		t := time.NewTimer(delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		return engine.AsError(ctx.Err())
	}
	return err
}

func (w *world) find(id string) (*state, error) {
	s, ok := w.instances[id]
	if !ok {
		return nil, engine.Errorf(engine.KindNotFound, "the fake runtime does not know instance %s", id)
	}
	return s, nil
}

func (w *world) running(id string) (*state, error) {
	s, err := w.find(id)
	if err != nil {
		return nil, err
	}
	if s.server == nil {
		return nil, engine.Errorf(engine.KindConflict, "instance %s is not running", id)
	}
	return s, nil
}

func (w *world) send(e driver.Event) {
	for _, ch := range w.watchers {
		select {
		case ch <- e:
		default:
		}
	}
}

func check(h driver.Handle) error {
	if h.Driver != Name {
		return engine.Errorf(engine.KindInvalid, "handle of instance %s belongs to driver %q", h.ID, h.Driver)
	}
	return nil
}

// Name is "fake".
func (d *Driver) Name() string { return Name }

// Probe finds a host that can do everything.
func (d *Driver) Probe(context.Context) (driver.Capabilities, error) {
	return driver.Capabilities{Available: true, Reason: "in memory", Version: "fake 1"}, nil
}

// Create keeps the specification.
func (d *Driver) Create(ctx context.Context, spec driver.Spec) (driver.Handle, error) {
	if err := d.w.enter(ctx, OpCreate, spec.ID); err != nil {
		return driver.Handle{}, err
	}
	if spec.ID == "" || filepath.Base(spec.ID) != spec.ID {
		return driver.Handle{}, engine.Errorf(engine.KindInvalid, "instance id %q is not a name", spec.ID)
	}
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	s := d.w.instances[spec.ID]
	if s == nil {
		s = &state{Instance: Instance{Status: driver.Status{Phase: driver.PhaseCreated}}}
		d.w.instances[spec.ID] = s
	}
	if s.server == nil {
		s.Spec, s.Sandbox, s.Hostname, s.Labels = spec, spec.Sandbox, spec.Hostname, spec.Labels
	}
	return driver.Handle{Version: 1, Driver: Name, ID: spec.ID}, nil
}

// Start serves the toolbox.
func (d *Driver) Start(ctx context.Context, h driver.Handle) error {
	if err := check(h); err != nil {
		return err
	}
	if err := d.w.enter(ctx, OpStart, h.ID); err != nil {
		return err
	}
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	s, err := d.w.find(h.ID)
	if err != nil || s.server != nil {
		return err
	}
	d.w.nextPID++
	s.server = serve(d.w.toolbox(s.Spec))
	s.Status = driver.Status{Phase: driver.PhaseRunning, PID: d.w.nextPID}
	s.began = time.Now()
	s.Starts++
	s.oom = 0
	return nil
}

// Stop ends a running instance with code 0.
func (d *Driver) Stop(ctx context.Context, h driver.Handle, _ time.Duration) error {
	if err := check(h); err != nil {
		return err
	}
	if err := d.w.enter(ctx, OpStop, h.ID); err != nil {
		return err
	}
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	s, err := d.w.find(h.ID)
	if err == nil && s.server != nil {
		s.end(0)
	}
	return err
}

// Remove forgets an instance.
func (d *Driver) Remove(ctx context.Context, h driver.Handle) error {
	if err := d.w.enter(ctx, OpRemove, h.ID); err != nil {
		return err
	}
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	if s, ok := d.w.instances[h.ID]; ok && s.server != nil {
		s.end(137)
	}
	delete(d.w.instances, h.ID)
	return nil
}

// Inspect tells how an instance is.
func (d *Driver) Inspect(ctx context.Context, h driver.Handle) (driver.Status, error) {
	if err := check(h); err != nil {
		return driver.Status{}, err
	}
	if err := d.w.enter(ctx, OpInspect, h.ID); err != nil {
		return driver.Status{}, err
	}
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	s, ok := d.w.instances[h.ID]
	if !ok {
		return driver.Status{Phase: driver.PhaseGone}, nil
	}
	return s.Status, nil
}

// Recover checks that the instance is there.
func (d *Driver) Recover(ctx context.Context, h driver.Handle) error {
	if err := check(h); err != nil {
		return err
	}
	if err := d.w.enter(ctx, OpRecover, h.ID); err != nil {
		return err
	}
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	_, err := d.w.find(h.ID)
	return err
}

// with plays a call's script and runs f on a running instance.
func (d *Driver) with(ctx context.Context, op Op, h driver.Handle, f func(*state) error) error {
	if err := check(h); err != nil {
		return err
	}
	if err := d.w.enter(ctx, op, h.ID); err != nil {
		return err
	}
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	s, err := d.w.running(h.ID)
	if err != nil {
		return err
	}
	return f(s)
}

// Dial connects to the toolbox's handler.
func (d *Driver) Dial(ctx context.Context, h driver.Handle) (net.Conn, error) {
	var srv *server
	err := d.with(ctx, OpDial, h, func(s *state) error { srv = s.server; return nil })
	if engine.KindOf(err) == engine.KindConflict {
		return nil, engine.Errorf(engine.KindUnavailable, "the toolbox of instance %s cannot be reached", h.ID).Wrap(err)
	}
	if err != nil {
		return nil, err
	}
	conn, err := srv.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("dial instance %s: %w", h.ID, err)
	}
	return conn, nil
}

// Pause marks an instance as paused. Its toolbox goes on answering.
func (d *Driver) Pause(ctx context.Context, h driver.Handle) error {
	return d.with(ctx, OpPause, h, func(s *state) error { s.Status.Phase = driver.PhasePaused; return nil })
}

// Resume marks an instance as running.
func (d *Driver) Resume(ctx context.Context, h driver.Handle) error {
	return d.with(ctx, OpResume, h, func(s *state) error { s.Status.Phase = driver.PhaseRunning; return nil })
}

// Resize keeps the new limits, those that are not 0.
func (d *Driver) Resize(ctx context.Context, h driver.Handle, r engine.Resources) error {
	if err := check(h); err != nil {
		return err
	}
	if err := d.w.enter(ctx, OpResize, h.ID); err != nil {
		return err
	}
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	s, err := d.w.find(h.ID)
	if err != nil {
		return err
	}
	have := &s.Spec.Resources
	if r.CPU > 0 {
		have.CPU = r.CPU
	}
	if r.MemoryMiB > 0 {
		have.MemoryMiB = r.MemoryMiB
	}
	if r.PIDs > 0 {
		have.PIDs = r.PIDs
	}
	return nil
}

// Rename keeps the new identity.
func (d *Driver) Rename(ctx context.Context, h driver.Handle, sandbox, hostname string, labels map[string]string) error {
	return d.with(ctx, OpRename, h, func(s *state) error {
		s.Sandbox, s.Hostname, s.Labels = sandbox, hostname, labels
		return nil
	})
}

// Stats makes up plausible numbers.
func (d *Driver) Stats(ctx context.Context, h driver.Handle) (engine.Stats, error) {
	var out engine.Stats
	err := d.with(ctx, OpStats, h, func(s *state) error {
		out = engine.Stats{
			Time: time.Now(), CPUNanos: uint64(time.Since(s.began)) + 1, MemoryBytes: 8 << 20, PIDs: 1, OOMKills: s.oom,
		}
		return nil
	})
	return out, err
}

// Watch tells of crashes and memory kills.
func (d *Driver) Watch(ctx context.Context) (<-chan driver.Event, error) {
	ch := make(chan driver.Event, 64)
	d.w.mu.Lock()
	d.w.watchers = append(d.w.watchers, ch)
	d.w.mu.Unlock()
	context.AfterFunc(ctx, func() {
		d.w.mu.Lock()
		defer d.w.mu.Unlock()
		d.w.watchers = slices.DeleteFunc(d.w.watchers, func(c chan driver.Event) bool { return c == ch })
		close(ch)
	})
	return ch, nil
}

// List finds every instance.
func (d *Driver) List(ctx context.Context) ([]driver.Handle, error) {
	if err := d.w.enter(ctx, OpList, ""); err != nil {
		return nil, err
	}
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	var out []driver.Handle
	for id := range d.w.instances {
		out = append(out, driver.Handle{Version: 1, Driver: Name, ID: id})
	}
	return out, nil
}

// Close stops every toolbox, for the end of a test.
func (d *Driver) Close() error {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	for _, s := range d.w.instances {
		if s.server != nil {
			s.end(137)
		}
	}
	return nil
}
