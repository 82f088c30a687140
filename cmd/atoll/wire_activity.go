package main

import (
	"context"
	"crypto/ed25519"
	"path/filepath"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/activity"
	"github.com/atoll-sh/atoll/engine/driver/container"
	"github.com/atoll-sh/atoll/engine/driver/container/refused"
	"github.com/atoll-sh/atoll/engine/egress"
	"github.com/atoll-sh/atoll/engine/runner"
	"github.com/atoll-sh/atoll/engine/trace"
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

// openTracer has the kernel tell what processes do. Where it cannot, the ledger
// goes on without.
func (h *host) openTracer() (err error) {
	h.tracer, err = trace.Open(trace.Options{Down: h.ledger.Alive()}, h.log)
	if engine.KindOf(err) == engine.KindUnsupported {
		h.log.Warn("what processes do is not recorded", "err", err)
		h.tracer, h.untraced = nil, err
		return nil
	}
	return err
}

func (h *host) closeTracer() {
	if h.tracer == nil {
		return
	}
	if err := h.tracer.Close(); err != nil {
		h.log.Warn("stop watching processes", "err", err)
	}
	h.tracer = nil
}

// processRecords says what the ledger knows of processes.
func processRecords(recorded bool, why error) engine.Check {
	const name = "process records"
	if recorded {
		return engine.Check{Name: name, OK: true, Detail: "programs, files and connections of processes, from tracepoints in the kernel"}
	}
	c := engine.Check{Name: name, Detail: "not recorded", Fix: "use Linux 6.1 or later with BTF, and a kernel that allows BPF tracing programs"}
	if why != nil {
		c.Detail += ": " + why.Error()
	}
	return c
}

// watchActivity feeds the ledger with what the kernel tells. Operators learn of
// a denial at once, and whose it was when that is known.
func (s *server) watchActivity(ctx context.Context) {
	record := func(r engine.ActivityRecord) {
		s.host.ledger.Record(r)
		s.core.Attribute(r)
	}
	for _, source := range s.host.sources(s.core.Observe) {
		s.run(ctx, func(ctx context.Context) {
			if err := source.Run(ctx, record); err != nil && ctx.Err() == nil {
				s.log.Error("activity is not watched any more", "err", err)
			}
		})
	}
}

// sources are what tells of activity on this host. What the network's filter
// sees is observed at once; its record may wait until it is known whose it was.
func (h *host) sources(observe func(engine.ActivityRecord)) []activity.Source {
	var all []activity.Source
	if h.tracer != nil {
		all = append(all, h.tracer)
		h.ledger.SettleBy(h.tracer.Settle)
		all = append(all, &refusedCalls{driver: h.driver, tracer: h.tracer})
	}
	if h.filter != nil {
		all = append(all, &flows{filter: h.filter, runner: h.runner, tracer: h.tracer, observe: observe, held: map[uint32]holder{}})
	}
	if h.confiner != nil {
		all = append(all, &refusals{confiner: h.confiner, runner: h.runner, held: map[string]holder{}})
	}
	return all
}

// refusedCalls is what filters of system calls refuse. The tracer tells of it,
// among what else processes do.
type refusedCalls struct {
	driver *container.Driver
	tracer *trace.Tracer
}

// Run implements activity.Source.
func (r *refusedCalls) Run(ctx context.Context, _ func(engine.ActivityRecord)) error {
	r.driver.Refusals(ctx, func(c refused.Call) {
		r.tracer.Refused(c.Instance, trace.Refusal{
			Time: c.Time, Name: c.Name, Detail: c.Detail, Cut: c.Cut, Times: c.Times, Lost: c.Lost,
			Caller: trace.Caller{
				ID: c.Caller.ID, Thread: c.Caller.Thread, Inner: c.Caller.Inner, UID: c.Caller.UID,
				Start: time.Duration(c.Caller.Started) * refused.Tick, Command: c.Caller.Command,
			},
		})
	})
	return nil
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
	tracer *trace.Tracer // tells whose a flow is; nil: nobody does
	// observe is told at once, before it is known whose a flow is.
	observe func(engine.ActivityRecord)

	mu   sync.Mutex
	held map[uint32]holder // by the filter's number of a run
}

// Run implements activity.Source.
func (f *flows) Run(ctx context.Context, record func(engine.ActivityRecord)) error {
	return f.filter.Watch(ctx, func(h egress.Holding, r engine.ActivityRecord) {
		if by := f.holder(h); by.sandbox != "" {
			r.Sandbox, r.Incarnation = by.sandbox, by.incarnation
			f.observe(r)
			if f.tracer != nil {
				f.tracer.Flow(r, record)
			} else {
				record(r)
			}
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
