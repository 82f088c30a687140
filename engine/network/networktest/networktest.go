// Package networktest gives tests of networks a host and an internet of their
// own, made of network namespaces: nothing they send leaves this machine.
package networktest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Main runs a package's tests in a network namespace and a mount namespace of
// their own: to them it is the host, with its own sysctls, tables and /run. It
// returns the exit code and needs root.
func Main(m *testing.M) int {
	if os.Getenv("ATOLL_TEST_HOST") == "" {
		return runInside()
	}
	if err := becomeHost(); err != nil {
		fmt.Fprintln(os.Stderr, "prepare the test host:", err)
		return 1
	}
	return m.Run()
}

func runInside() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "ATOLL_TEST_HOST=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run the tests in a namespace (this needs root):", err)
		return 1
	}
	return 0
}

func becomeHost() error {
	if err := unix.Mount("", "/", "none", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := letGo(); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return err
	}
	if err := noDAD(); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// letGo drops the copies of disks that other tests' servers have mounted, which
// could not take them down while somebody holds one.
func letGo() error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	lines := slices.Collect(strings.Lines(string(table)))
	for _, line := range slices.Backward(lines) {
		where, what, ok := strings.Cut(line, " - ")
		at, of := strings.Fields(where), strings.Fields(what)
		if !ok || len(at) < 5 || len(of) < 2 || at[4] == "/" {
			continue
		}
		if of[0] == "overlay" || strings.HasPrefix(of[1], "/dev/loop") {
			_ = unix.Unmount(at[4], unix.MNT_DETACH) // one with odd characters stays
		}
	}
	return nil
}

// noDAD lets IPv6 addresses be used at once, in the calling thread's namespace.
func noDAD() error {
	return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0o644)
}

// Internet is what lies behind the test host's uplink.
type Internet struct {
	NS string // path of its namespace
}

// The host's and the internet's addresses on the uplink.
const (
	uplink = "up0"
	host4  = "192.0.2.65"
	host6  = "2001:db8:ffff::1"
	gate4  = "192.0.2.66"
	gate6  = "2001:db8:ffff::2"
)

// NewInternet makes an internet that has the given addresses, and a default
// route of the host to it. It goes with the test.
func NewInternet(t testing.TB, addrs ...string) *Internet {
	t.Helper()
	n := &Internet{NS: filepath.Join(t.TempDir(), "internet")}
	if err := n.make(addrs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if up, err := netlink.LinkByName(uplink); err == nil {
			_ = netlink.LinkDel(up)
		}
		_ = unix.Unmount(n.NS, unix.MNT_DETACH)
	})
	return n
}

// New makes a network namespace and binds it to a new file at path; unmount the
// file to be rid of it. The functions run in it first.
func New(path string, inside ...func() error) error {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	return OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		for _, fn := range inside {
			if err := fn(); err != nil {
				return err
			}
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "none", unix.MS_BIND, "")
	})
}

func (n *Internet) make(addrs []string) error {
	host, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return err
	}
	defer host.Close()
	if err := New(n.NS, func() error { return inside(int(host.Fd()), addrs) }); err != nil {
		return err
	}
	up, err := netlink.LinkByName(uplink)
	if err != nil {
		return err
	}
	if err := AddAddrs(up, host4+"/26", host6+"/64"); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(up); err != nil {
		return err
	}
	for dst, gw := range map[string]string{"0.0.0.0/0": gate4, "::/0": gate6} {
		_, all, err := net.ParseCIDR(dst)
		if err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: up.Attrs().Index, Dst: all, Gw: net.ParseIP(gw)}); err != nil {
			return err
		}
	}
	return nil
}

// inside runs in the internet's namespace.
func inside(host int, addrs []string) error {
	if err := noDAD(); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "in0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: uplink, PeerNamespace: netlink.NsFd(host)}); err != nil {
		return err
	}
	for name, own := range map[string][]string{"lo": addrs, "in0": {gate4 + "/26", gate6 + "/64"}} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
		if err := AddAddrs(l, own...); err != nil {
			return err
		}
	}
	return nil
}

// AddAddrs gives a device addresses, as ip/bits, that can be used at once.
func AddAddrs(l netlink.Link, addrs ...string) error {
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(l, addr); err != nil {
			return fmt.Errorf("add %s: %w", a, err)
		}
	}
	return nil
}

// OnThread runs fn on an operating system thread that ends with it, so that fn
// may change the thread's namespaces.
func OnThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, except on the first thread
		if unix.Gettid() == unix.Getpid() {
			done <- OnThread(fn)
			runtime.UnlockOSThread()
			return
		}
		done <- fn()
	}()
	return <-done
}

// In runs fn on a thread in the namespace at path.
func In(path string, fn func() error) error {
	return OnThread(func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return fn()
	})
}

// Carries waits until a new device in the network namespace at a path takes
// frames and may use its addresses. At first the kernel loses all frames
// without a word. It gives up after a minute.
func Carries(netns, device string) error {
	return In(netns, func() error {
		for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			ready, err := carries(device)
			if err != nil || ready {
				return err
			}
			if time.Now().After(end) {
				return fmt.Errorf("%s carries nothing", device)
			}
		}
	})
}

func carries(device string) (bool, error) {
	l, err := netlink.LinkByName(device)
	if err != nil {
		return false, err
	}
	queues, err := netlink.QdiscList(l)
	if err != nil {
		return false, err
	}
	addrs, err := netlink.AddrList(l, netlink.FAMILY_V6)
	if err != nil {
		return false, err
	}
	tentative := slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.Flags&unix.IFA_F_TENTATIVE != 0 })
	return len(queues) > 0 && queues[0].Type() != "noop" && !tentative, nil
}
