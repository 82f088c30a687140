package activity

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// connections accepts from itself, and is refused.
func connections([]string) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		check(err)
		c, err := net.Dial("tcp", l.Addr().String())
		check(err)
		a, err := l.Accept()
		check(err)
		check(a.Close())
		check(c.Close())
		check(l.Close())
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	check(err)
	if unix.Connect(fd, &unix.SockaddrInet4{Port: 1, Addr: [4]byte{127, 0, 0, 1}}) != unix.ECONNREFUSED {
		check(os.ErrInvalid)
	}
	u, err := net.Dial("udp", "127.0.0.1:9")
	check(err)
	check(u.Close())
}

func TestConnections(t *testing.T) {
	b := sandbox(t, "")
	b.work("connections")
	connects, accepts := only(b.all(), KindConnect), only(b.all(), KindAccept)
	if len(accepts) != 2 || len(connects) != 5 {
		t.Fatalf("%d accepted and %d connected: %+v", len(accepts), len(connects), connects)
	}
	find := func(protocol uint8, remote netip.AddrPort, result unix.Errno) Event {
		t.Helper()
		for _, e := range connects {
			if e.Protocol == protocol && e.Remote == remote && e.Result == -int64(result) {
				return e
			}
		}
		t.Errorf("no connect to %v with %v in %+v", remote, result, connects)
		return Event{}
	}
	for _, a := range accepts {
		c := find(6, a.Local, 0)
		if c.Local != a.Remote {
			t.Errorf("connected from %v, accepted from %v", c.Local, a.Remote)
		}
		if c.Process != a.Process || c.Process.ID == 0 {
			t.Errorf("connected by %+v, accepted by %+v", c.Process, a.Process)
		}
	}
	begun := find(6, netip.MustParseAddrPort("127.0.0.1:1"), 0)
	failed := find(6, netip.MustParseAddrPort("127.0.0.1:1"), unix.ECONNREFUSED)
	if begun.Local.Port() == 0 || begun.Local != failed.Local {
		t.Errorf("begun from %v, failed from %v", begun.Local, failed.Local)
	}
	find(17, netip.MustParseAddrPort("127.0.0.1:9"), 0)
	if !accepts[1].Remote.Addr().Is6() {
		t.Errorf("accepted from %v", accepts[1].Remote)
	}
}

// privileges tries each call once, from one thread, in a way that fails or
// does no harm.
func privileges([]string) {
	runtime.LockOSThread()
	raw := func(number uintptr, args ...uintptr) {
		var a [6]uintptr
		copy(a[:], args)
		_, _, _ = syscall.RawSyscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
	}
	where, kind := []byte("/dev/null\x00"), []byte("nonsense\x00")
	minus := ^uintptr(0)
	for range 2 { // told once
		raw(unix.SYS_SETUID, 0)
		raw(unix.SYS_SETGID, 0)
		raw(unix.SYS_MOUNT, 0, uintptr(unsafe.Pointer(&where[0])), uintptr(unsafe.Pointer(&kind[0])), 0, 0)
		raw(unix.SYS_UMOUNT2, uintptr(unsafe.Pointer(&where[0])), 0)
		raw(unix.SYS_REBOOT, 0)
		raw(unix.SYS_BPF, 0, 0, 0) // BPF_MAP_CREATE
		raw(unix.SYS_UNSHARE, unix.CLONE_NEWUTS)
		raw(unix.SYS_CHROOT, uintptr(unsafe.Pointer(&[]byte("/\x00")[0])))
		raw(unix.SYS_SETHOSTNAME, uintptr(unsafe.Pointer(&where[0])), minus)
	}
	c, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUTS}})
	check(err)
	_, err = c.Wait()
	check(err)
}

// tried is a privilege that was asked for.
type tried struct {
	call, capability string
	failed           unix.Errno
}

func allTried(events []Event) []tried {
	var out []tried
	for _, e := range only(events, KindPrivilege) {
		v := tried{call: e.Call.String(), capability: e.Capability}
		if e.Result < 0 {
			v.failed = unix.Errno(-e.Result)
		}
		out = append(out, v)
	}
	return out
}

