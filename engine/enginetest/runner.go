package enginetest

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// Runner is a runner in memory. It keeps the rules of the contract, so that a
// caller that breaks one fails its test, and it fails when told to.
type Runner struct {
	ID      string
	InfoVal engine.RunnerInfo // what Info answers, with ID and Used filled in

	mu        sync.Mutex
	instances map[string]*engine.Instance
	policies  map[string]engine.NetworkPolicy
	launches  map[string]engine.Launch
	disks     map[string]bool
	images    map[string]engine.Image
	ensured   []engine.EnsureImage
	pools     []engine.PoolTarget
	faults    map[engine.PoolKind]string
	samples   map[string][]engine.Sample
	hooks     map[string][]func(ctx context.Context) error
	calls     []string
}

// NewRunner makes a runner with two cores, 8 GiB and a pool of 100 GiB.
func NewRunner(id string) *Runner {
	return &Runner{
		ID: id,
		InfoVal: engine.RunnerInfo{
			Classes: []engine.Class{engine.ClassContainer}, CPU: 2, MemoryMiB: 8192, DiskMiB: 100 << 10,
		},
		instances: map[string]*engine.Instance{}, policies: map[string]engine.NetworkPolicy{},
		launches: map[string]engine.Launch{}, disks: map[string]bool{}, images: map[string]engine.Image{},
		hooks: map[string][]func(context.Context) error{},
	}
}

// Fail makes the next calls of a method answer these errors, one each; a nil
// lets a call pass. The failing call has no effect.
func (r *Runner) Fail(method string, errs ...error) {
	for _, err := range errs {
		r.Hook(method, func(context.Context) error { return err })
	}
}

// Hook runs before the next call of a method takes effect, which it does not
// when the hook returns an error.
func (r *Runner) Hook(method string, f func(ctx context.Context) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hooks[method] = append(r.hooks[method], f)
}

