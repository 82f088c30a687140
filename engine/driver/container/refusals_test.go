package container

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/atoll-sh/atoll/engine/driver/container/refused"
)

// ear takes what a driver tells of refused calls.
type ear struct {
	mu  sync.Mutex
	all []refused.Call
}

// listen begins to take calls; the result ends it.
func (e *ear) listen(d *Driver) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		d.Refusals(ctx, func(c refused.Call) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.all = append(e.all, c)
		})
	})
	return func() { cancel(); wg.Wait() }
}

func (e *ear) heard() []refused.Call {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.all)
}

// await waits for a call.
func (e *ear) await(t *testing.T, what string, want func(refused.Call) bool) refused.Call {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		all := e.heard()
		if i := slices.IndexFunc(all, want); i >= 0 {
			return all[i]
		}
		if time.Now().After(end) {
			t.Fatalf("%s was not told; told were %+v", what, all)
		}
	}
}

// tellsRefusals skips on a host whose shims cannot tell.
func tellsRefusals(t *testing.T, r *rig) {
	t.Helper()
	if r.driver.untold != nil {
		t.Skip(r.driver.untold)
	}
}

// TestRefusals has every call of TestSystemCalls told that the filter refuses,
// with what the caller gave.
func TestRefusals(t *testing.T) {
	r := newRig(t, nil)
	tellsRefusals(t, r)
	var e ear
	defer e.listen(r.driver)()
	h := r.start(t, nil)
	if code, out := r.exec(t, h, toolboxPath, "syscalls"); code != 0 {
		t.Fatalf("got exit %d: %s", code, out)
	}
	for _, want := range []struct{ name, detail string }{
		{"mount", "source=tmpfs target=/mnt type=tmpfs"},
		{"umount2", "target=/proc flags=detach"},
		{"unshare", "flags=newuser"},
		{"unshare", "flags=newns"},
		{"setns", "fd=0"},
		{"clone", "flags=newuser"},
		{"bpf", "command=map_create"},
		{"perf_event_open", "pid=0 cpu=-1"},
		{"userfaultfd", ""},
		{"io_uring_setup", "entries=8"},
		{"io_uring_enter", "fd=0"},
		{"keyctl", "operation=0"},
		{"add_key", "type=tmpfs description=/mnt"},
		{"init_module", "size=0"},
		{"finit_module", "fd=0"},
		{"kexec_load", "segments=0"},
		{"reboot", "command=0x1234567"},
		{"swapon", "path=/mnt"},
		{"settimeofday", ""},
		{"sethostname", "name=/mnt"},
		{"syslog", "type=3"},
		{"open_by_handle_at", "mount=0"},
		{"fsopen", "type=tmpfs"},
		{"open_tree", "dir=0 path=/mnt flags=0x1"},
		{"move_mount", "dir=0 path=/mnt to_dir=0 to=/mnt"},
		{"pivot_root", "root=/mnt old=/mnt"},
		{"iopl", "level=3"},
		{"quotactl", "id=0"},
		{"acct", ""},
	} {
		c := e.await(t, want.name+" "+want.detail, func(c refused.Call) bool { return c.Name == want.name && c.Detail == want.detail })
		if c.Instance != h.ID || c.Times != 1 || c.Caller.ID == 0 || c.Caller.Inner == 0 || c.Caller.Command != "toolbox" {
			t.Errorf("%s: got %+v", want.name, c)
		}
	}
	for _, c := range e.heard() {
		if strings.HasPrefix(c.Name, "call-") || c.Name == "clone3" {
			t.Errorf("got %+v", c)
		}
	}
}

// TestRefusalsOutliveTheServer: a sandbox whose server is gone gets the same
// answers, and the next server is told.
func TestRefusalsOutliveTheServer(t *testing.T) {
	r := newRig(t, nil)
	tellsRefusals(t, r)
	h := r.start(t, nil)
	script := func(n int) string {
		return fmt.Sprintf(`(sleep 0.3; mount -t tmpfs %d /mnt 2>/tmp/said; echo $? >>/tmp/said) >/dev/null 2>&1 &`, n)
	}
	if code, out := r.sh(t, h, script(1)); code != 0 {
		t.Fatal(out)
	}
	if err := r.driver.Close(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	r.open(t)
	var e ear
	defer e.listen(r.driver)()
	if err := r.driver.Recover(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	e.await(t, "the call while no server ran", func(c refused.Call) bool { return c.Name == "mount" && strings.HasPrefix(c.Detail, "source=1 ") })
	if _, out := r.sh(t, h, "cat /tmp/said"); !strings.Contains(out, "permission denied") && !strings.Contains(out, "not permitted") {
		t.Errorf("got %q", out)
	}
	r.sh(t, h, "mount -t tmpfs 2 /mnt")
	e.await(t, "the call after that", func(c refused.Call) bool { return strings.HasPrefix(c.Detail, "source=2 ") })
}

// TestRefusalFlood: many calls are answered late, and all are counted.
func TestRefusalFlood(t *testing.T) {
	r := newRig(t, nil)
	tellsRefusals(t, r)
	var e ear
	defer e.listen(r.driver)()
	h := r.start(t, nil)
	const same, other = 600, 100
	since := time.Now()
	if code, out := r.exec(t, h, toolboxPath, "flood", fmt.Sprint(same), fmt.Sprint(other)); code != 0 {
		t.Fatalf("got exit %d: %s", code, out)
	}
	if took := time.Since(since); took < 500*time.Millisecond {
		t.Errorf("%d calls took %v: nobody was slowed down", same+other, took)
	}
	// What was repeated is told at the end.
	if err := r.driver.Stop(t.Context(), h, time.Second); err != nil {
		t.Fatal(err)
	}
	var told, lost uint64
	for end := time.Now().Add(10 * time.Second); told+lost < same+other && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		told, lost = 0, 0
		for _, c := range e.heard() {
			if c.Name == "unshare" || c.Name == "acct" {
				told += c.Times
			}
			lost += c.Lost
		}
	}
	if told+lost != same+other {
		t.Errorf("%d were told and %d lost, of %d", told, lost, same+other)
	}
	if n := len(e.heard()); n > other+10 {
		t.Errorf("%d messages", n)
	}
}

// TestToldCallsAreRefused: what the listener is asked for is in no rule that
// allows it.
func TestToldCallsAreRefused(t *testing.T) {
	b, err := seccompProfile(capabilities(), true)
	if err != nil {
		t.Fatal(err)
	}
	var p specs.LinuxSeccomp
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatal(err)
	}
	if p.DefaultAction != specs.ActErrno {
		t.Errorf("what no rule names gets %s", p.DefaultAction)
	}
	for _, rule := range p.Syscalls {
		for _, name := range rule.Names {
			if rule.Action != specs.ActNotify && slices.Contains(refused.Names(), name) {
				t.Errorf("%s is both told and %s", name, rule.Action)
			}
		}
	}
}
