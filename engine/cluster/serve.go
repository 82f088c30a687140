package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/atoll-sh/atoll/engine"
)

// maxCalls bounds the calls that one runner works on at a time. More are
// refused at once, so that a flood neither queues without end nor takes all
// memory.
const maxCalls = 1024

// handler answers one method: JSON in, JSON out.
type handler func(ctx context.Context, body []byte) ([]byte, error)

// unary makes a handler of a method with one argument and one result.
func unary[A, R any](method func(context.Context, A) (R, error)) handler {
	return func(ctx context.Context, body []byte) ([]byte, error) {
		var args A
		if err := json.Unmarshal(body, &args); err != nil {
			return nil, engine.Errorf(engine.KindInvalid, "the call's arguments are not readable").Wrap(err)
		}
		result, err := method(ctx, args)
		if err != nil {
			return nil, err
		}
		return json.Marshal(result)
	}
}

func noResult[A any](method func(context.Context, A) error) handler {
	return unary(func(ctx context.Context, a A) (none, error) { return none{}, method(ctx, a) })
}

// handlers lists what a runner answers. A method of engine.Runner that is not
// here fails the package's tests.
func handlers(r engine.Runner) map[string]handler {
	return map[string]handler{
		"Launch":      unary(r.Launch),
		"Start":       unary(r.Start),
		"EnsureImage": unary(r.EnsureImage),
		"Stop": unary(func(ctx context.Context, a stopArgs) (engine.Instance, error) {
			return r.Stop(ctx, a.Sandbox, a.Options)
		}),
		"Remove": noResult(func(ctx context.Context, a sandboxArgs) error { return r.Remove(ctx, a.Sandbox) }),
		"Resize": unary(func(ctx context.Context, a resizeArgs) (engine.Instance, error) {
			return r.Resize(ctx, a.Sandbox, a.Resources)
		}),
		"SetNetwork": noResult(func(ctx context.Context, a networkArgs) error {
			return r.SetNetwork(ctx, a.Sandbox, a.Policy)
		}),
		"SetRules": noResult(func(ctx context.Context, a rulesArgs) error {
			return r.SetRules(ctx, a.Sandbox, a.Rules)
		}),
		"SetSecrets": noResult(func(ctx context.Context, a secretsArgs) error {
			return r.SetSecrets(ctx, a.Sandbox, a.On)
		}),
		"SaveDisk": unary(func(ctx context.Context, a diskArgs) (engine.SavedDisk, error) {
			return r.SaveDisk(ctx, a.Sandbox, a.Disk)
		}),
		"DropDisk":  noResult(func(ctx context.Context, a diskArgs) error { return r.DropDisk(ctx, a.Disk) }),
		"Instances": unary(func(ctx context.Context, _ none) ([]engine.Instance, error) { return r.Instances(ctx) }),
		"Stats": unary(func(ctx context.Context, a sandboxArgs) (engine.Stats, error) {
			return r.Stats(ctx, a.Sandbox)
		}),
		"DropImage": noResult(r.DropImage),
		"SetPools":  noResult(r.SetPools),
		"Pools":     unary(func(ctx context.Context, _ none) ([]engine.PoolStatus, error) { return r.Pools(ctx) }),
		"Samples":   unary(r.Samples),
		"Info":      unary(func(ctx context.Context, _ none) (engine.RunnerInfo, error) { return r.Info(ctx) }),
	}
}

// changing are the methods after which the inventory is stale.
var changing = map[string]bool{"Launch": true, "Start": true, "Stop": true, "Remove": true, "Resize": true}

type service struct {
	id       string
	conn     *nats.Conn
	log      *slog.Logger
	handlers map[string]handler
	beat     *heart

	ctx   context.Context
	slots chan struct{}
	wg    sync.WaitGroup

	mu     sync.Mutex
	closed bool
	calls  map[string]context.CancelFunc
}

// Serve answers calls for the runner and announces it, until stop is called
// or the cluster is closed. It returns once callers can find the runner. Stop
// cancels the calls at work and waits for them.
func (c *Cluster) Serve(ctx context.Context, runnerID string, r engine.Runner) (stop func(), err error) {
	if runnerID == "" {
		return nil, engine.Errorf(engine.KindInvalid, "runner id is empty")
	}
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &service{
		id: runnerID, conn: c.conn, log: c.log.With("runner", runnerID), handlers: handlers(r),
		ctx: base, slots: make(chan struct{}, maxCalls), calls: map[string]context.CancelFunc{},
	}
	subs, err := s.subscribe()
	if err != nil {
		cancel()
		return nil, err
	}
	s.beat, err = c.startHeart(base, runnerID, r, s.log)
	if err == nil {
		err = c.conn.FlushTimeout(10 * time.Second) // callers elsewhere can find it from here on
	}
	halt := func() {
		unsubscribe(subs)
		s.stop(cancel)
	}
	if err != nil {
		halt()
		return nil, fmt.Errorf("announce runner %s: %w", runnerID, err)
	}
	stop, err = c.own(halt)
	if err != nil {
		halt()
		return nil, err
	}
	return stop, nil
}

