package main

import (
	"context"
	"sync"

	"github.com/atoll-sh/atoll/ebpf/kernel"
	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/confine"
	"github.com/atoll-sh/atoll/engine/runner"
)

// openConfiner has the kernel enforce rules about programs and files. Where it
// cannot, the server goes on without: policies with such rules are refused.
func (h *host) openConfiner() error {
	if err := kernel.Mount(h.bpfDir()); err != nil {
		h.log.Warn("rules about programs and files cannot be enforced", "err", err)
		return nil
	}
	c, err := confine.Open(h.bpfDir(), h.driver, h.log)
	if engine.KindOf(err) == engine.KindUnsupported {
		h.log.Info("rules about programs and files cannot be enforced", "err", err)
		return nil
	}
	h.confiner = c
	return err
}

// settleConfiner ends rules that no sandbox has any more. Those that stay until
// the next start do no harm.
func (h *host) settleConfiner() {
	if h.confiner == nil {
		return
	}
	if err := h.confiner.Settle(); err != nil {
		h.log.Warn("remove old rules about programs and files", "err", err)
	}
}

func (h *host) closeConfiner() {
	if h.confiner == nil {
		return
	}
	if err := h.confiner.Close(); err != nil {
		h.log.Warn("close the rules about programs and files", "err", err)
	}
	h.confiner = nil
}

// refusals is what rules about programs and files refuse, by sandbox.
type refusals struct {
	confiner *confine.Confiner
	runner   *runner.Runner

	mu   sync.Mutex
	held map[string]holder // by instance
}

// Run implements activity.Source.
func (f *refusals) Run(ctx context.Context, record func(engine.ActivityRecord)) error {
	return f.confiner.Watch(ctx, func(instance string, r engine.ActivityRecord) {
		if by := f.holder(instance); by.sandbox != "" {
			r.Sandbox, r.Incarnation = by.sandbox, by.incarnation
			record(r)
		}
	})
}

// holder remembers the last run of an instance, for refusals told late.
func (f *refusals) holder(instance string) holder {
	f.mu.Lock()
	defer f.mu.Unlock()
	sandbox, incarnation := f.runner.SandboxOf(instance)
	if sandbox == "" {
		return f.held[instance]
	}
	if len(f.held) >= maxHeld {
		clear(f.held)
	}
	f.held[instance] = holder{sandbox, incarnation}
	return f.held[instance]
}
