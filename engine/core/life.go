package core

import (
	"cmp"
	"context"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/scheduler"
	"github.com/atoll-sh/atoll/engine/store"
)

const defaultGrace = 10 * time.Second

// change finds the sandbox, begins the named change and reads the row again,
// since another change may have ended in between. The caller calls end.
func (c *Core) change(ctx context.Context, ref engine.SandboxRef, name string, limit time.Duration) (context.Context, *store.Sandbox, func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, nil, err
	}
	found, err := c.find(ctx, ref)
	if err != nil {
		return nil, nil, nil, err
	}
	opctx, end, err := c.ops.begin(ctx, found.ID, name, limit)
	if err != nil {
		return nil, nil, nil, err
	}
	sb, err := c.find(ctx, engine.SandboxRef{OrganizationID: ref.OrganizationID, IDOrName: found.ID})
	if err != nil {
		end()
		return nil, nil, nil, err
	}
	return opctx, &sb, end, nil
}

// refuse says why a change cannot begin in the sandbox's state.
func refuse(sb *store.Sandbox, change, allowed string) error {
	if !sb.State.Settled() {
		return inProgress(sb.Name, string(sb.State))
	}
	return invalid("sandbox %s is %s; %s needs it %s", sb.Name, sb.State, change, allowed)
}

// Start starts a stopped sandbox, and mends one whose error is recoverable.
// Starting a started sandbox changes nothing.
func (s sandboxes) Start(ctx context.Context, ref engine.SandboxRef) (engine.Sandbox, error) {
	watch := newStopwatch(s.Now)
	ctx, sb, end, err := s.change(ctx, ref, opStart, limitStart)
	if err != nil {
		return engine.Sandbox{}, public(err)
	}
	defer end()
	if sb.State == engine.StateStarted {
		return s.view(sb), nil
	}
	if err := startable(sb); err != nil {
		return engine.Sandbox{}, err
	}
	watch.stage("resolve")
	warm, err := s.start(ctx, sb, watch)
	if err != nil {
		return engine.Sandbox{}, public(cause(ctx, err))
	}
	answer := s.view(sb)
	answer.Timing, answer.Warm = watch.stages, warm
	return answer, nil
}

func startable(sb *store.Sandbox) error {
	switch {
	case sb.State == engine.StateStopped, sb.State == engine.StateError && sb.Recoverable:
		return nil
	case sb.State == engine.StateError:
		return invalid("sandbox %s is in error and cannot be started: %s", sb.Name, sb.Error).WithHint("delete it and create a new one")
	case sb.State == engine.StatePaused, sb.State == engine.StateArchived:
		return engine.Errorf(engine.KindUnsupported, "sandbox %s is %s, which this server cannot undo", sb.Name, sb.State)
	}
	return refuse(sb, "start", "stopped")
}

func (s sandboxes) start(ctx context.Context, sb *store.Sandbox, watch *stopwatch) (warm bool, err error) {
	req := scheduler.Request{Class: sb.Class, Resources: sb.Resources, Runner: sb.Runner, Restart: true}
	if _, err := s.Scheduler.Place(ctx, req, s.Cluster.Runners(ctx)); err != nil {
		return false, err
	}
	free, err := s.within(ctx, sb, sb.Resources, true)
	if err != nil {
		return false, err
	}
	before := *sb
	travels, err := s.travels(ctx, sb)
	if err != nil {
		free()
		return false, err
	}
	err = s.move(ctx, sb, engine.StateStarting, func(row *store.Sandbox) {
		row.Desired, row.Incarnation = engine.DesiredStarted, row.Incarnation+1
	})
	free()
	if err != nil {
		return false, err
	}
	watch.stage("place")
	got, err := s.Cluster.Client(sb.Runner).Start(ctx, launch(sb, travels, s.Now()))
	if err != nil {
		err = cause(ctx, err)
		s.unstarted(ctx, sb, &before, err)
		return false, err
	}
	watch.nested("start", got.Timing)
	err = s.back(ctx, sb, engine.StateStarted, func(row *store.Sandbox) {
		row.StoppedAt, row.LastActive = time.Time{}, s.Now().UTC()
	})
	watch.stage("record")
	return got.Warm, err
}

// unstarted settles a sandbox whose start failed. A refusal leaves it stopped
// as it was; anything else leaves it in error, to be started again.
func (s sandboxes) unstarted(ctx context.Context, sb, before *store.Sandbox, why error) {
	switch engine.KindOf(why) {
	case engine.KindExhausted, engine.KindInvalid, engine.KindUnsupported:
		if before.State == engine.StateStopped {
			err := s.back(ctx, sb, engine.StateStopped, func(row *store.Sandbox) {
				row.Desired, row.StoppedAt = engine.DesiredStopped, before.StoppedAt
			})
			if err == nil {
				return
			}
		}
	case engine.KindNotFound: // the runner has no such sandbox
		s.fail(ctx, sb, why, false)
		return
	}
	s.fail(ctx, sb, why, true)
}

