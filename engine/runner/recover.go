package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine/driver"
	"github.com/atoll-sh/atoll/engine/network"
)

// recover brings records and host together after a restart: what runs is
// adopted, what was half done is finished, what has no record is removed.
func (r *Runner) recover(ctx context.Context) error {
	if err := r.loadRecords(); err != nil {
		return err
	}
	var keep []network.Slot
	boot := bootID()
	for _, in := range r.all() {
		if r.adopt(ctx, in, boot) {
			keep = append(keep, in.rec.Slot)
		}
	}
	// Instances without a record first: they use disks and slots.
	if err := r.removeOrphans(ctx); err != nil {
		return err
	}
	if err := r.cfg.Networks.Recover(ctx, keep); err != nil {
		r.log.Warn("recover networks; sandboxes without one go to error", "err", err)
	}
	for _, in := range r.all() {
		if err := r.settle(ctx, in); err != nil {
			return fmt.Errorf("settle sandbox %s: %w", in.rec.Sandbox, err)
		}
	}
	return nil
}

func (r *Runner) loadRecords() error {
	paths, err := filepath.Glob(filepath.Join(r.cfg.Home, "instances", "*.json"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		rec, ok, err := readRecord(path)
		if err != nil {
			return err
		}
		if !ok {
			r.log.Warn("torn record; its instance is removed", "record", path)
			if err := os.Remove(path); err != nil {
				return err
			}
			continue
		}
		r.add(r.newInstance(rec))
	}
	return nil
}

// adopt tells whether in still runs and keeps its network slot.
func (r *Runner) adopt(ctx context.Context, in *instance, boot string) bool {
	if in.rec.Phase != phaseStarted {
		return false
	}
	running := false
	if in.rec.Boot == boot {
		if err := r.cfg.Driver.Recover(ctx, in.rec.Handle); err != nil {
			r.log.Warn("recover", "sandbox", in.rec.Sandbox, "err", err)
		}
		st, err := r.cfg.Driver.Inspect(ctx, in.rec.Handle)
		running = err == nil && (st.Phase == driver.PhaseRunning || st.Phase == driver.PhasePaused)
		if running && st.Phase == driver.PhasePaused {
			if p, ok := driver.As[driver.Pauser](r.cfg.Driver); ok {
				_ = p.Resume(ctx, in.rec.Handle) // frozen for a snapshot that never finished
			}
		}
		if !running {
			in.failure = lossReason(st.ExitCode, st.OOM)
		}
	} else {
		in.rec.Phase = phaseStopping // the host was restarted
	}
	if running {
		r.traceBegin(ctx, in)
		r.traceStarted(ctx, in)
		r.log.Info("adopted", "sandbox", in.rec.Sandbox, "instance", in.rec.ID)
	}
	return running
}

// settle finishes what a crash interrupted. A sandbox whose toolbox was lost
// keeps its place in error, without network or mounts.
func (r *Runner) settle(ctx context.Context, in *instance) error {
	switch in.rec.Phase {
	case phaseStarted:
		if in.failure == "" {
			// Before the policy: one that knows of no secrets would let
			// connections by.
			if err := r.reseal(ctx, in); err != nil {
				r.log.Error("secrets do not reach a sandbox's traffic; start it again", "sandbox", in.rec.Sandbox, "err", err)
			}
			err := errors.Join(r.cfg.Networks.Apply(ctx, in.rec.Slot, in.rec.Launch.Network), r.confine(ctx, in, in.rec.Launch.Rules))
			if err == nil {
				return nil
			}
			r.log.Error("sandbox without network", "sandbox", in.rec.Sandbox, "err", err)
			in.failure = "its network was lost while the server was down; start it again"
		} else {
			in.rec.Slot.NetNS = "" // Recover removed it
		}
		return r.unmake(ctx, in)
	case phaseRemoving:
		in.rec.Slot.NetNS = ""
		return r.erase(ctx, in)
	default:
		in.rec.Slot.NetNS = ""
		if err := r.unmake(ctx, in); err != nil {
			return err
		}
		return in.setPhase(phaseStopped, true)
	}
}

// removeOrphans removes runtime instances, root mounts and disks that no
// record names.
func (r *Runner) removeOrphans(ctx context.Context) error {
	handles, ids := map[string]driver.Handle{}, map[string]driver.Handle{}
	if l, ok := driver.As[driver.Lister](r.cfg.Driver); ok {
		list, err := l.List(ctx)
		if err != nil {
			return fmt.Errorf("list instances: %w", err)
		}
		for _, h := range list {
			handles[h.ID], ids[h.ID] = h, h
		}
	}
	dirs, err := os.ReadDir(filepath.Join(r.cfg.RunDir, "i"))
	if err != nil {
		return err
	}
	for _, d := range dirs {
		ids[d.Name()] = handles[d.Name()]
	}
	disks, _, err := r.cfg.Disks.List(ctx)
	if err != nil {
		return fmt.Errorf("list disks: %w", err)
	}
	for _, d := range disks {
		ids[d] = handles[d]
	}
	var errs []error
	for id, h := range ids {
		if !strings.HasPrefix(id, "a-") || r.claims(id) {
			continue
		}
		r.log.Info("removing an instance without record", "instance", id)
		errs = append(errs, r.erase(ctx, r.newInstance(record{ID: id, Handle: h})))
	}
	return errors.Join(errs...)
}

// claims tells whether an instance is known or being made. What was listed
// before and is neither belongs to nobody.
func (r *Runner) claims(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.instances[id] != nil || r.making[id]
}

// sweepAfter is when to look for orphans again after a start: containerd may
// still have been at work on a call of the process before us.
var sweepAfter = []time.Duration{5 * time.Second, 30 * time.Second, 5 * time.Minute}

// sweep removes orphans that appear after the start.
func (r *Runner) sweep(ctx context.Context) {
	for _, wait := range sweepAfter {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if err := r.removeOrphans(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("remove orphans", "err", err)
		}
	}
}