// Block makes the next call of a method wait until release is called or its
// context ends. Entered is closed when the call has come.
func (r *Runner) Block(method string) (entered <-chan struct{}, release func()) {
	in, out := make(chan struct{}), make(chan struct{})
	r.Hook(method, func(ctx context.Context) error {
		close(in)
		select {
		case <-out:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return in, sync.OnceFunc(func() { close(out) })
}

// begin notes the call, runs a hook and takes the lock.
func (r *Runner) begin(ctx context.Context, method, object string) (func(), error) {
	r.mu.Lock()
	if !slices.Contains([]string{"Info", "Instances", "Stats", "Pools", "SetPools", "Samples"}, method) {
		r.calls = append(r.calls, strings.TrimSpace(method+" "+object))
	}
	var hook func(context.Context) error
	if q := r.hooks[method]; len(q) > 0 {
		hook, r.hooks[method] = q[0], q[1:]
	}
	r.mu.Unlock()
	if hook != nil {
		if err := hook(ctx); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	return r.mu.Unlock, nil
}

// Calls returns the calls so far, as "Launch ID", without reads.
func (r *Runner) Calls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// Forget empties the list of calls.
func (r *Runner) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = nil
}

// Put places an instance as if it had always been there.
func (r *Runner) Put(in engine.Instance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.instances[in.Sandbox] = &in
}

// Edit changes an instance behind the caller's back; nil makes it vanish.
func (r *Runner) Edit(sandbox string, change func(*engine.Instance)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if change == nil {
		delete(r.instances, sandbox)
		return
	}
	change(r.instances[sandbox])
}

// Held returns what the runner holds: instances by sandbox, and saved disks.
func (r *Runner) Held() (map[string]engine.Instance, []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]engine.Instance, len(r.instances))
	for id, in := range r.instances {
		out[id] = *in
	}
	return out, slices.Sorted(maps.Keys(r.disks))
}

// Policy returns the network policy in force for a sandbox.
func (r *Runner) Policy(sandbox string) engine.NetworkPolicy {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.policies[sandbox]
}

// Launched returns the last Launch or Start of a sandbox.
func (r *Runner) Launched(sandbox string) engine.Launch {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.launches[sandbox]
}

func (r *Runner) find(sandbox string) (*engine.Instance, error) {
	in, ok := r.instances[sandbox]
	if !ok {
		return nil, engine.Errorf(engine.KindNotFound, "the runner has no sandbox %s", sandbox)
	}
	return in, nil
}

func (r *Runner) run(l engine.Launch) engine.Launched {
	in := &engine.Instance{
		Sandbox: l.Sandbox, Incarnation: l.Incarnation, State: engine.StateStarted, Resources: l.Resources, LastActive: time.Now(),
	}
	r.instances[l.Sandbox], r.policies[l.Sandbox], r.launches[l.Sandbox] = in, l.Network, l
	return engine.Launched{Instance: *in, Warm: !l.Cold, Timing: []engine.Stage{{Name: "run", Took: time.Millisecond}}}
}

// Launch brings a sandbox to life.
func (r *Runner) Launch(ctx context.Context, l engine.Launch) (engine.Launched, error) {
	unlock, err := r.begin(ctx, "Launch", l.Sandbox)
	if err != nil {
		return engine.Launched{}, err
	}
	defer unlock()
	if in, ok := r.instances[l.Sandbox]; ok && in.Incarnation > l.Incarnation {
		return engine.Launched{}, engine.Errorf(engine.KindConflict, "incarnation %d is old", l.Incarnation)
	}
	if l.Disk != "" && !r.disks[l.Disk] {
		return engine.Launched{}, engine.Errorf(engine.KindNotFound, "disk %s does not exist", l.Disk)
	}
	return r.run(l), nil
}

// Start starts a stopped sandbox.
func (r *Runner) Start(ctx context.Context, l engine.Launch) (engine.Launched, error) {
	unlock, err := r.begin(ctx, "Start", l.Sandbox)
	if err != nil {
		return engine.Launched{}, err
	}
	defer unlock()
	in, err := r.find(l.Sandbox)
	if err != nil {
		return engine.Launched{}, err
	}
	if in.Incarnation > l.Incarnation {
		return engine.Launched{}, engine.Errorf(engine.KindConflict, "incarnation %d is old", l.Incarnation)
	}
	return r.run(l), nil
}

// Stop stops a sandbox.
func (r *Runner) Stop(ctx context.Context, sandbox string, _ engine.StopOptions) (engine.Instance, error) {
	unlock, err := r.begin(ctx, "Stop", sandbox)
	if err != nil {
		return engine.Instance{}, err
	}
	defer unlock()
	in, err := r.find(sandbox)
	if err != nil {
		return engine.Instance{}, err
	}
	in.State = engine.StateStopped
	return *in, nil
}

// Remove removes a sandbox; nil when it is gone.
func (r *Runner) Remove(ctx context.Context, sandbox string) error {
	unlock, err := r.begin(ctx, "Remove", sandbox)
	if err != nil {
		return err
	}
	defer unlock()
	delete(r.instances, sandbox)
	delete(r.policies, sandbox)
	return nil
}

// Resize changes limits.
func (r *Runner) Resize(ctx context.Context, sandbox string, res engine.Resources) (engine.Instance, error) {
	unlock, err := r.begin(ctx, "Resize", sandbox)
	if err != nil {
		return engine.Instance{}, err
	}
	defer unlock()
	in, err := r.find(sandbox)
	if err != nil {
		return engine.Instance{}, err
	}
	in.Resources = res
	return *in, nil
}

// SetNetwork changes the policy.
func (r *Runner) SetNetwork(ctx context.Context, sandbox string, p engine.NetworkPolicy) error {
	unlock, err := r.begin(ctx, "SetNetwork", sandbox)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := r.find(sandbox); err != nil {
		return err
	}
	r.policies[sandbox] = p
	return nil
}

// SetRules changes what Launched tells of them.
func (r *Runner) SetRules(ctx context.Context, sandbox string, rules *engine.ExecFileRules) error {
	unlock, err := r.begin(ctx, "SetRules", sandbox)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := r.find(sandbox); err != nil {
		return err
	}
	l := r.launches[sandbox]
	l.Rules = rules
	r.launches[sandbox] = l
	return nil
}

// SetSecrets is remembered by nobody.
func (r *Runner) SetSecrets(ctx context.Context, sandbox string, _ bool) error {
	unlock, err := r.begin(ctx, "SetSecrets", sandbox)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = r.find(sandbox)
	return err
}

// SaveDisk saves a disk.
func (r *Runner) SaveDisk(ctx context.Context, sandbox, disk string) (engine.SavedDisk, error) {
	unlock, err := r.begin(ctx, "SaveDisk", sandbox)
	if err != nil {
		return engine.SavedDisk{}, err
	}
	defer unlock()
	if _, err := r.find(sandbox); err != nil {
		return engine.SavedDisk{}, err
	}
	r.disks[disk] = true
	return engine.SavedDisk{Disk: disk, SizeBytes: 4096}, nil
}

// DropDisk drops a saved disk; nil when it is gone.
func (r *Runner) DropDisk(ctx context.Context, disk string) error {
	unlock, err := r.begin(ctx, "DropDisk", disk)
	if err != nil {
		return err
	}
	defer unlock()
	delete(r.disks, disk)
	return nil
}

// Instances lists what the runner holds.
func (r *Runner) Instances(ctx context.Context) ([]engine.Instance, error) {
	unlock, err := r.begin(ctx, "Instances", "")
	if err != nil {
		return nil, err
	}
	defer unlock()
	var out []engine.Instance
	for _, id := range slices.Sorted(maps.Keys(r.instances)) {
		out = append(out, *r.instances[id])
	}
	return out, nil
}

// Stats measures a sandbox.
func (r *Runner) Stats(ctx context.Context, sandbox string) (engine.Stats, error) {
	unlock, err := r.begin(ctx, "Stats", sandbox)
	if err != nil {
		return engine.Stats{}, err
	}
	defer unlock()
	_, err = r.find(sandbox)
	return engine.Stats{MemoryBytes: 42}, err
}

// Info answers InfoVal and what is in use.
func (r *Runner) Info(ctx context.Context) (engine.RunnerInfo, error) {
	unlock, err := r.begin(ctx, "Info", "")
	if err != nil {
		return engine.RunnerInfo{}, err
	}
	defer unlock()
	info := r.InfoVal
	info.ID, info.Sandboxes = r.ID, len(r.instances)
	for _, in := range r.instances {
		if in.State == engine.StateStarted {
			info.Used.CPU += in.Resources.CPU
			info.Used.MemoryMiB += in.Resources.MemoryMiB
		}
	}
	return info, nil
}

// EnsureImage answers an image with that reference.
func (r *Runner) EnsureImage(ctx context.Context, req engine.EnsureImage) (engine.Image, error) {
	unlock, err := r.begin(ctx, "EnsureImage", req.Ref)
	if err != nil {
		return engine.Image{}, err
	}
	defer unlock()
	img := engine.Image{Ref: req.Ref, Digest: "sha256:" + req.Ref, SizeBytes: 7, User: "img", WorkDir: "/img"}
	r.images[req.Ref] = img
	r.ensured = append(r.ensured, req)
	return img, nil
}

// Ensured returns what EnsureImage was asked for so far.
func (r *Runner) Ensured() []engine.EnsureImage {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ensured)
}