// Stop stops a started sandbox and keeps its disk. One that is ephemeral is
// destroyed.
func (s sandboxes) Stop(ctx context.Context, ref engine.SandboxRef, opt engine.StopOptions) (engine.Sandbox, error) {
	if opt.Grace < 0 || opt.Grace > time.Hour {
		return engine.Sandbox{}, invalid("grace is %v", opt.Grace).WithHint("use up to one hour")
	}
	limit := cmp.Or(opt.Grace, defaultGrace) + limitStop
	ctx, sb, end, err := s.change(ctx, ref, opStop, limit)
	if err != nil {
		return engine.Sandbox{}, public(err)
	}
	defer end()
	if sb.State != engine.StateStarted && sb.State != engine.StatePaused {
		return engine.Sandbox{}, refuse(sb, "stop", "started")
	}
	if err := s.halt(ctx, sb, opt); err != nil {
		return engine.Sandbox{}, public(cause(ctx, err))
	}
	return s.view(sb), nil
}

// halt takes a started sandbox, or one whose stop was interrupted, to stopped
// or, when it is ephemeral, to destroyed. The caller holds its op.
func (c *Core) halt(ctx context.Context, sb *store.Sandbox, opt engine.StopOptions) error {
	if sb.State != engine.StateStopping {
		desired := engine.DesiredStopped
		if sb.Lifecycle.Ephemeral() {
			desired = engine.DesiredDestroyed
		}
		err := c.move(ctx, sb, engine.StateStopping, func(row *store.Sandbox) { row.Desired = desired })
		if err != nil {
			return err
		}
	}
	if _, err := c.Cluster.Client(sb.Runner).Stop(ctx, sb.ID, opt); err != nil {
		err = cause(ctx, err)
		c.fail(ctx, sb, err, true)
		return err
	}
	if sb.Desired == engine.DesiredDestroyed {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limitRemove)
		defer cancel()
		return c.destroy(ctx, sb)
	}
	return c.back(ctx, sb, engine.StateStopped, func(row *store.Sandbox) { row.StoppedAt = c.Now().UTC() })
}

// Delete destroys a sandbox in any state, and cancels what is under way on
// it. Deleting by id what is destroyed already answers the same. When the
// runner cannot finish now, the answer is destroying, and reconcile finishes.
func (s sandboxes) Delete(ctx context.Context, ref engine.SandboxRef) (engine.Sandbox, error) {
	if err := ctx.Err(); err != nil {
		return engine.Sandbox{}, public(err)
	}
	found, err := s.findAny(ctx, ref)
	if err != nil {
		return engine.Sandbox{}, public(err)
	}
	sb, err := s.deleteByID(ctx, found)
	if err != nil {
		return engine.Sandbox{}, public(cause(ctx, err))
	}
	return s.view(&sb), nil
}

func (s sandboxes) deleteByID(ctx context.Context, found store.Sandbox) (store.Sandbox, error) {
	for {
		if _, err := s.ops.preempt(ctx, found.ID); err != nil {
			return found, err
		}
		opctx, end, err := s.ops.begin(ctx, found.ID, opDelete, limitRemove)
		if engine.KindOf(err) == engine.KindConflict {
			continue // another change slipped in between
		}
		if err != nil {
			return found, err
		}
		defer end()
		return s.deleteNow(opctx, found)
	}
}

func (s sandboxes) deleteNow(ctx context.Context, found store.Sandbox) (store.Sandbox, error) {
	sb, err := s.Store.SandboxByID(ctx, found.ID)
	if engine.KindOf(err) == engine.KindNotFound { // its create was canceled
		found.State, found.Desired = engine.StateDestroyed, engine.DesiredDestroyed
		return found, nil
	}
	if err != nil || sb.State == engine.StateDestroyed {
		return sb, err
	}
	if err := s.destroy(ctx, &sb); err != nil && sb.State != engine.StateDestroying {
		return sb, err
	}
	return sb, nil
}

// destroy takes a sandbox from any state to destroyed. On an error of the
// runner it stays destroying with the reason. The caller holds its op.
func (c *Core) destroy(ctx context.Context, sb *store.Sandbox) error {
	if sb.State != engine.StateDestroying {
		err := c.move(ctx, sb, engine.StateDestroying, func(row *store.Sandbox) {
			row.Desired = engine.DesiredDestroyed
		})
		if err != nil {
			return err
		}
	}
	if err := c.removeAll(ctx, sb); err != nil {
		c.Log.Warn("sandbox not removed yet", "sandbox", sb.ID, "runner", sb.Runner, "error", err)
		why := engine.AsError(err).Message
		if sb.Error != why {
			if werr := c.write(ctx, sb, func(row *store.Sandbox) { row.Error = why }); werr != nil {
				return werr
			}
		}
		return err
	}
	err := c.back(ctx, sb, engine.StateDestroyed, func(row *store.Sandbox) {
		row.Env, row.Secrets, row.ForkDisk = nil, nil, "" // what may be secret is not kept
	})
	if err == nil {
		c.dropImageOf(ctx, sb)
	}
	return err
}
