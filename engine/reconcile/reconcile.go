// Package reconcile keeps what is wanted and what is real together. It runs
// when the server starts, every ten seconds and when something looks wrong:
// it finishes or undoes what a crash interrupted, writes what happened by
// itself, acts on timers, and removes what nobody owns. Decide, which has no
// side effects, says what to do; core does it.
package reconcile

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/core"
	"github.com/atoll-sh/atoll/engine/store"
)

const (
	defaultEvery = 10 * time.Second
	purgeEvery   = time.Hour
	tombstones   = 24 * time.Hour   // for how long destroyed sandboxes are remembered
	askLimit     = 10 * time.Second // for one runner's list
	atOnce       = 8                // actions done side by side
)

// Core is what reconcile does its work with.
type Core interface {
	Rows(ctx context.Context) ([]core.Row, error)
	Settle(ctx context.Context, row core.Row, f core.Fact) error
	Forget(ctx context.Context, row core.Row, reason string) error
	Halt(ctx context.Context, row core.Row) error
	StopStray(ctx context.Context, row core.Row) error
	Destroy(ctx context.Context, row core.Row) error
	DropForkDisk(ctx context.Context, row core.Row) error
	ApplyNetwork(ctx context.Context, row core.Row) error
	Narrow(ctx context.Context, row core.Row) error
	RemoveOrphan(ctx context.Context, runner, sandbox string) error
	FinishSnapshots(ctx context.Context) error
	DropImages(ctx context.Context)
	Purge(ctx context.Context, before time.Time) error
	Suspects() <-chan struct{}
}

// Runners is how reconcile finds runners.
type Runners interface {
	Client(runnerID string) engine.Runner
	Runners(ctx context.Context) []engine.RunnerInfo
}

// Config is what a loop is made of.
type Config struct {
	Core    Core
	Runners Runners
	Every   time.Duration // 0: ten seconds
	Now     func() time.Time
	Log     *slog.Logger
}

// Loop is one server's reconcile loop.
type Loop struct {
	Config
	poke chan struct{}

	mu      sync.Mutex // one round at a time
	applied map[string]bool
	purged  time.Time
}

// New makes a loop. Run runs it.
func New(c Config) *Loop {
	c.Every = cmp.Or(c.Every, defaultEvery)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Loop{Config: c, poke: make(chan struct{}, 1), applied: map[string]bool{}}
}

// Run goes round until ctx ends. The caller runs Once before it serves, so
// that nobody sees what a crash left.
func (l *Loop) Run(ctx context.Context) {
	tick := time.NewTicker(l.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-l.poke:
		case <-l.Core.Suspects():
		}
		if err := l.Once(ctx); err != nil && ctx.Err() == nil {
			l.Log.Warn("reconcile", "error", err)
		}
	}
}

// Poke asks for a round soon, for example when a toolbox has ended.
func (l *Loop) Poke() {
	select {
	case l.poke <- struct{}{}:
	default:
	}
}

// Once goes round once. Actions that fail are logged and tried again in the
// next round; the error is for what made the round itself impossible.
func (l *Loop) Once(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	asked := l.Now()
	// Runners are asked before rows are read: whatever they hold has its row
	// by then, so that an instance without one is an orphan for sure.
	held := l.ask(ctx)
	rows, err := l.Core.Rows(ctx)
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(atOnce)
	l.tendRows(ctx, &g, rows, held, asked)
	l.tendOrphans(ctx, &g, rows, held)
	_ = g.Wait() // actions log their own errors
	if err := l.Core.FinishSnapshots(ctx); err != nil {
		return err
	}
	l.Core.DropImages(ctx)
	return l.purge(ctx)
}

// holdings is what each runner that answered holds.
type holdings map[string]map[string]*engine.Instance

