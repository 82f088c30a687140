package storage

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

// idCount is how many ids a sandbox has, from its UIDBase on.
const idCount = 65536

// userns keeps one user namespace per UIDBase for id-mapped mounts. Bases come
// from network slots and repeat, so nearly every mount finds its own here. A
// nil *userns keeps nothing.
type userns struct {
	mu    sync.Mutex
	files map[uint32]*os.File
}

// keptUserns bounds the open files; above it, namespaces are made per mount.
const keptUserns = 512

func newUserns() *userns { return &userns{files: map[uint32]*os.File{}} }

// open returns a descriptor of the namespace for base. The caller closes it.
func (u *userns) open(base uint32) (*os.File, error) {
	if u == nil {
		return makeUserns(base)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if f := u.files[base]; f != nil {
		return duplicate(f)
	}
	f, err := makeUserns(base)
	if err != nil || len(u.files) >= keptUserns {
		return f, err
	}
	u.files[base] = f
	return duplicate(f)
}

func (u *userns) close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	var errs []error
	for base, f := range u.files {
		errs = append(errs, f.Close())
		delete(u.files, base)
	}
	return errors.Join(errs...)
}

// Warm makes the user namespace for a UIDBase ahead of MountRoot, which then
// is some milliseconds faster. Bases of network slots that are kept ready are
// worth it.
func (p *Pool) Warm(base uint32) error {
	f, err := p.users.open(base)
	if err != nil {
		return err
	}
	return f.Close()
}

func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// makeUserns makes a user namespace that maps 0..65535 to base and on. A
// namespace needs a process to be born in; ours is stopped by ptrace before
// its first instruction and killed as soon as the namespace is open.
func makeUserns(base uint32) (*os.File, error) {
	type result struct {
		file *os.File
		err  error
	}
	// The tracer is a thread, and one of its own: a tracee's signals must not
	// meet another goroutine.
	done := make(chan result)
	go func() {
		f, err := traceUserns(base)
		done <- result{f, err}
	}()
	r := <-done
	if r.err != nil {
		return nil, engine.Errorf(engine.KindUnsupported, "the runner cannot make user namespaces").
			WithHint("check that sysctl user.max_user_namespaces is above 0").Wrap(r.err)
	}
	return r.file, nil
}

func traceUserns(base uint32) (*os.File, error) {
	// Never unlocked: the thread ends with the goroutine.
	runtime.LockOSThread()
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(base), Size: idCount}}
	child, err := os.StartProcess("/proc/self/exe", []string{"userns"}, &os.ProcAttr{
		Env: []string{}, // nothing of ours
		Sys: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: ids,
			GidMappings: ids,
			Ptrace:      true,
			Pdeathsig:   unix.SIGKILL,
		},
	})
	if err != nil {
		return nil, err
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", child.Pid))
	errKill := child.Kill()
	_, errWait := child.Wait()
	if err = errors.Join(err, errKill, errWait); err != nil {
		if f != nil {
			f.Close()
		}
		return nil, err
	}
	return f, nil
}

// asOwner runs f on a thread that makes files as the given host id and keeps
// all its capabilities. An overlay works in its work directory as whoever
// mounted it, and the host's root has no id on an id-mapped disk: without this
// the kernel mounts the overlay read-only.
func asOwner(id uint32, f func() error) error {
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine, so the changed
		// identity cannot leak to other code.
		runtime.LockOSThread()
		err := becomeOwner(id)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func becomeOwner(id uint32) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	// These two concern this thread alone and answer the id from before.
	if _, err := unix.SetfsgidRetGid(int(id)); err != nil {
		return fmt.Errorf("set file group id: %w", err)
	}
	if _, err := unix.SetfsuidRetUid(int(id)); err != nil {
		return fmt.Errorf("set file user id: %w", err)
	}
	// Leaving id 0 took the capabilities that concern files.
	if err := unix.Capset(&header, &caps[0]); err != nil {
		return fmt.Errorf("keep capabilities: %w", err)
	}
	return nil
}
