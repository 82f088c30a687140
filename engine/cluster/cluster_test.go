package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"

	"github.com/atoll-sh/atoll/engine"
)

func TestMain(m *testing.M) {
	// The in-process NATS server leaves two process-wide helpers behind.
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*Server).startGoRoutine.func1"))
}

func open(t *testing.T, url string) *Cluster {
	t.Helper()
	c, err := Open(t.Context(), Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func serve(t *testing.T, c *Cluster, id string, r engine.Runner) func() {
	t.Helper()
	stop, err := c.Serve(t.Context(), id, r)
	if err != nil {
		t.Fatal(err)
	}
	return stop
}

// echo is a runner that answers every method through one function, which gets
// the method's name and arguments.
type echo struct {
	engine.Runner // nil: a method without an answer below panics
	answer        func(ctx context.Context, method string, args ...any) (any, error)
}

func as[R any](v any, err error) (R, error) {
	r, _ := v.(R)
	return r, err
}

func (e echo) Launch(ctx context.Context, l engine.Launch) (engine.Launched, error) {
	return as[engine.Launched](e.answer(ctx, "Launch", l))
}

func (e echo) Start(ctx context.Context, l engine.Launch) (engine.Launched, error) {
	return as[engine.Launched](e.answer(ctx, "Start", l))
}

func (e echo) Stop(ctx context.Context, sb string, o engine.StopOptions) (engine.Instance, error) {
	return as[engine.Instance](e.answer(ctx, "Stop", sb, o))
}

func (e echo) Remove(ctx context.Context, sb string) error {
	_, err := e.answer(ctx, "Remove", sb)
	return err
}

func (e echo) Resize(ctx context.Context, sb string, r engine.Resources) (engine.Instance, error) {
	return as[engine.Instance](e.answer(ctx, "Resize", sb, r))
}

func (e echo) SetNetwork(ctx context.Context, sb string, p engine.NetworkPolicy) error {
	_, err := e.answer(ctx, "SetNetwork", sb, p)
	return err
}

func (e echo) SetRules(ctx context.Context, sb string, rules *engine.ExecFileRules) error {
	_, err := e.answer(ctx, "SetRules", sb, rules)
	return err
}

func (e echo) SetSecrets(ctx context.Context, sb string, on bool) error {
	_, err := e.answer(ctx, "SetSecrets", sb, on)
	return err
}

func (e echo) SaveDisk(ctx context.Context, sb, disk string) (engine.SavedDisk, error) {
	return as[engine.SavedDisk](e.answer(ctx, "SaveDisk", sb, disk))
}

func (e echo) DropDisk(ctx context.Context, disk string) error {
	_, err := e.answer(ctx, "DropDisk", disk)
	return err
}

func (e echo) Instances(ctx context.Context) ([]engine.Instance, error) {
	return as[[]engine.Instance](e.answer(ctx, "Instances"))
}

func (e echo) Stats(ctx context.Context, sb string) (engine.Stats, error) {
	return as[engine.Stats](e.answer(ctx, "Stats", sb))
}

func (e echo) EnsureImage(ctx context.Context, r engine.EnsureImage) (engine.Image, error) {
	return as[engine.Image](e.answer(ctx, "EnsureImage", r))
}

func (e echo) DropImage(ctx context.Context, img engine.Image) error {
	_, err := e.answer(ctx, "DropImage", img)
	return err
}

func (e echo) SetPools(ctx context.Context, targets []engine.PoolTarget) error {
	_, err := e.answer(ctx, "SetPools", targets)
	return err
}

func (e echo) Pools(ctx context.Context) ([]engine.PoolStatus, error) {
	return as[[]engine.PoolStatus](e.answer(ctx, "Pools"))
}

func (e echo) Samples(ctx context.Context, q engine.SampleQuery) ([]engine.Sample, error) {
	return as[[]engine.Sample](e.answer(ctx, "Samples", q))
}

// Info also serves heartbeats, so it answers by itself in most tests.
func (e echo) Info(ctx context.Context) (engine.RunnerInfo, error) {
	if e.answer == nil {
		return engine.RunnerInfo{CPU: 2}, nil
	}
	v, err := e.answer(ctx, "Info")
	if v == nil && err == nil {
		return engine.RunnerInfo{CPU: 2}, nil
	}
	return as[engine.RunnerInfo](v, err)
}

// fill sets everything in v, so that a field lost on the way is seen.
func fill(v reflect.Value, n int) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("text %d <&\u2028é", n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(n) + 1<<40)
	case reflect.Uint16:
		v.SetUint(uint64(n) + 1<<15)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Uint64:
		v.SetUint(uint64(n) + 1<<63)
	case reflect.Float64:
		v.SetFloat(float64(n) + 0.1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), n+i)
		}
	case reflect.Map:
		key, val := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, n)
		fill(val, n+1)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, val)
	case reflect.Struct:
		if t, ok := v.Addr().Interface().(*time.Time); ok {
			*t = time.Unix(int64(n), 5).UTC()
			return
		}
		if p, ok := v.Addr().Interface().(*netip.Prefix); ok {
			*p = netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), 32)
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), n+i)
		}
	default:
		panic("fill: " + v.Type().String())
	}
}

