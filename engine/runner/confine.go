package runner

import (
	"context"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
)

// Confiner makes rules about programs and files hold for an instance, from
// before it runs anything of a sandbox until it has ended; engine/confine does.
type Confiner interface {
	// Confine replaces the rules of an instance that runs; nil lifts them, also
	// when it has ended or never had any. It fails when it cannot make all of
	// them hold.
	Confine(ctx context.Context, h driver.Handle, rules *engine.ExecFileRules) error
}

// confine makes the rules of a launch hold. Where the host cannot, only those
// that are best effort let the instance run.
func (r *Runner) confine(ctx context.Context, in *instance, rules *engine.ExecFileRules) error {
	if rules == nil {
		return nil
	}
	if r.cfg.Confiner != nil {
		return r.cfg.Confiner.Confine(ctx, in.handle(), rules)
	}
	if !rules.BestEffort {
		return engine.Errorf(engine.KindUnsupported, "policy %s has rules about programs and files, which this host cannot enforce", rules.Policy).
			WithHint("a kernel with BPF LSM can; enforcement: best-effort in the policy goes without")
	}
	r.log.Warn("rules about programs and files are not enforced", "sandbox", in.rec.Sandbox, "policy", rules.Policy)
	return nil
}

// release lifts the rules of an instance, which has ended or is to run without.
func (r *Runner) release(ctx context.Context, h driver.Handle) error {
	if r.cfg.Confiner == nil {
		return nil
	}
	return r.cfg.Confiner.Confine(ctx, h, nil)
}

// SetRules implements engine.Runner.
func (r *Runner) SetRules(ctx context.Context, sandbox string, rules *engine.ExecFileRules) error {
	defer r.lock(sandbox)()
	in, err := r.find(sandbox)
	if err != nil || rules == nil && in.rec.Launch.Rules == nil {
		return err
	}
	if in.state() == engine.StateStarted {
		if rules == nil {
			err = r.release(ctx, in.handle())
		} else {
			err = r.confine(ctx, in, rules)
		}
		if err != nil {
			return err
		}
	}
	in.rec.Launch.Rules = rules
	return in.save(false)
}
