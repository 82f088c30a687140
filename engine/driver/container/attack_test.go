package container

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/activity"
	"github.com/atoll-sh/atoll/engine/driver"
	"github.com/atoll-sh/atoll/engine/driver/container/refused"
	"github.com/atoll-sh/atoll/engine/enginetest/attack"
	"github.com/atoll-sh/atoll/engine/trace"
)

// attacks are the rows of attack.json.
var attacks attack.Verdicts

// TestAttacksRefusedCalls makes calls that the filter refuses, among them the
// ways past the hooks that the records of processes stand on. Each must be
// refused, and in the ledger.
func TestAttacksRefusedCalls(t *testing.T) {
	r := newRig(t, nil)
	tellsRefusals(t, r)
	h, records := r.recorded(t)
	code, out := r.exec(t, h, toolboxPath, "syscalls")
	var got map[string]string
	if err := json.Unmarshal([]byte(out), &got); code != 0 || err != nil {
		t.Fatalf("got exit %d: %s", code, out)
	}
	const refusal, death = "operation not permitted", "killed"
	for _, a := range []struct {
		name, call, want  string
		operation, detail string
		story             string
	}{
		{"io_uring", "io_uring_setup", refusal, "io_uring_setup", "entries=8", "file work by io_uring, which makes no system calls"},
		{"foreign-calls", "x32-getpid", death, "foreign", "x32 call 39", "file work by the system calls of 32-bit programs"},
		{"mount", "mount", refusal, "mount", "source=tmpfs target=/mnt type=tmpfs", "a file system of the sandbox's own"},
		{"mount-by-handle", "fsopen", refusal, "fsopen", "type=tmpfs", "the same by the newer calls"},
		{"bpf", "bpf", refusal, "bpf", "command=map_create", "a program for the kernel"},
		{"unshare", "unshare-user", refusal, "unshare", "flags=newuser", "a user namespace, to be root in"},
		{"clone", "clone-user", refusal, "clone", "flags=newuser", "the same by clone"},
		{"setns", "setns", refusal, "setns", "fd=0", "somebody else's namespace"},
		{"module", "finit_module", refusal, "finit_module", "fd=0", "a module for the kernel"},
		{"kexec", "kexec_load", refusal, "kexec_load", "segments=0", "another kernel"},
		{"keys", "add_key", refusal, "add_key", "type=tmpfs description=/mnt", "the kernel's keyrings"},
		{"open-by-handle", "open_by_handle_at", refusal, "open_by_handle_at", "mount=0", "files outside by their numbers"},
	} {
		var seen engine.ActivityRecord
		for end := time.Now().Add(10 * time.Second); seen.Sequence == 0 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			all := records()
			if i := slices.IndexFunc(all, func(r engine.ActivityRecord) bool {
				return r.Kind == engine.ActivityPrivilege && r.Operation == a.operation && r.Detail == a.detail && r.Verdict == "deny" && r.Process != ""
			}); i >= 0 {
				seen = all[i]
			}
		}
		v := attack.Verdict{Name: a.name, Group: "ledger", Class: "container", Blocked: got[a.call] == a.want && seen.Sequence != 0, Detail: a.story + ": refused by the system call filter"}
		switch {
		case got[a.call] != a.want:
			v.Detail = "NOT REFUSED: " + a.story + ": " + got[a.call]
		case seen.Sequence == 0:
			v.Detail = "NOT SEEN: " + a.story
		default:
			v.Event = fmt.Sprintf("%s/%d", seen.Sandbox, seen.Sequence)
		}
		attacks.Add(t, v)
	}
}

// recorded starts an instance with a ledger, as a server would.
func (r *rig) recorded(t *testing.T) (h driver.Handle, records func() []engine.ActivityRecord) {
	t.Helper()
	ledger, err := activity.Open(activity.Config{Dir: filepath.Join(t.TempDir(), "ledger"), Key: ed25519.NewKeyFromSeed(make([]byte, 32))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ledger.Close)
	tracer, err := trace.Open(trace.Options{}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if engine.KindOf(err) == engine.KindUnsupported {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = tracer.Run(ctx, ledger.Record) })
	wg.Go(func() {
		r.driver.Refusals(ctx, func(c refused.Call) {
			tracer.Refused(c.Instance, trace.Refusal{
				Time: c.Time, Name: c.Name, Detail: c.Detail, Cut: c.Cut, Times: c.Times, Lost: c.Lost,
				Caller: trace.Caller{ID: c.Caller.ID, Inner: c.Caller.Inner, Start: time.Duration(c.Caller.Started) * refused.Tick},
			})
		})
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if err := tracer.Close(); err != nil {
			t.Error(err)
		}
	})
	spec := r.spec(t)
	if h, err = r.driver.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.remove(t, h) })
	dir, err := r.driver.Group(t.Context(), h)
	if err == nil {
		err = tracer.Begin(h.ID, trace.Group{Dir: dir, Control: spec.ControlDir, UIDBase: spec.UIDBase})
	}
	if err == nil {
		err = r.driver.Start(t.Context(), h)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.driver.Inspect(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	tracer.Started(h.ID, s.PID)
	tracer.Bind(h.ID, h.ID, 1)
	return h, func() []engine.ActivityRecord {
		page, err := ledger.Query(t.Context(), h.ID, engine.ActivityQuery{Limit: 1000})
		if err != nil && engine.KindOf(err) != engine.KindNotFound {
			t.Fatal(err)
		}
		return page.Items
	}
}
