package activity

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// files does each thing once, with paths relative to a directory's descriptor
// and to the working directory, and absolute.
func files(args []string) {
	dir := args[0]
	check(os.Chdir(dir))
	d, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	check(err)
	fd, err := unix.Openat(d, "made", unix.O_WRONLY|unix.O_CREAT, 0o600)
	check(err)
	check(unix.Close(fd))
	fd, err = unix.Open("read", unix.O_RDONLY, 0)
	check(err)
	check(unix.Close(fd))
	fd, err = unix.Openat2(unix.AT_FDCWD, "there", &unix.OpenHow{Flags: unix.O_RDWR})
	check(err)
	check(unix.Close(fd))
	check(unix.Renameat2(d, "made", unix.AT_FDCWD, dir+"/moved", unix.RENAME_NOREPLACE))
	check(unix.Linkat(d, "moved", d, "second", 0))
	check(unix.Symlinkat("../text", d, "soft"))
	check(unix.Truncate("moved", 5))
	check(unix.Unlinkat(d, "second", 0))
	check(unix.Mkdirat(d, "sub", 0o700))
	check(unix.Unlinkat(d, "sub", unix.AT_REMOVEDIR))
	_, _ = unix.Open("absent", unix.O_WRONLY, 0)
	check(syscall.Setresuid(-1, 65534, -1))
	if _, err := unix.Open("private", unix.O_WRONLY, 0); err != unix.EACCES {
		check(os.ErrInvalid)
	}
	check(syscall.Setresuid(-1, 0, -1))
	check(unix.Chroot(dir))
	fd, err = unix.Open("/fromroot", unix.O_WRONLY|unix.O_CREAT, 0o600)
	check(err)
	check(unix.Close(fd))
	legacyFiles()
}

