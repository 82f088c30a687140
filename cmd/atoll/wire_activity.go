package main

import (
	"context"
	"crypto/ed25519"
	"path/filepath"
	"sync"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/activity"
	"github.com/atoll-sh/atoll/engine/egress"
	"github.com/atoll-sh/atoll/engine/runner"
)

// openLedger opens the ledger of what sandboxes do. Its heads are signed with a
// key of this home.
func (h *host) openLedger() error {
	seed, err := secretFile(filepath.Join(h.cfg.Home, "ledger.key"))
	if err != nil {
		return err
	}
	h.ledger, err = activity.Open(activity.Config{Dir: filepath.Join(h.cfg.Home, "ledger"), Key: ed25519.NewKeyFromSeed(seed), Log: h.log})
	return err
}

// watchActivity feeds the ledger with what the kernel tells.
func (s *server) watchActivity(ctx context.Context) {
	for _, source := range s.host.sources() {
		s.run(ctx, func(ctx context.Context) {
			if err := source.Run(ctx, s.record); err != nil && ctx.Err() == nil {
				s.log.Error("activity is not watched any more", "err", err)
			}
		})
	}
}

// record keeps what happened, and lets operators know what was denied.
func (s *server) record(r engine.ActivityRecord) {
	s.host.ledger.Record(r)
	s.core.Observe(r)
}

// sources are what tells of activity on this host.
func (h *host) sources() []activity.Source {
	if h.filter == nil {
		return nil
	}
	return []activity.Source{&flows{filter: h.filter, runner: h.runner, held: map[uint32]holder{}}}
}

// maxHeld bounds the sandboxes that are remembered for events that come when
// they are gone.
const maxHeld = 8192

// holder is a sandbox's run.
type holder struct {
	sandbox     string
	incarnation uint64
}

// flows is what the egress filter sees, by sandbox.
type flows struct {
	filter *egress.Filter
	runner *runner.Runner

	mu   sync.Mutex
	held map[uint32]holder // by the filter's number of a run
}

// Run implements activity.Source.
func (f *flows) Run(ctx context.Context, record func(engine.ActivityRecord)) error {
	return f.filter.Watch(ctx, func(h egress.Holding, r engine.ActivityRecord) {
		if by := f.holder(h); by.sandbox != "" {
			r.Sandbox, r.Incarnation = by.sandbox, by.incarnation
			record(r)
		}
	})
}

func (f *flows) holder(h egress.Holding) holder {
	f.mu.Lock()
	defer f.mu.Unlock()
	if by, ok := f.held[h.Number]; ok {
		return by
	}
	sandbox, incarnation := f.runner.Holder(h.Slot)
	by := holder{sandbox, incarnation}
	if sandbox != "" {
		if len(f.held) >= maxHeld {
			clear(f.held)
		}
		f.held[h.Number] = by
	}
	return by
}