func (s *service) subscribe() ([]*nats.Subscription, error) {
	prefix := "runner." + token(s.id)
	var subs []*nats.Subscription
	for subject, handle := range map[string]nats.MsgHandler{prefix + ".rpc.*": s.accept, prefix + ".cancel": s.cancel} {
		sub, err := s.conn.Subscribe(subject, handle)
		if err != nil {
			unsubscribe(subs)
			return nil, fmt.Errorf("serve runner %s: %w", s.id, err)
		}
		subs = append(subs, sub)
	}
	return subs, nil
}

func unsubscribe(subs []*nats.Subscription) {
	for _, sub := range subs {
		_ = sub.Unsubscribe()
	}
}

func (s *service) stop(cancel context.CancelFunc) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	cancel()
	s.wg.Wait()
	if s.beat != nil {
		s.beat.stop()
	}
	_ = s.conn.FlushTimeout(time.Second)
}

// accept runs on the subscription's goroutine and must not wait.
func (s *service) accept(m *nats.Msg) {
	select {
	case s.slots <- struct{}{}:
	default:
		s.answer(m, nil, engine.Errorf(engine.KindUnavailable, "runner %s is busy with %d calls", s.id, maxCalls).
			WithHint("try again in a moment"))
		return
	}
	ctx, done, ok := s.begin(m)
	if !ok {
		<-s.slots
		s.answer(m, nil, engine.Errorf(engine.KindUnavailable, "runner %s is stopping", s.id))
		return
	}
	go func() {
		defer func() { done(); <-s.slots; s.wg.Done() }()
		s.work(ctx, m)
	}()
}

// begin makes the call's context, with the caller's deadline, and notes it
// for canceling.
func (s *service) begin(m *nats.Msg) (context.Context, func(), bool) {
	left := longestCall
	if n, err := strconv.ParseInt(m.Header.Get(headerTimeout), 10, 64); err == nil {
		left = min(left, time.Duration(n))
	}
	id := m.Header.Get(headerCall)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, false
	}
	s.wg.Add(1)
	ctx, cancel := context.WithTimeout(s.ctx, left)
	s.calls[id] = cancel
	return ctx, func() {
		cancel()
		s.mu.Lock()
		delete(s.calls, id)
		s.mu.Unlock()
	}, true
}

func (s *service) cancel(m *nats.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cancel, ok := s.calls[string(m.Data)]; ok {
		cancel()
	}
}

func (s *service) work(ctx context.Context, m *nats.Msg) {
	method := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
	result, err := s.run(ctx, method, m.Data)
	s.answer(m, result, err)
	if changing[method] {
		s.beat.soon()
	}
}

// run turns a panic of a runner into an internal error, because one bad call
// must not end the sandboxes of everybody else.
func (s *service) run(ctx context.Context, method string, body []byte) (result []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("runner panicked", "method", method, "panic", p, "stack", string(debug.Stack()))
			result, err = nil, engine.Errorf(engine.KindInternal, "internal error in %s", method).
				WithHint("see the server's log").Wrap(fmt.Errorf("panic: %v", p))
		}
	}()
	h, ok := s.handlers[method]
	if !ok {
		return nil, engine.Errorf(engine.KindUnsupported, "runner %s does not know the call %s", s.id, method).
			WithHint("bring all servers of the cluster to the same version")
	}
	return h(ctx, body)
}

func (s *service) answer(m *nats.Msg, result []byte, err error) {
	r := reply{Result: result}
	if err != nil {
		r = reply{Error: toWire(err)}
	}
	data, err := json.Marshal(r)
	if err == nil && len(data) > maxPayload {
		data, err = json.Marshal(reply{Error: toWire(engine.Errorf(engine.KindInternal, "the answer is too large"))})
	}
	if err == nil {
		err = m.Respond(data)
	}
	if err != nil {
		s.log.Warn("answer lost", "subject", m.Subject, "error", err)
	}
}