// Images returns the references of the images that the runner has.
func (r *Runner) Images() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.images))
}

// DropImage forgets an image; nil when it is gone.
func (r *Runner) DropImage(ctx context.Context, img engine.Image) error {
	unlock, err := r.begin(ctx, "DropImage", img.Ref)
	if err != nil {
		return err
	}
	defer unlock()
	delete(r.images, img.Ref)
	return nil
}

// SetPools remembers the targets; members are ready at once.
func (r *Runner) SetPools(ctx context.Context, targets []engine.PoolTarget) error {
	unlock, err := r.begin(ctx, "SetPools", "")
	if err != nil {
		return err
	}
	defer unlock()
	r.pools = slices.Clone(targets)
	return nil
}

// FailPool makes a kind of the pool fail with this text, and have no members.
func (r *Runner) FailPool(kind engine.PoolKind, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.faults == nil {
		r.faults = map[engine.PoolKind]string{}
	}
	r.faults[kind] = text
}

// Pools tells of the targets.
func (r *Runner) Pools(ctx context.Context) ([]engine.PoolStatus, error) {
	unlock, err := r.begin(ctx, "Pools", "")
	if err != nil {
		return nil, err
	}
	defer unlock()
	var out []engine.PoolStatus
	for _, t := range r.pools {
		st := engine.PoolStatus{PoolTarget: t, Ready: t.Size, Error: r.faults[t.PoolKind]}
		if st.Error != "" {
			st.Ready = 0
		}
		out = append(out, st)
	}
	return out, nil
}

// Targets returns what SetPools was told last.
func (r *Runner) Targets() []engine.PoolTarget {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.pools)
}

// AddSamples gives a sandbox a history.
func (r *Runner) AddSamples(sandbox string, samples ...engine.Sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.samples == nil {
		r.samples = map[string][]engine.Sample{}
	}
	r.samples[sandbox] = append(r.samples[sandbox], samples...)
}

// Samples returns those between the times.
func (r *Runner) Samples(ctx context.Context, q engine.SampleQuery) ([]engine.Sample, error) {
	unlock, err := r.begin(ctx, "Samples", q.Sandbox)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var out []engine.Sample
	for _, s := range r.samples[q.Sandbox] {
		if !s.Time.Before(q.From) && !s.Time.After(q.To) {
			out = append(out, s)
		}
	}
	return out, nil
}