func filled(t reflect.Type, n int) reflect.Value {
	v := reflect.New(t).Elem()
	fill(v, n)
	return v
}

// TestEveryMethodSurvivesTheWire walks engine.Runner, so that a method that
// is added there without a handler here fails.
func TestEveryMethodSurvivesTheWire(t *testing.T) {
	runner := reflect.TypeFor[engine.Runner]()
	if got, want := len(handlers(echo{})), runner.NumMethod(); got != want {
		t.Errorf("got %d handlers, want %d", got, want)
	}
	c := open(t, "")
	for i := range runner.NumMethod() {
		m := runner.Method(i)
		t.Run(m.Name, func(t *testing.T) { survives(t, c, m) })
	}
}

var samePrefix = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func survives(t *testing.T, c *Cluster, m reflect.Method) {
	var result any
	if m.Type.NumOut() == 2 {
		result = filled(m.Type.Out(0), 3).Interface()
	}
	var method string
	var args []any
	var fail error
	stop := serve(t, c, "r."+m.Name, echo{answer: func(ctx context.Context, name string, a ...any) (any, error) {
		if name == "Info" && m.Name != "Info" {
			return nil, nil // a heartbeat
		}
		if _, ok := ctx.Deadline(); !ok {
			t.Error("the deadline was lost")
		}
		method, args = name, a
		return result, fail
	}})
	defer stop()

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	in := []reflect.Value{reflect.ValueOf(ctx)}
	var want []any
	for i := 1; i < m.Type.NumIn(); i++ {
		in = append(in, filled(m.Type.In(i), i))
		want = append(want, in[i].Interface())
	}
	client := reflect.ValueOf(c.Client("r." + m.Name)).MethodByName(m.Name)
	out := client.Call(in)
	if err := out[len(out)-1].Interface(); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, args, samePrefix); d != "" || method != m.Name {
		t.Errorf("%s was called with\n%s", method, d)
	}
	if len(out) == 2 {
		if d := cmp.Diff(result, out[0].Interface(), samePrefix); d != "" {
			t.Error(d)
		}
	}

	if m.Name == "Info" {
		return // its failure stops heartbeats
	}
	fail = &engine.Error{Kind: engine.KindExhausted, Message: "no", Hint: "wait", Code: "FULL", Err: errors.New("cause")}
	out = client.Call(in)
	var got *engine.Error
	if err, _ := out[len(out)-1].Interface().(error); !errors.As(err, &got) {
		t.Fatalf("got %v, want an *engine.Error", err)
	}
	if d := cmp.Diff(fail, error(got), cmp.Comparer(func(a, b *engine.Error) bool {
		return a.Kind == b.Kind && a.Message == b.Message && a.Hint == b.Hint && a.Code == b.Code && a.Err.Error() == b.Err.Error()
	})); d != "" {
		t.Error(d)
	}
}

func wantKind(t *testing.T, err error, want engine.Kind) {
	t.Helper()
	if got := engine.KindOf(err); got != want {
		t.Errorf("got kind %q (%v), want %q", got, err, want)
	}
}

