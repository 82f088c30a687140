package confine

import (
	"context"
	"encoding/pem"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/ebpf/kernel"
	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
	"github.com/atoll-sh/atoll/engine/driver/fake"
	"github.com/atoll-sh/atoll/engine/toolbox/client"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
	"github.com/atoll-sh/atoll/policies"
)

// sandbox is a driver whose one instance has this control group.
type sandbox struct {
	driver.Driver
	group string
}

func (s sandbox) Group(context.Context, driver.Handle) (string, error) { return s.group, nil }

// startToolbox runs the toolbox in a control group, as a runtime does: the file
// system of this machine is its sandbox's.
func startToolbox(t *testing.T, program string) (sandbox, *client.Client) {
	t.Helper()
	group, err := os.MkdirTemp("/sys/fs/cgroup", "confine-")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(group)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	c := exec.Command(program)
	c.Env = []string{"PATH=/bin", "ATOLL_SUDO=1", "ATOLL_WORKDIR=/home"}
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	tb := client.New(&http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", "/run/atoll/toolbox.sock")
	}})
	for {
		if _, err := tb.Status(t.Context()); err == nil {
			return sandbox{fake.New(nil), group}, tb
		}
		if t.Context().Err() != nil {
			t.Fatal("the toolbox does not answer")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestToolboxWorksUnderRules has the narrowest lists that let a shell run: the
// engine's own work must go on, and nothing else. It needs a machine of its own,
// because the toolbox takes the paths that it has in a sandbox.
func TestToolboxWorksUnderRules(t *testing.T) {
	program := os.Getenv("ATOLL_TEST_TOOLBOX")
	if program == "" {
		t.Skip("needs a machine of its own: ebpf/kernel/vmtest runs it in one")
	}
	for _, dir := range []string{"/home", "/etc/ssl", "/bpf"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s, tb := startToolbox(t, program)
	if err := kernel.Mount("/bpf"); err != nil {
		t.Fatal(err)
	}
	c, err := Open("/bpf", s, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h := driver.Handle{ID: "a-1"}
	if err := c.Confine(t.Context(), h, &engine.ExecFileRules{
		Policy: "narrow",
		Exec:   policies.Paths{Allow: []string{"/bin/busybox"}},
		Read:   policies.Paths{Deny: []string{"/**/secret"}},
		Write:  policies.Paths{Allow: []string{"/home/**"}, Deny: []string{"/**/.git/**"}},
	}); err != nil {
		t.Fatal(err)
	}
	records := watch(t, c)

	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("one")})
	id := wire.Identity{SandboxID: "s", Hostname: "s", Trust: wire.Trust{Certificate: string(certificate), Roots: string(certificate)}}
	if err := tb.SetIdentity(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := tb.StartSession(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		command string
		works   bool
	}{
		{"echo hello >/home/file && cat /home/file", true},
		{"echo >/dev/null && echo >/proc/self/comm", true},
		{"cp /bin/busybox /home/busybox", true},
		{"/home/busybox true", false},
		{"echo x >/etc/passwd", false},
		{"echo x >/home/secret", true},
		{"cat /home/secret", false},
		{"mv /home/secret /home/public", false},
		{"mkdir -p /home/p/.git && echo >/home/p/.git/config", false},
		{"mv /home/p /home/q", true}, // below it, the same is refused as before
	} {
		r, err := tb.Exec(t.Context(), "one", wire.SessionExecute{Command: test.command})
		if err != nil {
			t.Fatal(err)
		}
		if r.ExitCode == nil || (*r.ExitCode == 0) != test.works {
			t.Errorf("%s: %+v", test.command, r)
		}
	}
	got := strings.Join(records(5), "\n")
	want := strings.Join([]string{
		"exec exec /home/busybox exec/default",
		"file open /etc/passwd files/write/default",
		"file open /home/secret files/read/deny",
		"file rename /home/secret files/read/deny",
		"file create /home/p/.git/config files/write/deny",
	}, "\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if err := c.Confine(t.Context(), h, nil); err != nil {
		t.Error(err)
	}
	if r, err := tb.Exec(t.Context(), "one", wire.SessionExecute{Command: "/home/busybox true"}); err != nil || r.ExitCode == nil || *r.ExitCode != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := os.Remove("/home/busybox"); err != nil {
		t.Error(err)
	}
}

// watch collects records; the function waits for so many.
func watch(t *testing.T, c *Confiner) func(n int) []string {
	ctx, cancel := context.WithCancel(t.Context())
	var all []string
	more := make(chan string, 100)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.Watch(ctx, func(_ string, r engine.ActivityRecord) {
			more <- strings.Join([]string{string(r.Kind), r.Operation, r.Detail, r.Rule}, " ")
		}); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return func(n int) []string {
		for len(all) < n {
			all = append(all, <-more)
		}
		return all
	}
}
