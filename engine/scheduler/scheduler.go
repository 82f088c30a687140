// Package scheduler chooses the runner for a sandbox. It decides from the
// inventory alone and holds no locks: two servers may choose the same runner
// at once, and the runner has the last word. A runner that refuses is followed
// by the next best.
package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/atoll-sh/atoll/engine"
)

// Config sets how far a host is filled. Zero fields take the defaults.
type Config struct {
	// CPUOvercommit is how many cores all sandboxes of a host may have
	// together for each real one. Limits are caps and not reservations, and
	// agents' sandboxes idle most of the time. Default 64.
	CPUOvercommit float64
	// MemoryOvercommit is the same for memory. An idle sandbox uses a few
	// MiB of the 1024 it may. Default 16.
	MemoryOvercommit float64
	// MaxCPU is the most cores one sandbox may ask for on a host that has
	// fewer. The quota is then worth what the host has; a snapshot made for
	// large hosts so works on a small one. Default 8.
	MaxCPU float64
	// MinFreeDiskMiB is left free in every pool, because disks are thin and
	// sandboxes that exist already will grow. Default 512.
	MinFreeDiskMiB int64
	// Choices is the K of best of K. Default 3.
	Choices int
}

func (c Config) withDefaults() Config {
	c.CPUOvercommit = cmp.Or(c.CPUOvercommit, 64)
	c.MemoryOvercommit = cmp.Or(c.MemoryOvercommit, 16)
	c.MaxCPU = cmp.Or(c.MaxCPU, 8)
	c.MinFreeDiskMiB = cmp.Or(c.MinFreeDiskMiB, 512)
	c.Choices = cmp.Or(c.Choices, 3)
	return c
}

// Request is what a sandbox needs.
type Request struct {
	Class     engine.Class
	Resources engine.Resources
	Runner    string // the only runner possible, where the disk is; empty: any
	// Restart tells that the sandbox holds its disk already.
	Restart bool
	// Holds is what a running sandbox that asks for more has by now.
	Holds engine.Resources
	// HasImage tells whether a runner has the image; nil means all do.
	HasImage func(runner string) bool
}

// Scheduler places sandboxes.
type Scheduler struct{ config Config }

// New makes a scheduler.
func New(c Config) *Scheduler { return &Scheduler{c.withDefaults()} }

// Place returns the id of the best runner for the request.
//
// Limits that no host can ever give are KindInvalid and name the limit and
// what there is; a cluster that is full for now is KindExhausted; no runner at
// all is KindUnavailable. A sandbox may never have more memory or disk than
// its host, but up to max(cores, MaxCPU) cores.
func (s *Scheduler) Place(_ context.Context, req Request, runners []engine.RunnerInfo) (string, error) {
	ids, err := s.candidates(req, runners)
	if err != nil {
		return "", err
	}
	return ids[0], nil
}

// Try calls try with one runner after the other, best first, until one does
// not refuse. A refusal is KindExhausted or KindUnavailable; any other error
// ends the search. It returns the runner that answered last.
func (s *Scheduler) Try(ctx context.Context, req Request, runners []engine.RunnerInfo, try func(ctx context.Context, runner string) error) (string, error) {
	ids, err := s.candidates(req, runners)
	if err != nil {
		return "", err
	}
	for i, id := range ids {
		err = try(ctx, id)
		if !refusal(err) || ctx.Err() != nil || i == len(ids)-1 {
			return id, err
		}
	}
	return "", err
}

func refusal(err error) bool {
	k := engine.KindOf(err)
	return k == engine.KindExhausted || k == engine.KindUnavailable
}

// candidates returns the runners that fit, best first.
func (s *Scheduler) candidates(req Request, runners []engine.RunnerInfo) ([]string, error) {
	able, err := able(req, runners)
	if err != nil {
		return nil, err
	}
	if able, err = s.large(req, able); err != nil {
		return nil, err
	}
	if able, err = s.free(req, able); err != nil {
		return nil, err
	}
	return s.order(req, able), nil
}

// able keeps the runners that may hold the sandbox at all.
func able(req Request, runners []engine.RunnerInfo) ([]engine.RunnerInfo, error) {
	if len(runners) == 0 {
		return nil, engine.Errorf(engine.KindUnavailable, "no runner is connected").WithHint("wait until the server is ready; see /readyz")
	}
	if req.Runner != "" {
		i := slices.IndexFunc(runners, func(r engine.RunnerInfo) bool { return r.ID == req.Runner })
		if i < 0 {
			return nil, engine.Errorf(engine.KindUnavailable, "runner %s, which holds the disk, is not connected", req.Runner).
				WithHint("bring that server back")
		}
		runners = runners[i : i+1]
	}
	fit := filter(runners, func(r engine.RunnerInfo) bool { return slices.Contains(r.Classes, req.Class) })
	if len(fit) == 0 {
		return nil, engine.Errorf(engine.KindUnsupported, "class %q is not available on any runner", req.Class).
			WithHint("available: %s", classes(runners))
	}
	return fit, nil
}

