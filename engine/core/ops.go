package core

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// Limits of time for what is done on behalf of a caller who may be gone.
const (
	limitCreate  = 3 * time.Minute
	limitPull    = 30 * time.Minute
	limitStart   = 2 * time.Minute
	limitStop    = time.Minute // on top of the grace
	limitRemove  = 2 * time.Minute
	limitResize  = 2 * time.Minute
	limitSave    = 5 * time.Minute
	limitInspect = 10 * time.Second
)

var errDeleted = &engine.Error{Kind: engine.KindConflict, Message: "the sandbox was deleted meanwhile"}

// ops holds the one change that is under way on each sandbox. It keeps changes
// of this server apart; those of other servers are kept apart by the version
// of the row.
type ops struct {
	mu     sync.Mutex
	m      map[string]*op
	closed bool
	idle   chan struct{} // closed when closed and m is empty

	keys locks // idempotency keys in use
}

type op struct {
	name   string
	cancel context.CancelCauseFunc
	done   chan struct{}
}

func newOps() *ops { return &ops{m: map[string]*op{}, idle: make(chan struct{})} }

// begin starts a change of one sandbox. The context it returns keeps the
// values of ctx but not its cancellation, because half a change helps nobody;
// it ends after limit, or when the sandbox is deleted. The caller calls end.
//
// Another change under way is a conflict, but for a repair, which callers
// cannot know of: they wait until it is done.
func (o *ops) begin(ctx context.Context, id, name string, limit time.Duration) (_ context.Context, end func(), err error) {
	if err := o.enter(ctx, id, name); err != nil {
		return nil, nil, err
	}
	defer o.mu.Unlock()
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	ctx, release := context.WithTimeout(ctx, limit)
	mine := &op{name: name, cancel: cancel, done: make(chan struct{})}
	o.m[id] = mine
	return ctx, sync.OnceFunc(func() {
		release()
		cancel(nil)
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.m, id)
		close(mine.done)
		if o.closed && len(o.m) == 0 {
			close(o.idle)
		}
	}), nil
}

// enter returns with o.mu held when no change is under way on the sandbox.
func (o *ops) enter(ctx context.Context, id, name string) error {
	for {
		o.mu.Lock()
		cur, busy := o.m[id]
		if !busy && !o.closed {
			return nil
		}
		closed := o.closed
		o.mu.Unlock()
		switch {
		case closed:
			return engine.Errorf(engine.KindUnavailable, "the server is stopping").WithHint("try again in a moment")
		case cur.name != opSettle || name == opSettle:
			return inProgress(id, cur.name)
		}
		select {
		case <-cur.done:
		case <-ctx.Done():
			return engine.AsError(ctx.Err())
		}
	}
}

func inProgress(sandbox, what string) error {
	return engine.Errorf(engine.KindConflict, "sandbox %s: %s is in progress", sandbox, what).
		WithHint("wait until it has settled, then try again")
}

// preempt cancels the change under way on the sandbox and waits until it has
// cleaned up. It tells the change's name, "" when there was none.
func (o *ops) preempt(ctx context.Context, id string) (string, error) {
	o.mu.Lock()
	cur, busy := o.m[id]
	o.mu.Unlock()
	if !busy {
		return "", nil
	}
	if cur.name != opDelete {
		cur.cancel(errDeleted)
	}
	select {
	case <-cur.done:
		return cur.name, nil
	case <-ctx.Done():
		return cur.name, engine.AsError(ctx.Err())
	}
}

// busy tells whether a change is under way.
func (o *ops) busy(id string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.m[id]
	return ok
}

func (o *ops) close(ctx context.Context) error {
	o.mu.Lock()
	for _, cur := range o.m {
		if cur.name == opPrepare { // it may take minutes, and is begun again when it is needed
			cur.cancel(engine.Errorf(engine.KindUnavailable, "the server is stopping"))
		}
	}
	if !o.closed {
		o.closed = true
		if len(o.m) == 0 {
			close(o.idle)
		}
	}
	o.mu.Unlock()
	select {
	case <-o.idle:
		return nil
	case <-ctx.Done():
	}
	o.mu.Lock()
	for _, cur := range o.m {
		cur.cancel(engine.Errorf(engine.KindUnavailable, "the server is stopping"))
	}
	o.mu.Unlock()
	<-o.idle
	return ctx.Err()
}

// cause returns why ctx ended when that says more than err does.
func cause(ctx context.Context, err error) error {
	var e *engine.Error
	if why := context.Cause(ctx); err != nil && errors.As(why, &e) {
		return e.Wrap(err)
	}
	return err
}

// locks are named locks that callers queue for.
type locks struct {
	mu sync.Mutex
	m  map[string]*waiters
}

type waiters struct {
	n    int
	turn chan struct{}
}

func (l *locks) lock(ctx context.Context, name string) (unlock func(), err error) {
	l.mu.Lock()
	if l.m == nil {
		l.m = map[string]*waiters{}
	}
	w, ok := l.m[name]
	if !ok {
		w = &waiters{turn: make(chan struct{}, 1)}
		l.m[name] = w
	}
	w.n++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if w.n--; w.n == 0 {
			delete(l.m, name)
		}
	}
	select {
	case w.turn <- struct{}{}:
		return func() { <-w.turn; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, engine.AsError(ctx.Err())
	}
}
