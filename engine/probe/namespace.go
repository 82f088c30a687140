package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

// apart runs fn on a thread that has new namespaces of the given kinds and
// ends with it.
func apart(flags int, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, except on the first thread
		if unix.Gettid() == unix.Getpid() {
			done <- apart(flags, fn)
			runtime.UnlockOSThread()
			return
		}
		if err := unix.Unshare(flags); err != nil {
			done <- fmt.Errorf("new namespaces: %w", err)
			return
		}
		if flags&unix.CLONE_NEWNS != 0 {
			if err := unix.Mount("", "/", "none", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
				done <- fmt.Errorf("make mounts private: %w", err)
				return
			}
		}
		done <- fn()
	}()
	return <-done
}

// userNamespace makes a user namespace with 65536 ids. Its only process is
// stopped before its first instruction and killed at once.
func userNamespace() (*os.File, error) {
	var f *os.File
	err := apart(0, func() error {
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1 << 20, Size: 65536}}
		child, err := os.StartProcess("/proc/self/exe", []string{"probe"}, &os.ProcAttr{
			Env: []string{},
			Sys: &syscall.SysProcAttr{
				Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids,
				Ptrace: true, Pdeathsig: unix.SIGKILL,
			},
		})
		if err != nil {
			return err
		}
		f, err = os.Open(fmt.Sprintf("/proc/%d/ns/user", child.Pid))
		errKill := child.Kill()
		_, errWait := child.Wait()
		return errors.Join(err, errKill, errWait)
	})
	if err != nil && f != nil {
		f.Close()
	}
	return f, err
}

func userNamespaces(context.Context, Options) engine.Check {
	f, err := userNamespace()
	if err != nil {
		return bad("cannot be made: "+err.Error(), "sysctl -w user.max_user_namespaces=65536; on some hosts also kernel.unprivileged_userns_clone=1")
	}
	f.Close()
	return good("a namespace with 65536 ids can be made")
}

// idMappedMounts tries on the file system that holds the server's home.
func idMappedMounts(_ context.Context, o Options) engine.Check {
	users, err := userNamespace()
	if err != nil {
		return bad("needs user namespaces", "see user namespaces")
	}
	defer users.Close()
	dir := existing(o.Home)
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return bad("open_tree: "+err.Error(), "use Linux 5.19 or later")
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return bad(fmt.Sprintf("%s cannot be mounted with other ids: %v", dir, err), "use Linux 5.19 or later and keep --home on ext4, XFS or btrfs")
	}
	return good("work on the file system of " + dir)
}

// overlay mounts one in a mount namespace of its own, and writes through it.
func overlay(context.Context, Options) engine.Check {
	err := withOverlay(func(root, _ string) error { return os.WriteFile(filepath.Join(root, "x"), nil, 0o644) })
	if err != nil {
		return bad("cannot be mounted: "+err.Error(), "modprobe overlay")
	}
	return good("can be mounted")
}

// withOverlay runs fn in a mount namespace of its own with an empty overlay.
func withOverlay(fn func(root, upper string) error) error {
	dir, err := os.MkdirTemp("", "atoll-probe-")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	return apart(unix.CLONE_NEWNS, func() error {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
			return err
		}
		for _, d := range []string{"lower", "upper", "work", "root"} {
			if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
				return err
			}
		}
		opts := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)
		if err := unix.Mount("overlay", filepath.Join(dir, "root"), "overlay", 0, opts); err != nil {
			return err
		}
		return fn(filepath.Join(dir, "root"), filepath.Join(dir, "upper"))
	})
}
