package confine

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/ebpf/enforce"
	"github.com/atoll-sh/atoll/engine"
)

// Watch tells of refusals until ctx ends. instance is the id of the runtime's
// instance; the record has no sandbox.
func (c *Confiner) Watch(ctx context.Context, tell func(instance string, r engine.ActivityRecord)) error {
	for ctx.Err() == nil {
		e, err := c.kernel.Read(ctx)
		if err != nil && (errors.Is(err, os.ErrClosed) || ctx.Err() != nil) {
			return nil
		}
		if err != nil {
			return err
		}
		c.mu.Lock()
		id := c.ids[e.Sandbox]
		c.mu.Unlock()
		if id != "" {
			tell(id, record(e))
		}
	}
	return nil
}

func record(e enforce.Event) engine.ActivityRecord {
	section := map[enforce.Access]string{enforce.Exec: "exec", enforce.Read: "files/read", enforce.Write: "files/write"}[e.Access]
	r := engine.ActivityRecord{
		Time: bootTime(e.Time), Kind: engine.ActivityFile, Operation: e.Op.String(), Detail: e.Path,
		Verdict: "deny", Rule: e.Rule, Reason: "a rule denies it",
	}
	if e.Op == enforce.OpExec {
		r.Kind = engine.ActivityExec
	}
	if e.Cut {
		r.Detail += "…"
	}
	switch {
	case e.Why == enforce.Unjudged:
		r.Rule, r.Reason = section+"/default", "its path is too deep to be judged"
	case e.Why == enforce.Looser:
		r.Reason = "it would be less restricted under its new name"
	case e.Rule == "":
		r.Reason = section + "/allow does not list it"
	}
	if r.Rule == "" {
		r.Rule = section + "/default"
	}
	return r
}

// bootTime is a moment of the kernel's clock, which counts from the boot.
func bootTime(since time.Duration) time.Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return time.Now().UTC()
	}
	return time.Now().Add(since - time.Duration(ts.Nano())).UTC()
}
