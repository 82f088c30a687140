package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/driver"
)

// instance is what the driver knows of one instance while it is in use.
type instance struct {
	id string
	// change is held by whatever starts, stops or removes the instance.
	change sync.Mutex

	mu       sync.Mutex
	proc     *process // nil when not known to run
	stopping bool     // an exit now was asked for
	log      *tail
	oomKills uint64 // as last told of
	lastOOM  time.Time
}

// instance returns the entry of id, making it when new.
func (d *Driver) instance(id string) *instance {
	d.mu.Lock()
	defer d.mu.Unlock()
	in := d.instances[id]
	if in == nil {
		in = &instance{id: id}
		d.instances[id] = in
	}
	return in
}

func (d *Driver) forget(id string) {
	d.mu.Lock()
	in := d.instances[id]
	delete(d.instances, id)
	d.mu.Unlock()
	if in != nil {
		in.detach()
	}
}

// running returns the process of the toolbox when it is alive.
func (in *instance) running() *process {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.proc == nil || in.proc.exited() {
		return nil
	}
	return in.proc
}

// detach lets go of the process and the log without touching either.
func (in *instance) detach() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.proc != nil {
		in.proc.close()
		in.proc = nil
	}
	if in.log != nil {
		in.log.close()
		in.log = nil
	}
}

// process is process 1 of an instance, held by a pidfd so that a reused number
// is never mistaken for it.
type process struct {
	pid  int
	fd   *os.File
	done chan struct{} // closed when it exited, or after close
	gone bool          // done because it exited; read after done
}

// openProcess attaches to pid.
func openProcess(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	// A non-blocking descriptor is watched by the runtime's poller, so that
	// waiting costs no thread.
	return &process{pid: pid, fd: os.NewFile(uintptr(fd), "pidfd"), done: make(chan struct{})}, nil
}

// wait blocks until the process exits or close is called.
func (p *process) wait() {
	defer close(p.done)
	conn, err := p.fd.SyscallConn()
	if err != nil {
		return
	}
	err = conn.Read(func(fd uintptr) bool {
		set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(set, 0)
		p.gone = n == 1 && err == nil && set[0].Revents&unix.POLLIN != 0
		return p.gone
	})
	if err != nil {
		p.gone = false
	}
}

func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) signal(sig unix.Signal) error {
	conn, err := p.fd.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if err := conn.Control(func(fd uintptr) { result = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return err
	}
	if errors.Is(result, unix.ESRCH) {
		return nil
	}
	return result
}

func (p *process) close() { _ = p.fd.Close() }

// attach follows the toolbox of a running task: its exit and its log.
func (d *Driver) attach(in *instance, pid int) (*process, error) {
	if p := in.running(); p != nil {
		return p, nil
	}
	p, err := openProcess(pid)
	if err != nil {
		return nil, err
	}
	if !d.owns(in.id, pid) {
		p.close()
		return nil, fmt.Errorf("process %d is not in the control group of %s", pid, in.id)
	}
	in.mu.Lock()
	in.proc, in.stopping = p, false
	if in.log == nil {
		in.log = openTail(d.logPath(in.id))
	}
	if u, err := d.cgroups.usage(d.template.cgroupPath(in.id)); err == nil {
		in.oomKills = u.oomKills
	}
	in.mu.Unlock()
	d.wg.Go(func() {
		p.wait()
		if p.gone {
			d.exited(in, p)
		}
	})
	return p, nil
}

// owns tells whether a process is in the control group of an instance. The
// pidfd was opened before, so a yes stays true.
func (d *Driver) owns(id string, pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return err == nil && strings.Contains(string(b), d.template.cgroupPath(id)+"\n")
}

// exited notes the end of a toolbox and tells watchers if nobody asked for it.
func (d *Driver) exited(in *instance, p *process) {
	in.mu.Lock()
	asked := in.stopping || in.proc != p
	in.mu.Unlock()
	if asked {
		return
	}
	end := d.recordExit(d.ctx, in)
	if d.ctx.Err() == nil {
		d.events.send(driver.Event{ID: in.id, Kind: driver.EventExit, Time: end.At, Exit: end.Code})
	}
}

// exit is how an instance ended, kept on disk until it starts again.
type exit struct {
	Code int       `json:"code"`
	OOM  bool      `json:"oom"`
	At   time.Time `json:"at"`
}

// recordExit asks containerd how the toolbox ended and keeps the answer. When
// the shim died with it nobody knows, which reads as killed.
func (d *Driver) recordExit(ctx context.Context, in *instance) exit {
	end := exit{Code: 128 + int(unix.SIGKILL), At: time.Now(), OOM: d.oomKilled(in)}
	t, err := d.waitStopped(ctx, in.id)
	if known, ok := d.loadExit(in.id); err != nil && ok {
		return known // another call has asked before the task was removed
	}
	if err == nil {
		end.Code = int(t.ExitStatus)
		if t.ExitedAt != nil {
			end.At = t.ExitedAt.AsTime()
		}
	}
	d.saveExit(in.id, end)
	return end
}

// waitStopped waits until the shim has seen the exit that we have seen.
func (d *Driver) waitStopped(ctx context.Context, id string) (*task.Process, error) {
	ctx, cancel := context.WithTimeout(d.context(ctx), 2*time.Second)
	defer cancel()
	for {
		r, err := d.tasks.Get(ctx, &tasks.GetRequest{ContainerID: id})
		if err != nil {
			return nil, err
		}
		if r.Process.Status == task.Status_STOPPED {
			return r.Process, nil
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// oomKilled tells whether a process of the instance was killed for memory. The
// control group knows as long as it exists, and what we saw after that.
func (d *Driver) oomKilled(in *instance) bool {
	if u, err := d.cgroups.usage(d.template.cgroupPath(in.id)); err == nil && u.oomKills > 0 {
		return true
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.oomKills > 0
}

func (d *Driver) dir(id string) string      { return filepath.Join(d.cfg.StateDir, id) }
func (d *Driver) exitPath(id string) string { return filepath.Join(d.dir(id), "exit.json") }
func (d *Driver) logPath(id string) string  { return filepath.Join(d.dir(id), "log") }

func (d *Driver) saveExit(id string, end exit) {
	b, err := json.Marshal(end)
	if err == nil {
		err = os.WriteFile(d.exitPath(id), b, 0o600)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("exit not recorded", "instance", id, "err", err)
	}
}

func (d *Driver) loadExit(id string) (exit, bool) {
	var end exit
	b, err := os.ReadFile(d.exitPath(id))
	if err != nil || json.Unmarshal(b, &end) != nil {
		return end, false
	}
	return end, true
}