func TestFailures(t *testing.T) {
	c := open(t, "")
	blocked := make(chan struct{}, 1)
	ended := make(chan error, 1)
	stop := serve(t, c, "r1", echo{answer: func(ctx context.Context, method string, _ ...any) (any, error) {
		switch method {
		case "Launch":
			panic("boom")
		case "Start":
			blocked <- struct{}{}
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, fmt.Errorf("start: %w", ctx.Err())
		case "Stop":
			return nil, errors.New("/var/lib/secret: no such file")
		}
		return nil, nil
	}})
	r := c.Client("r1")

	t.Run("nobody there", func(t *testing.T) {
		_, err := c.Client("r2").Info(t.Context())
		wantKind(t, err, engine.KindUnavailable)
	})
	t.Run("panic", func(t *testing.T) {
		_, err := r.Launch(t.Context(), engine.Launch{})
		wantKind(t, err, engine.KindInternal)
		wantKind(t, r.Remove(t.Context(), "s"), "")
	})
	t.Run("plain error shows nothing", func(t *testing.T) {
		_, err := r.Stop(t.Context(), "s", engine.StopOptions{})
		wantKind(t, err, engine.KindInternal)
		if e := engine.AsError(err); strings.Contains(e.Message, "secret") {
			t.Errorf("got message %q", e.Message)
		}
	})
	t.Run("caller cancels", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-blocked; cancel() }()
		_, err := r.Start(ctx, engine.Launch{})
		wantKind(t, err, engine.KindCanceled)
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the runner saw %v, want canceled", err)
		}
	})
	t.Run("deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // the call has to arrive within it
		defer cancel()
		_, err := r.Start(ctx, engine.Launch{})
		wantKind(t, err, engine.KindTimeout)
		<-blocked
		<-ended
	})
	t.Run("stop ends calls", func(t *testing.T) {
		done := make(chan error)
		go func() {
			_, err := r.Start(t.Context(), engine.Launch{})
			done <- err
		}()
		<-blocked
		stop()
		wantKind(t, <-done, engine.KindCanceled)
		wantKind(t, r.Remove(t.Context(), "s"), engine.KindUnavailable)
		if got := c.Runners(t.Context()); len(got) != 0 {
			t.Errorf("got %d runners, want none", len(got))
		}
	})
}

func TestTooManyCalls(t *testing.T) {
	c := open(t, "")
	release := make(chan struct{})
	serve(t, c, "r1", echo{answer: func(ctx context.Context, method string, _ ...any) (any, error) {
		if method == "Remove" {
			<-release
		}
		return nil, nil
	}})
	errs := make(chan error)
	for range maxCalls + 10 {
		go func() { errs <- c.Client("r1").Remove(t.Context(), "s") }()
	}
	for range 10 {
		wantKind(t, <-errs, engine.KindUnavailable)
	}
	close(release)
	for range maxCalls {
		wantKind(t, <-errs, "")
	}
}

func TestInventory(t *testing.T) {
	c := open(t, "")
	info := engine.RunnerInfo{Classes: []engine.Class{engine.ClassContainer}, CPU: 2, MemoryMiB: 3, DiskMiB: 4, Used: engine.Resources{CPU: 1}, Sandboxes: 5}
	stop := serve(t, c, "r1", echo{answer: func(context.Context, string, ...any) (any, error) { return info, nil }})
	got := c.Runners(t.Context())
	if len(got) != 1 || got[0].UpdatedAt.IsZero() {
		t.Fatalf("got %+v, want r1", got)
	}
	info.ID, info.UpdatedAt = "r1", got[0].UpdatedAt
	if d := cmp.Diff(info, got[0]); d != "" {
		t.Error(d)
	}
	stop()
	stop()
	if got := c.Runners(t.Context()); len(got) != 0 {
		t.Errorf("got %+v after stop, want none", got)
	}
	// A runner that fell silent is dropped.
	c.inv.apply(heartbeat{Info: engine.RunnerInfo{ID: "silent"}})
	c.inv.mu.Lock()
	c.inv.runners["silent"] = entry{seen: time.Now().Add(-beatTTL - time.Second)}
	c.inv.mu.Unlock()
	if got := c.Runners(t.Context()); len(got) != 0 {
		t.Errorf("got %+v, want none", got)
	}
}

func TestRunnerThatCannotTellItsInventory(t *testing.T) {
	c := open(t, "")
	_, err := c.Serve(t.Context(), "r1", echo{answer: func(context.Context, string, ...any) (any, error) {
		return nil, engine.Errorf(engine.KindUnavailable, "not ready")
	}})
	wantKind(t, err, engine.KindUnavailable)
}

