// Package kernel is what all BPF programs share: the file system that keeps
// them alive without us, and the way they attach.
package kernel

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Mount makes dir a BPF file system, open to root alone. What is pinned in it
// lives until it is removed or Unmount, whatever happens to this process. A
// directory that is one already stays as it is.
func Mount(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if isBPF(dir) {
		return nil
	}
	if err := unix.Mount("bpf", dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount a BPF file system at %s: %w", dir, err)
	}
	return nil
}

// Unmount ends what is pinned below dir and removes dir; nil when it is gone.
func Unmount(dir string) error {
	for isBPF(dir) {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func isBPF(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == unix.BPF_FS_MAGIC
}

// FreeMemlock lifts the limit that maps count against before Linux 5.11. Later
// kernels have no such limit, and refusing to lift it does no harm there.
func FreeMemlock() { _ = rlimit.RemoveMemlock() }

// Direction is which packets of a device a program sees.
type Direction int

// The directions, as the host sees them.
const (
	Ingress Direction = iota // what comes out of the device
	Egress                   // what goes into it
)

// Attach puts the program first on the device's hook and pins the link, so
// that it stays without this process. A link pinned there before gets the new
// program in one step, without a moment of none. Kernels before 6.6 have no
// such links: there the program becomes a filter of the device, which needs no
// pin. It tells whether the device had a program of ours before.
func Attach(device int, p *ebpf.Program, d Direction, pin string) (had bool, err error) {
	kept, err := update(device, p, pin)
	if kept || err != nil {
		return kept, err
	}
	at := ebpf.AttachTCXIngress
	if d == Egress {
		at = ebpf.AttachTCXEgress
	}
	l, err := attachTCX(link.TCXOptions{Interface: device, Program: p, Attach: at, Anchor: link.Head()})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return attachFilter(device, p, d)
	}
	if err != nil {
		return false, fmt.Errorf("attach to device %d: %w", device, err)
	}
	defer l.Close()
	if err := l.Pin(pin); err != nil {
		return false, fmt.Errorf("pin %s: %w", pin, err)
	}
	return false, nil
}

// attachTCX waits for a link whose pin was removed: the kernel lets go of it a
// moment later, and has no program twice on a hook.
func attachTCX(o link.TCXOptions) (link.Link, error) {
	for end := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
		l, err := link.AttachTCX(o)
		if !errors.Is(err, unix.EEXIST) || time.Now().After(end) {
			return l, err
		}
	}
}

// Attached tells whether a device has the program that Attach put there with
// this pin. Where it cannot be found out, it has.
func Attached(device int, d Direction, pin string) bool {
	at, parent := ebpf.AttachTCXIngress, uint32(netlink.HANDLE_MIN_INGRESS)
	if d == Egress {
		at, parent = ebpf.AttachTCXEgress, netlink.HANDLE_MIN_EGRESS
	}
	l, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, os.ErrNotExist) { // the pin was taken, and the link with it, or it is a kernel without
		if _, err := link.QueryPrograms(link.QueryOptions{Target: device, Attach: at}); err == nil {
			return false
		}
		had, err := hasFilter(device, parent)
		return had || err != nil
	}
	if err != nil {
		return true
	}
	defer l.Close()
	info, err := l.Info()
	return err != nil || info.TCX() == nil || int(info.TCX().Ifindex) == device
}

// Gone tells whether there is surely no device of this index.
func Gone(device int) bool {
	_, err := netlink.LinkByIndex(device)
	var not netlink.LinkNotFoundError
	return errors.As(err, &not)
}

// update gives a pinned link the new program. It removes a pin whose device is
// gone, and tells whether there is nothing left to do.
func update(device int, p *ebpf.Program, pin string) (bool, error) {
	l, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open %s: %w", pin, err)
	}
	defer l.Close()
	info, err := l.Info()
	if err == nil && info.TCX() != nil && int(info.TCX().Ifindex) == device {
		if err = l.Update(p); err == nil {
			return true, nil
		}
		if !errors.Is(err, unix.ENOLINK) {
			return false, fmt.Errorf("update %s: %w", pin, err)
		}
	}
	return false, os.Remove(pin)
}

// attachFilter is the way of kernels without TCX. One handle and priority make
// a replacement atomic.
func attachFilter(device int, p *ebpf.Program, d Direction) (had bool, err error) {
	q := &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: device, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := netlink.QdiscAdd(q); err != nil && !errors.Is(err, unix.EEXIST) {
		return false, fmt.Errorf("add the queueing discipline of device %d: %w", device, err)
	}
	parent := uint32(netlink.HANDLE_MIN_INGRESS)
	if d == Egress {
		parent = netlink.HANDLE_MIN_EGRESS
	}
	if had, err = hasFilter(device, parent); err != nil {
		return false, err
	}
	err = netlink.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: device, Parent: parent, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
		Fd:          p.FD(), Name: filterName, DirectAction: true,
	})
	if err != nil {
		return false, fmt.Errorf("add a filter to device %d: %w", device, err)
	}
	return had, nil
}

const filterName = "atoll"

func hasFilter(device int, parent uint32) (bool, error) {
	all, err := netlink.FilterList(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: device}}, parent)
	if err != nil {
		return false, fmt.Errorf("list the filters of device %d: %w", device, err)
	}
	return slices.ContainsFunc(all, func(f netlink.Filter) bool {
		b, ok := f.(*netlink.BpfFilter)
		return ok && b.Name == filterName
	}), nil
}
