package runner

import (
	"io/fs"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver/fake"
)

// A caller that gives up on a save drops the disk while it is still being
// made. Storms of deletes and snapshots left disks behind in that way.
func TestDropWaitsForSave(t *testing.T) {
	h := newHost(t)
	r := h.runner(t)
	defer r.Close()
	if _, err := r.Launch(t.Context(), launch("s1")); err != nil {
		t.Fatal(err)
	}
	h.saving = make(chan struct{})
	saved, dropped := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := r.SaveDisk(t.Context(), "s1", "snap-1")
		saved <- err
	}()
	<-h.saving
	go func() { dropped <- r.DropDisk(t.Context(), "snap-1") }()
	for range 1000 {
		runtime.Gosched() // without its turn the drop would be over by now
	}
	h.saving <- struct{}{}
	if err := <-saved; err != nil {
		t.Error(err)
	}
	if err := <-dropped; err != nil {
		t.Error(err)
	}
	if len(h.saved) != 0 {
		t.Errorf("got saved disks %v, want none", h.saved)
	}
}

// The host's other users must not get to a sandbox's files, whose modes are
// meant for the users inside.
func TestOnlyTheSandboxPasses(t *testing.T) {
	h := newHost(t)
	r := h.runner(t)
	defer r.Close()
	if _, err := r.Launch(t.Context(), launch("s1")); err != nil {
		t.Fatal(err)
	}
	in, err := r.find("s1")
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(r.shareDir(in.rec.ID))
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	if got, want := info.Mode().Perm(), fs.FileMode(0o710); got != want || owner.Uid != 0 || owner.Gid != in.rec.Slot.UIDBase {
		t.Errorf("got mode %v of %d:%d, want %v of 0:%d", got, owner.Uid, owner.Gid, want, in.rec.Slot.UIDBase)
	}
}

// A pool may be smaller than the disk that it lies on.
func TestInfoTellsThePoolsRoom(t *testing.T) {
	r := newHost(t).runner(t)
	defer r.Close()
	info, err := r.Info(t.Context())
	if got, want := info.DiskMiB, int64(7); err != nil || got != want {
		t.Errorf("got %d MiB, %v; want %d", got, err, want)
	}
}

// Callers know a sandbox by its name, the driver by the instance's id.
func TestDialNamesTheSandbox(t *testing.T) {
	h := newHost(t)
	r := h.runner(t)
	defer r.Close()
	if _, err := r.Launch(t.Context(), launch("s1")); err != nil {
		t.Fatal(err)
	}
	h.driver.Fail(fake.OpDial, 1, engine.Errorf(engine.KindUnavailable, "the toolbox of instance a-1 cannot be reached"))
	_, err := r.Dial(t.Context(), "s1")
	got := engine.AsError(err)
	if got.Kind != engine.KindUnavailable || got.Message != "the toolbox of sandbox s1 cannot be reached" || got.Hint == "" {
		t.Errorf("got %v (hint %q)", got, got.Hint)
	}
}