func TestPrivileges(t *testing.T) {
	for _, test := range []struct {
		name   string
		drop   string // capabilities that the process lacks
		failed unix.Errno
	}{{"granted", "-checkpoint_restore", 0}, {"refused", "-all", unix.EPERM}} {
		t.Run(test.name, func(t *testing.T) {
			b := sandbox(t, "")
			c := b.command("/usr/bin/setpriv", "--bounding-set="+test.drop, "--inh-caps="+test.drop, self(t))
			c.Env = append(os.Environ(), "ACTIVITY_WORKLOAD=privileges")
			if err := c.Run(); err != nil && test.failed == 0 {
				t.Fatal(err)
			}
			got := allTried(b.all())
			for _, want := range [][2]string{
				{"setuid", "setuid"},
				{"setgid", "setgid"},
				{"mount", "sys_admin"},
				{"umount", "sys_admin"},
				{"reboot", "sys_boot"},
				{"unshare", "sys_admin"},
				{"chroot", "sys_chroot"},
				{"sethostname", "sys_admin"},
			} {
				n := 0
				for _, g := range got {
					if g == (tried{want[0], want[1], test.failed}) {
						n++
					}
				}
				if n != 1 {
					t.Errorf("%s was told %d times: %v", want, n, got)
				}
			}
			if test.failed == 0 && got[len(got)-1] != (tried{"clone", "", 0}) && !slices.Contains(got, tried{"clone", "", 0}) {
				t.Errorf("no clone in %v", got)
			}
			for _, g := range got {
				if g.call == "other" && g.capability == "sys_admin" {
					t.Errorf("what every process does was told: %v", got)
				}
			}
		})
	}
}

// trace attaches to a child, or seizes it, and lets it stop.
func trace(args []string) {
	runtime.LockOSThread()
	c := exec.Command("/bin/sleep", "1000")
	check(c.Start())
	request := uintptr(unix.PTRACE_ATTACH)
	if args[0] == "seize" {
		request = unix.PTRACE_SEIZE
	}
	_, _, errno := syscall.RawSyscall6(unix.SYS_PTRACE, request, uintptr(c.Process.Pid), 0, 0, 0, 0)
	if errno != 0 {
		check(errno)
	}
	if args[0] == "seize" {
		_, _, errno = syscall.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_INTERRUPT, uintptr(c.Process.Pid), 0, 0, 0, 0)
		if errno != 0 {
			check(errno)
		}
	}
	_, err := unix.Wait4(c.Process.Pid, nil, unix.WALL, nil)
	check(err)
	check(c.Process.Kill())
	_, _ = unix.Wait4(c.Process.Pid, nil, unix.WALL, nil)
}

// TestTracing is of one's own child, which needs no capability.
func TestTracing(t *testing.T) {
	for _, how := range []string{"attach", "seize"} {
		t.Run(how, func(t *testing.T) {
			b := sandbox(t, "")
			b.work("trace", how)
			var got []Event
			var sleep, tracer int
			for _, e := range b.all() {
				if e.Kind == KindPrivilege && e.Call.String() == "ptrace" {
					got = append(got, e)
				}
				if e.Kind == KindExec && e.Path == "/bin/sleep" {
					sleep, tracer = e.Process.ID, e.Process.Parent
				}
			}
			if len(got) != 1 || got[0].CallArgs[0] != uint64(sleep) || got[0].CallArgs[1] != uint64(tracer) {
				t.Errorf("%d is traced by %d; got %+v", sleep, tracer, got)
			}
		})
	}
}

func TestSetuidProgramShows(t *testing.T) {
	dir := t.TempDir()
	for d := dir; strings.HasPrefix(d, os.TempDir()+"/"); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "su")
	copyFile(t, "/bin/true", path)
	if err := unix.Chmod(path, 0o4755); err != nil {
		t.Fatal(err)
	}
	b := sandbox(t, "")
	b.run("/usr/bin/setpriv", "--reuid=65534", "--clear-groups", path)
	got := only(b.all(), KindExec)
	if last := got[len(got)-1]; last.Process.UID != 65534 || last.Process.EUID != 0 || !last.Elevated {
		t.Errorf("got %+v", last)
	}
	if got[0].Elevated {
		t.Errorf("got %+v", got[0])
	}
}