// large keeps the hosts that are large enough when empty.
func (s *Scheduler) large(req Request, runners []engine.RunnerInfo) ([]engine.RunnerInfo, error) {
	want := req.Resources
	limits := []struct {
		name, unit string
		want       float64
		has        func(engine.RunnerInfo) float64
		note       string
	}{
		{"cpu", "", want.CPU, func(r engine.RunnerInfo) float64 { return max(r.CPU, s.config.MaxCPU) }, ""},
		{"memory", " MiB", float64(want.MemoryMiB), func(r engine.RunnerInfo) float64 { return float64(r.MemoryMiB) }, ""},
		{"disk", " MiB", diskAsked(req), func(r engine.RunnerInfo) float64 { return float64(r.DiskMiB) }, " free"},
	}
	for _, l := range limits {
		fit := filter(runners, func(r engine.RunnerInfo) bool { return l.want <= l.has(r) })
		if len(fit) == 0 {
			return nil, engine.Errorf(engine.KindInvalid, "%s %s%s is more than any runner has (%s%s%s)",
				l.name, number(l.want), l.unit, number(most(runners, l.has)), l.unit, l.note).WithHint("ask for less %s", l.name)
		}
		runners = fit
	}
	if want.GPU > 0 {
		return nil, engine.Errorf(engine.KindUnsupported, "gpu %d is more than any runner has (0)", want.GPU).WithHint("leave gpu out")
	}
	return runners, nil
}

// diskAsked is what the pool must still give; 0 when the disk exists already.
func diskAsked(req Request) float64 {
	if req.Restart {
		return 0
	}
	return float64(req.Resources.DiskMiB - req.Holds.DiskMiB)
}

// free keeps the hosts that have room now.
func (s *Scheduler) free(req Request, runners []engine.RunnerInfo) ([]engine.RunnerInfo, error) {
	want := req.Resources
	limits := []struct {
		name string
		ok   func(engine.RunnerInfo) bool
		hint string
	}{
		{"cpu", func(r engine.RunnerInfo) bool {
			return r.Used.CPU+min(want.CPU, r.CPU)-min(req.Holds.CPU, r.CPU) <= r.CPU*s.config.CPUOvercommit
		}, "stop sandboxes that are not needed, or raise scheduler.cpuOvercommit"},
		{"memory", func(r engine.RunnerInfo) bool {
			return float64(r.Used.MemoryMiB+want.MemoryMiB-req.Holds.MemoryMiB) <= float64(r.MemoryMiB)*s.config.MemoryOvercommit
		}, "stop sandboxes that are not needed, or raise scheduler.memoryOvercommit"},
		{"disk", func(r engine.RunnerInfo) bool {
			return req.Restart || r.DiskMiB >= s.config.MinFreeDiskMiB
		}, "delete sandboxes or snapshots that are not needed"},
	}
	for _, l := range limits {
		fit := filter(runners, l.ok)
		if len(fit) == 0 {
			return nil, engine.Errorf(engine.KindExhausted, "no runner has %s left for this sandbox (%s)", l.name, capacity(runners)).WithHint("%s", l.hint)
		}
		runners = fit
	}
	return runners, nil
}

// capacity says in words how full the runners are.
func capacity(runners []engine.RunnerInfo) string {
	var parts []string
	for _, r := range runners {
		parts = append(parts, fmt.Sprintf("%s: %d sandboxes with cpu %s on %s cores, memory %d on %d MiB, %d MiB of disk free",
			r.ID, r.Sandboxes, number(r.Used.CPU), number(r.CPU), r.Used.MemoryMiB, r.MemoryMiB, r.DiskMiB))
		if len(parts) == 3 {
			break
		}
	}
	return strings.Join(parts, "; ")
}

// order sorts K random runners by score and puts the others behind them, so
// that servers that decide at the same moment do not all choose the same one.
func (s *Scheduler) order(req Request, runners []engine.RunnerInfo) []string {
	rand.Shuffle(len(runners), func(i, j int) { runners[i], runners[j] = runners[j], runners[i] })
	k := min(s.config.Choices, len(runners))
	slices.SortStableFunc(runners[:k], func(a, b engine.RunnerInfo) int {
		return cmp.Compare(s.score(req, b), s.score(req, a))
	})
	ids := make([]string, len(runners))
	for i, r := range runners {
		ids[i] = r.ID
	}
	return ids
}

// score is higher for a better runner. Having the image outweighs any load,
// because pulling takes longer than a crowded host.
func (s *Scheduler) score(req Request, r engine.RunnerInfo) float64 {
	left := func(used, has, over float64) float64 { return 1 - used/max(has*over, 1) }
	score := min(left(float64(r.Used.MemoryMiB), float64(r.MemoryMiB), s.config.MemoryOvercommit),
		left(r.Used.CPU, r.CPU, s.config.CPUOvercommit))
	if req.HasImage == nil || req.HasImage(r.ID) {
		score += 2
	}
	return score
}

// filter never changes its argument, which belongs to the caller.
func filter(runners []engine.RunnerInfo, keep func(engine.RunnerInfo) bool) []engine.RunnerInfo {
	var out []engine.RunnerInfo
	for _, r := range runners {
		if keep(r) {
			out = append(out, r)
		}
	}
	return out
}

func most(runners []engine.RunnerInfo, has func(engine.RunnerInfo) float64) float64 {
	var m float64
	for _, r := range runners {
		m = max(m, has(r))
	}
	return m
}

func classes(runners []engine.RunnerInfo) string {
	var all []string
	for _, r := range runners {
		for _, c := range r.Classes {
			if !slices.Contains(all, string(c)) {
				all = append(all, string(c))
			}
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func number(f float64) string { return fmt.Sprintf("%.10g", f) }
