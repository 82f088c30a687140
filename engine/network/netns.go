package network

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// netnsDir is where `ip netns` looks too.
const netnsDir = "/run/netns"

// onThread runs fn on an operating system thread that ends with it, so that fn
// may change the thread's namespaces. It never uses the process's first
// thread, whose namespaces stand for the whole process in /proc.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, except on the first thread
		if unix.Gettid() == unix.Getpid() {
			done <- onThread(fn)
			runtime.UnlockOSThread()
			return
		}
		done <- fn()
	}()
	return <-done
}

// prepareNetNSDir makes /run/netns a shared mount, as `ip netns add` does, so
// that namespaces made later show up in the private mount namespaces of
// others. It tells whether it made the mount.
func prepareNetNSDir() (made bool, err error) {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return false, err
	}
	err = unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if !errors.Is(err, unix.EINVAL) {
		return false, err
	}
	if err := unix.Mount(netnsDir, netnsDir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return false, fmt.Errorf("bind %s: %w", netnsDir, err)
	}
	return true, unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
}

// createNetNS makes a network namespace that lives at path and runs inside in
// it. On error nothing is left.
func createNetNS(path string, inside func() error) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	f.Close()
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := inside(); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "none", unix.MS_BIND, "")
	})
	if err != nil {
		return errors.Join(err, deleteNetNS(path))
	}
	return nil
}

// deleteNetNS removes the name of a namespace; nil when already gone. The
// namespace ends with its last process.
func deleteNetNS(path string) error {
	for { // one name may carry several mounts after a crash
		err := unix.Unmount(path, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// listNetNS returns the slots of server id that have a namespace file.
func listNetNS(id string) ([]int, error) {
	names, err := os.ReadDir(netnsDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []int
	for _, e := range names {
		if i, ok := indexAfter(e.Name(), netnsPrefix(id)); ok {
			out = append(out, i)
		}
	}
	return out, nil
}

// indexAfter parses the slot's number out of a name such as atoll-s1-17.
func indexAfter(name, prefix string) (int, bool) {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, false
	}
	i, err := strconv.Atoi(rest)
	if err != nil || i < 0 || i >= perServer || strconv.Itoa(i) != rest {
		return 0, false
	}
	return i, true
}

// isNetNS tells whether path carries a namespace, not just an empty file.
func isNetNS(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// sysctl writes a value below /proc/sys. Namespaced values are those of the
// calling thread.
func sysctl(key, value string) error {
	p := filepath.Join("/proc/sys", key)
	if err := os.WriteFile(p, []byte(value), 0o644); err != nil {
		return fmt.Errorf("set %s to %s: %w", key, value, err)
	}
	return nil
}

func readSysctl(key string) string {
	b, _ := os.ReadFile(filepath.Join("/proc/sys", key))
	return strings.TrimSpace(string(b))
}