func TestFiles(t *testing.T) {
	eachHierarchy(t, func(t *testing.T, root string) {
		dir := real(t, t.TempDir())
		for _, name := range []string{"read", "there", "private"} {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		b := sandbox(t, root)
		b.work("files", dir)
		type change struct {
			kind     Kind
			path, to string
			claimed  bool
			errno    unix.Errno
		}
		want := []change{
			{KindCreate, dir + "/made", "", false, 0},
			{KindOpen, dir + "/there", "", false, 0},
			{KindRename, dir + "/made", dir + "/moved", true, 0},
			{KindLink, dir + "/moved", dir + "/second", true, 0},
			{KindSymlink, "../text", dir + "/soft", true, 0},
			{KindTruncate, dir + "/moved", "", true, 0},
			{KindUnlink, dir + "/second", "", true, 0},
			{KindMkdir, dir + "/sub", "", true, 0},
			{KindRmdir, dir + "/sub", "", true, 0},
			{KindOpen, dir + "/private", "", true, unix.EACCES},
			{KindCreate, dir + "/fromroot", "", false, 0},
		}
		if runtime.GOARCH == "amd64" {
			want = append(want,
				change{KindCreate, dir + "/old", "", false, 0},
				change{KindCreate, dir + "/older", "", false, 0},
				change{KindRename, "/old", "/moved", true, 0},
				change{KindUnlink, "/moved", "", true, 0},
			)
		}
		events := only(b.all(), KindOpen, KindCreate, KindUnlink, KindRename, KindMkdir, KindRmdir, KindLink, KindSymlink, KindTruncate)
		var got []change
		for _, e := range events {
			c := change{e.Kind, e.Path, e.To, e.Claimed, 0}
			if e.Result < 0 {
				c.errno = unix.Errno(-e.Result)
			}
			got = append(got, c)
			if e.Cut || e.Unread || e.Detached {
				t.Errorf("got %+v", e)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
		if len(events) > 1 {
			var st unix.Stat_t
			if err := unix.Stat(dir+"/there", &st); err != nil || st.Ino != events[1].Inode || st.Dev != events[1].Device {
				t.Errorf("inode %d of %d, want %d of %d, %v", events[1].Inode, events[1].Device, st.Ino, st.Dev, err)
			}
		}
	})
}

// repeat opens one file for writing over and over.
func repeat(args []string) {
	for range 500 {
		fd, err := unix.Open(args[0], unix.O_WRONLY, 0)
		check(err)
		check(unix.Close(fd))
	}
}

func TestRepeatedOpensAreOneEvent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b := sandbox(t, "")
	b.work("repeat", path)
	if got := only(b.all(), KindOpen); len(got) != 1 {
		t.Errorf("%d opens", len(got))
	}
	if s, err := b.r.Stats(b.number); err != nil || s.Repeated != 499 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestLongPathsAreMarked(t *testing.T) {
	dir := real(t, t.TempDir())
	for range 6 {
		dir = filepath.Join(dir, strings.Repeat("d", 250))
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b := sandbox(t, "")
	b.run("/bin/sh", "-c", `: >"$1/leaf"`, "sh", dir)
	got := only(b.all(), KindCreate)
	if len(got) != 1 || !got[0].Cut || !strings.HasSuffix(dir+"/leaf", got[0].Path) || len(got[0].Path) < 700 {
		t.Errorf("got %+v", got)
	}
}

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
	if len(accepts) != 2 || len(connects) < 4 {
		t.Fatalf("%d accepted and %d connected: %+v", len(accepts), len(connects), connects)
	}
	find := func(protocol uint8, remote netip.AddrPort, claimed bool, result unix.Errno) {
		t.Helper()
		for _, e := range connects {
			if e.Protocol == protocol && e.Remote == remote && e.Claimed == claimed && (e.Result == -int64(result)) {
				return
			}
		}
		t.Errorf("no connect to %v with %v in %+v", remote, result, connects)
	}
	find(6, accepts[0].Local, false, unix.EINPROGRESS)
	find(6, accepts[1].Local, false, unix.EINPROGRESS)
	find(6, netip.MustParseAddrPort("127.0.0.1:1"), true, unix.ECONNREFUSED)
	find(17, netip.MustParseAddrPort("127.0.0.1:9"), false, 0)
	for _, a := range accepts {
		if !a.Remote.Addr().IsLoopback() || a.Remote.Port() == 0 {
			t.Errorf("accepted from %v", a.Remote)
		}
	}
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
	where, kind := []byte("/nowhere\x00"), []byte("tmpfs\x00")
	minus := ^uintptr(0)
	raw(unix.SYS_SETUID, 0)
	raw(unix.SYS_SETRESUID, minus, minus, minus)
	raw(unix.SYS_SETGID, 0)
	raw(unix.SYS_MOUNT, 0, uintptr(unsafe.Pointer(&where[0])), uintptr(unsafe.Pointer(&kind[0])), 0, 0)
	raw(unix.SYS_UMOUNT2, uintptr(unsafe.Pointer(&where[0])), 0)
	raw(unix.SYS_PTRACE, 16, 0)
	raw(unix.SYS_PTRACE, 7, 0) // of a tracer that traces already: not told
	raw(unix.SYS_BPF, 999, 0, 0)
	raw(unix.SYS_UNSHARE, 1)
	raw(unix.SYS_SETNS, minus, 0)
	raw(unix.SYS_CHROOT, uintptr(unsafe.Pointer(&where[0])))
	c, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUTS}})
	check(err)
	_, err = c.Wait()
	check(err)
}

func TestPrivileges(t *testing.T) {
	b := sandbox(t, "")
	b.work("privileges")
	type tried struct {
		call   string
		path   string
		failed unix.Errno
	}
	want := []tried{
		{"setuid", "", 0},
		{"setresuid", "", 0},
		{"setgid", "", 0},
		{"mount", "/nowhere", unix.ENOENT},
		{"umount", "/nowhere", unix.ENOENT},
		{"ptrace", "", unix.ESRCH},
		{"bpf", "", unix.EINVAL},
		{"unshare", "", unix.EINVAL},
		{"setns", "", unix.EBADF},
		{"chroot", "/nowhere", unix.ENOENT},
		{"clone", "", 0},
	}
	var got []tried
	for _, e := range only(b.all(), KindPrivilege) {
		if len(got) == 0 && e.Call.String() == "bpf" {
			continue // of a library as this binary starts
		}
		g := tried{call: e.Call.String(), path: e.Path}
		if e.Result < 0 {
			g.failed = unix.Errno(-e.Result)
		}
		got = append(got, g)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
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
	if last := got[len(got)-1]; last.Process.UID != 65534 || last.Process.EUID != 0 {
		t.Errorf("got %+v", last.Process)
	}
}