func TestEvents(t *testing.T) {
	c := open(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	mine, err := c.Watch(ctx, "org.1 *")
	if err != nil {
		t.Fatal(err)
	}
	all, err := c.Watch(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	want := engine.Event{ID: "01", Type: "sandbox.created", OrganizationID: "org.1 *", Time: time.Unix(1, 0).UTC(), Sandbox: &engine.Sandbox{ID: "s", Labels: map[string]string{"a": "b"}}, New: "creating"}
	c.Publish(engine.Event{Type: "sandbox.created", OrganizationID: "other"})
	c.Publish(want)
	if d := cmp.Diff(want, <-mine); d != "" {
		t.Error(d)
	}
	if got := (<-all).OrganizationID; got != "other" {
		t.Errorf("got %q, want other", got)
	}
	cancel()
	for range mine { // closes
	}
	for range all {
	}
}

func TestSlowWatcherIsClosed(t *testing.T) {
	c := open(t, "")
	slow, err := c.Watch(t.Context(), "org")
	if err != nil {
		t.Fatal(err)
	}
	fast, err := c.Watch(t.Context(), "org")
	if err != nil {
		t.Fatal(err)
	}
	for i := range watchBuffer + 1 {
		c.Publish(engine.Event{OrganizationID: "org", Type: fmt.Sprint(i)})
		if got, ok := <-fast; !ok || got.Type != fmt.Sprint(i) {
			t.Fatalf("got %q, %v, want %d", got.Type, ok, i)
		}
	}
	for i := 0; watchers(c) != 1; i++ {
		if i == 6000 {
			t.Fatal("the slow watcher was not closed")
		}
		time.Sleep(10 * time.Millisecond)
	}
	n := 0
	for range slow {
		n++
	}
	if n != watchBuffer {
		t.Errorf("got %d events before the close, want %d", n, watchBuffer)
	}
}

func watchers(c *Cluster) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.stops)
}

func TestClose(t *testing.T) {
	c := open(t, "")
	serve(t, c, "r1", echo{})
	events, err := c.Watch(t.Context(), "org")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	c.Close()
	for range events {
	}
	_, err = c.Serve(t.Context(), "r1", echo{})
	wantKind(t, err, engine.KindInternal) // the connection is closed
	_, err = c.Client("r1").Info(t.Context())
	wantKind(t, err, engine.KindUnavailable)
}

// TestTwoProcesses has two members meet at a NATS server with a port.
func TestTwoProcesses(t *testing.T) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer func() { s.Shutdown(); s.WaitForShutdown() }()
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("no server")
	}
	a, b := open(t, s.ClientURL()), open(t, s.ClientURL())
	events, err := b.Watch(t.Context(), "org")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, a, "r1", echo{answer: func(_ context.Context, method string, _ ...any) (any, error) {
		if method == "Instances" {
			return []engine.Instance{{Sandbox: "s"}}, nil
		}
		return nil, nil
	}})
	got, err := b.Client("r1").Instances(t.Context())
	if err != nil || len(got) != 1 || got[0].Sandbox != "s" {
		t.Errorf("got %+v, %v", got, err)
	}
	late := open(t, s.ClientURL()) // joins after the first heartbeat and asks
	for _, c := range []*Cluster{b, late} {
		for i := 0; len(c.Runners(t.Context())) != 1; i++ {
			if i == 6000 {
				t.Fatal("the runner was not heard of")
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	a.Publish(engine.Event{OrganizationID: "org", Type: "x"})
	if got := (<-events).Type; got != "x" {
		t.Errorf("got %q, want x", got)
	}
}

func BenchmarkCall(b *testing.B) {
	c, err := Open(b.Context(), Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Serve(b.Context(), "r1", echo{answer: func(context.Context, string, ...any) (any, error) { return nil, nil }}); err != nil {
		b.Fatal(err)
	}
	r := c.Client("r1")
	b.Run("Remove", func(b *testing.B) {
		for b.Loop() {
			if err := r.Remove(b.Context(), "s"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Launch", func(b *testing.B) {
		l := engine.Launch{Sandbox: "s", Image: "atoll:default", Env: map[string]string{"A": "b"}}
		for b.Loop() {
			if _, err := r.Launch(b.Context(), l); err != nil {
				b.Fatal(err)
			}
		}
	})
}