func (l *Loop) ask(ctx context.Context) holdings {
	held := holdings{}
	for _, r := range l.Runners.Runners(ctx) {
		one, cancel := context.WithTimeout(ctx, askLimit)
		list, err := l.Runners.Client(r.ID).Instances(one)
		cancel()
		if err != nil {
			l.Log.Warn("runner does not tell what it holds", "runner", r.ID, "error", err)
			continue
		}
		held[r.ID] = make(map[string]*engine.Instance, len(list))
		for i := range list {
			held[r.ID][list[i].Sandbox] = &list[i]
		}
	}
	return held
}

func (l *Loop) tendRows(ctx context.Context, g *errgroup.Group, rows []core.Row, held holdings, asked time.Time) {
	for _, row := range rows {
		instances, known := held[row.Runner]
		// What the runner told is older than a row that was written since.
		if !known || row.Held || !row.UpdatedAt.Before(asked) {
			continue
		}
		a := Decide(row, instances[row.ID], l.Now())
		if a.Verb == Leave {
			l.applyOnce(ctx, g, row)
			continue
		}
		g.Go(func() error {
			l.report(row, a, l.do(ctx, row, a))
			return nil
		})
	}
}

// applyOnce has the runner enforce a started sandbox's policy once in the
// life of this process, in case a crash came between the row and the runner.
func (l *Loop) applyOnce(ctx context.Context, g *errgroup.Group, row core.Row) {
	if row.State != engine.StateStarted || l.applied[row.ID] {
		return
	}
	l.applied[row.ID] = true
	g.Go(func() error {
		if err := l.Core.ApplyNetwork(ctx, row); err != nil && !store.Conflicting(err) {
			l.Log.Error("network policy not applied", "sandbox", row.ID, "error", err)
		}
		return nil
	})
}

func (l *Loop) do(ctx context.Context, row core.Row, a Action) error {
	switch a.Verb {
	case Settle:
		return l.Core.Settle(ctx, row, a.Fact)
	case Forget:
		return l.Core.Forget(ctx, row, a.Reason)
	case Halt:
		return l.Core.Halt(ctx, row)
	case StopStray:
		return l.Core.StopStray(ctx, row)
	case Destroy:
		return l.Core.Destroy(ctx, row)
	case DropForkDisk:
		return l.Core.DropForkDisk(ctx, row)
	case Narrow:
		return l.Core.Narrow(ctx, row)
	}
	return nil
}

func (l *Loop) report(row core.Row, a Action, err error) {
	log := l.Log.With("sandbox", row.ID, "action", string(a.Verb), "state", string(row.State), "reason", a.Reason)
	switch {
	case err == nil && a.Verb == Settle:
		log.Info("reconciled", "found", string(a.Fact.State))
	case err == nil:
		log.Info("reconciled")
	case store.Conflicting(err):
		log.Debug("left alone, it changed meanwhile", "error", err)
	default:
		log.Warn("not reconciled yet", "error", err)
	}
}

// tendOrphans removes instances without a row, or whose row says that another
// runner has the sandbox.
func (l *Loop) tendOrphans(ctx context.Context, g *errgroup.Group, rows []core.Row, held holdings) {
	owner := make(map[string]string, len(rows))
	for _, row := range rows {
		owner[row.ID] = row.Runner
	}
	for id := range l.applied {
		if _, live := owner[id]; !live {
			delete(l.applied, id)
		}
	}
	for runner, instances := range held {
		for id := range instances {
			if owner[id] == runner {
				continue
			}
			g.Go(func() error {
				err := l.Core.RemoveOrphan(ctx, runner, id)
				l.report(core.Row{Sandbox: store.Sandbox{Sandbox: engine.Sandbox{ID: id}}},
					Action{Verb: "remove orphan", Reason: "no row knows it"}, err)
				return nil
			})
		}
	}
}

func (l *Loop) purge(ctx context.Context) error {
	now := l.Now()
	if now.Sub(l.purged) < purgeEvery {
		return nil
	}
	l.purged = now
	return l.Core.Purge(ctx, now.Add(-tombstones))
}
