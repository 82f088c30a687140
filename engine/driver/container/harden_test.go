package container

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
)

// TestSystemCalls tries as root inside what must be refused.
func TestSystemCalls(t *testing.T) {
	r := newRig(t, nil)
	h := r.start(t, nil)
	code, out := r.exec(t, h, toolboxPath, "syscalls")
	if code != 0 {
		t.Fatalf("got exit %d: %s", code, out)
	}
	var got map[string]string
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) < 30 {
		t.Errorf("got %d results, want one for each call", len(got))
	}
	for name, result := range got {
		want := "operation not permitted"
		switch name {
		case "clone3":
			want = "function not implemented" // so that the C library falls back to clone
		case "ptrace-host":
			want = "no such process"
		case "x32-getpid":
			want = "killed"
		}
		if result != want {
			t.Errorf("%s: got %q, want %q", name, result, want)
		}
	}
}

// TestChoices: calls that are allowed for some arguments are for no others.
func TestChoices(t *testing.T) {
	r := newRig(t, nil)
	h := r.start(t, nil)
	_, out := r.exec(t, h, toolboxPath, "choices")
	var got map[string][]uint64
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err, out)
	}
	want := map[string][]uint64{
		"socket":      {unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET},
		"personality": {0, 8, 0x20000, 0x20008, 0xffffffff},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestView checks what root inside sees and may touch.
func TestView(t *testing.T) {
	r := newRig(t, nil)
	h := r.start(t, nil)
	for _, c := range []struct {
		name, script string
		want         string // part of the output
		fails        bool
	}{
		{"root inside", "id -u; cat /proc/self/uid_map", "65536", false},
		{"no new privileges", "grep NoNewPrivs /proc/self/status", "1", false},
		{"filter", "grep Seccomp: /proc/self/status", "2", false},
		{"capabilities", "grep CapBnd /proc/self/status", "00000000a00425fb", false},
		{"host name", "hostname", "box", false},
		{"process 1", "cat /proc/1/cmdline", "/.atoll/toolbox", false},
		{"own processes only", "ls -d /proc/[0-9]* | wc -l", "", false},
		{"chown", "echo >/tmp/f && chown 1000:1000 /tmp/f && stat -c %u /tmp/f", "1000", false},
		{"mount", "mount -t tmpfs x /mnt", "", true},
		{"remount", "mount -o remount,rw /sys/fs/cgroup", "", true},
		{"sysctl", "echo 1 >/proc/sys/kernel/printk", "Read-only", true},
		{"net sysctl", "echo 1 >/proc/sys/net/ipv4/ip_forward", "", true},
		{"core pattern", "echo '|/tmp/x' >/proc/sys/kernel/core_pattern", "Read-only", true},
		{"sysrq", "echo h >/proc/sysrq-trigger", "", true},
		{"kcore", "cat /proc/kcore | wc -c", "0", false},
		{"keys", "cat /proc/keys | wc -c", "0", false},
		{"timers", "cat /proc/timer_list | wc -c", "0", false},
		{"kernel log", "dmesg", "", true},
		{"kmsg", "cat /dev/kmsg", "", true},
		{"disk devices", "ls /dev/sda /dev/vda /dev/loop0 /dev/mem /dev/kvm", "", true},
		{"cgroup is read-only", "f=/sys/fs/cgroup/memory/memory.limit_in_bytes; [ -e $f ] || f=/sys/fs/cgroup/memory.max; echo 1 >$f", "", true},
		{"release agent", "ls /sys/fs/cgroup/*/release_agent", "", true},
		{"toolbox is read-only", "echo x >/.atoll/toolbox", "", true},
		{"device classes are not shown", "ls /sys/class /sys/block /sys/bus", "", true},
		{"transparent huge pages", "echo never >/sys/kernel/mm/transparent_hugepage/enabled", "", true},
		{"shared memory", "df -m /dev/shm | tail -1", " 64 ", false},
		{"open files", "ulimit -Sn; ulimit -c", "0", false},
		{"environment of process 1", "cat /proc/1/environ", "ATOLL_SUDO=1", false},
	} {
		code, out := r.sh(t, h, c.script)
		if (code != 0) != c.fails || !strings.Contains(out, c.want) {
			t.Errorf("%s: got exit %d and %q, want failure %v and %q in it", c.name, code, out, c.fails, c.want)
		}
	}
}

// TestHostView checks that root inside is nobody outside.
func TestHostView(t *testing.T) {
	r := newRig(t, nil)
	h := r.start(t, nil)
	data, err := decodeHandle(h)
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.driver.Inspect(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d", s.PID), &st); err != nil {
		t.Fatal(err)
	}
	if st.Uid != data.UIDBase {
		t.Errorf("got process of user %d, want %d", st.Uid, data.UIDBase)
	}
	adj, _ := readFile(fmt.Sprintf("/proc/%d", s.PID), "oom_score_adj")
	if adj != "100" {
		t.Errorf("got oom_score_adj %s, want 100", adj)
	}
}

// TestSetuid checks that a set-user-id program gives nothing.
func TestSetuid(t *testing.T) {
	r := newRig(t, nil)
	h := r.start(t, func(s *driver.Spec) {
		id := filepath.Join(s.RootFS, "bin/suid")
		b, err := os.ReadFile(shared.toolbox)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(id, b, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(id, int(s.UIDBase), int(s.UIDBase)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(id, 0o4755); err != nil {
			t.Fatal(err)
		}
	})
	code, out := r.exec(t, h, toolboxPath, "as-user", "/bin/suid", "euid")
	if code != 0 || out != "1000" {
		t.Errorf("got exit %d and user %q, want 1000 still", code, out)
	}
}

// TestSocketSwap replaces the toolbox's socket by links to a socket of the host.
func TestSocketSwap(t *testing.T) {
	r := newRig(t, nil)
	h := r.start(t, nil)
	data, err := decodeHandle(h)
	if err != nil {
		t.Fatal(err)
	}
	host := filepath.Join(shared.dir, "host.sock")
	l, err := net.Listen("unix", host)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket := filepath.Join(data.ControlDir, socketName)
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	for name, swap := range map[string]func() error{
		"symbolic link": func() error { return os.Symlink(host, socket) },
		"hard link":     func() error { return os.Link(host, socket) },
		"file":          func() error { return os.WriteFile(socket, nil, 0o600) },
		"directory":     func() error { return os.Mkdir(socket, 0o700) },
	} {
		if err := swap(); err != nil {
			t.Fatal(err)
		}
		conn, err := r.driver.Dial(t.Context(), h)
		if err == nil {
			conn.Close()
			t.Errorf("%s: got a connection, want none", name)
		}
		if engine.KindOf(err) != engine.KindUnavailable {
			t.Errorf("%s: got %v, want unavailable", name, err)
		}
		if err := os.RemoveAll(socket); err != nil {
			t.Fatal(err)
		}
	}
	// What was put there does not hinder the next start.
	if err := os.MkdirAll(filepath.Join(socket, "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := r.driver.Stop(t.Context(), h, time.Second); err != nil {
		t.Fatal(err)
	}
	if err := r.driver.Start(t.Context(), h); err != nil {
		t.Fatal(err)
	}
}

// TestLogFlood writes without end to the standard error of process 1, which
// must fill nothing on the host.
func TestLogFlood(t *testing.T) {
	r := newRig(t, nil)
	h := r.start(t, nil)
	if code, out := r.sh(t, h, "i=0; while [ $i -lt 20000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done >/proc/1/fd/2"); code != 0 {
		t.Fatalf("got exit %d: %s", code, out)
	}
	in := r.driver.instance(h.ID)
	if n := len(in.log.text()); n == 0 || n > tailSize {
		t.Errorf("got a tail of %d bytes, want up to %d", n, tailSize)
	}
	var st unix.Stat_t
	if err := unix.Stat(r.driver.logPath(h.ID), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		t.Errorf("got mode %o (%v), want a pipe", st.Mode, err)
	}
}
