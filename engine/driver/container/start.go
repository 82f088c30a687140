package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
)

// Start creates the task, lets it run and waits until the toolbox answers. An
// instance that runs already is left alone. When the toolbox ends instead, the
// error carries its exit code and last words, and the task is gone again.
func (d *Driver) Start(ctx context.Context, h driver.Handle) error {
	data, err := decodeHandle(h)
	if err != nil {
		return err
	}
	in := d.instance(h.ID)
	in.change.Lock()
	defer in.change.Unlock()
	d.jobs.flush()

	if p := in.running(); p != nil {
		return d.awaitToolbox(ctx, in, p, data)
	}
	in.detach()
	err = d.start(ctx, in, data)
	d.refill()
	if err == nil {
		return nil
	}
	switch kind := engine.KindOf(err); {
	case kind == engine.KindNotFound:
		d.forget(h.ID)
		return errUnknown(h.ID)
	case kind == engine.KindDenied && d.ours(ctx, h.ID) != nil: // another server's, which goes on
		d.forget(h.ID)
		return err
	}
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	in.mu.Lock()
	in.stopping = true
	in.mu.Unlock()
	if clean := d.deleteTask(cleanup, in); clean != nil {
		d.log.Warn("half-started task remains", "instance", h.ID, "err", clean)
	}
	return err
}

// refill replaces the spare shim that a start took, a moment later: a first
// command usually comes next.
func (d *Driver) refill() {
	const pause = 20 * time.Millisecond
	d.wg.Go(func() {
		if sleep(d.ctx, pause) == nil {
			d.spares.fill()
		}
	})
}

func (d *Driver) start(ctx context.Context, in *instance, data handleData) error {
	if err := ctx.Err(); err != nil {
		return engine.AsError(err)
	}
	if err := clearSocket(data.ControlDir); err != nil {
		return translate(err, "clear the control directory of instance %s", in.id)
	}
	d.pacer.keep(d.ctx, d.wg.Go)
	since := time.Now()
	pid, running, err := d.createTask(ctx, in)
	if err != nil {
		return translate(err, "create the task of instance %s", in.id)
	}
	since = d.stage(in.id, "create task", since)
	if err := os.Remove(d.exitPath(in.id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return translate(err, "clear the last exit of instance %s", in.id)
	}
	p, err := d.attach(in, pid)
	if err != nil {
		return d.errStart(ctx, in, err, "follow the toolbox")
	}
	if !running {
		firm, cancel := d.firm(ctx)
		defer cancel()
		if _, err := d.tasks.Start(firm, &tasks.StartRequest{ContainerID: in.id}); err != nil {
			return d.errStart(ctx, in, err, "start the task")
		}
	}
	since = d.stage(in.id, "start task", since)
	err = d.awaitToolbox(ctx, in, p, data)
	d.stage(in.id, "toolbox answers", since)
	return err
}

// createTask starts the shim and the runtime. A task left by an earlier life
// is used when it runs and removed when it does not.
func (d *Driver) createTask(ctx context.Context, in *instance) (pid int, running bool, err error) {
	firm, cancel := d.firm(ctx)
	defer cancel()
	if err := d.prepareLog(in); err != nil {
		return 0, false, err
	}
	for try := 0; ; try++ {
		r, err := d.tasks.Create(firm, &tasks.CreateTaskRequest{
			ContainerID: in.id, Stdout: d.logPath(in.id), Stderr: d.logPath(in.id),
		})
		if err == nil {
			return int(r.Pid), false, nil
		}
		if try == 100 || !leftover(err) {
			return 0, false, err
		}
		old, getErr := d.getTask(firm, in.id)
		if getErr == nil && old != nil && live(old.Status) {
			if err := d.ours(ctx, in.id); err != nil {
				return 0, false, err
			}
			return int(old.Pid), true, nil
		}
		if err := d.deleteTask(ctx, in); err != nil {
			return 0, false, err
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return 0, false, err
		}
	}
}

// leftover tells that an earlier task of the same id is in the way: a whole
// one, or one that containerd is just clearing because a server died while
// making it.
func leftover(err error) bool {
	return kindOfCall(err) == engine.KindConflict || strings.Contains(err.Error(), "file exists")
}

func live(s task.Status) bool {
	return s == task.Status_RUNNING || s == task.Status_PAUSED || s == task.Status_PAUSING
}

// prepareLog has the pipe and its reader in place before the shim opens it. A
// reboot may have emptied the state directory.
func (d *Driver) prepareLog(in *instance) error {
	if err := os.MkdirAll(d.dir(in.id), 0o700); err != nil {
		return fmt.Errorf("make state directory of %s: %w", in.id, err)
	}
	if err := makeTail(d.logPath(in.id)); err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.log == nil {
		in.log = openTail(d.logPath(in.id))
	}
	return nil
}

// awaitToolbox asks the toolbox for its status until it answers, ends or runs
// out of time.
func (d *Driver) awaitToolbox(ctx context.Context, in *instance, p *process, data handleData) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for wait := 300 * time.Microsecond; ; wait = min(wait*5/4, 2*time.Millisecond) {
		err := askStatus(ctx, data)
		if err == nil {
			return nil
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-p.done:
			t.Stop()
			return d.errEnded(ctx, in)
		case <-ctx.Done():
			t.Stop()
			return d.errSilent(ctx, in, err)
		}
	}
}

// errStart tells a toolbox that could not be started from one that ended
// already: it runs from the end of the task's creation. The shim may still be
// about to see the end.
func (d *Driver) errStart(ctx context.Context, in *instance, cause error, what string) error {
	if _, err := d.waitStopped(ctx, in.id); err == nil {
		return d.errEnded(ctx, in)
	}
	return translate(cause, "%s of instance %s", what, in.id)
}

func (d *Driver) errEnded(ctx context.Context, in *instance) error {
	end := d.recordExit(context.WithoutCancel(ctx), in)
	e := engine.Errorf(engine.KindUnavailable, "the toolbox of instance %s ended with code %d before it answered%s", in.id, end.Code, lastWords(in))
	if end.OOM {
		e = e.WithHint("it was killed for memory: the memory limit is too small")
	}
	return e
}

func (d *Driver) errSilent(ctx context.Context, in *instance, cause error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return engine.Errorf(engine.KindCanceled, "the start of instance %s was canceled", in.id).Wrap(ctx.Err())
	}
	return engine.Errorf(engine.KindTimeout, "the toolbox of instance %s did not answer within %s%s", in.id, readyTimeout, lastWords(in)).Wrap(cause)
}

// lastWords waits a moment for the shim to pass on what was written last.
func lastWords(in *instance) string {
	in.mu.Lock()
	log := in.log
	in.mu.Unlock()
	for range 20 {
		if s := log.text(); s != "" {
			if i := strings.LastIndexByte(s, '\n'); i >= 0 {
				s = s[i+1:]
			}
			return ": " + s
		}
		time.Sleep(time.Millisecond)
	}
	return ""
}

// askStatus makes one request for the toolbox's status. The answer is not
// trusted: only that there is one counts.
func askStatus(ctx context.Context, data handleData) error {
	conn, err := dialToolbox(ctx, data)
	if err != nil {
		return err
	}
	defer conn.Close()
	return requestStatus(ctx, conn)
}

func requestStatus(ctx context.Context, conn net.Conn) error {
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	const request = "GET /internal/status HTTP/1.1\r\nHost: toolbox\r\nConnection: close\r\n\r\n"
	if _, err := io.WriteString(conn, request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, 64<<10)), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("toolbox answers with status %d", resp.StatusCode)
	}
	return nil
}

// clearSocket removes what an earlier life left at the socket's place. Root
// inside could have put anything there, so nothing is followed.
func clearSocket(controlDir string) error {
	root, err := os.OpenRoot(controlDir)
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(socketName)
}

// kindOfCall classifies an error as it came from a call to containerd.
func kindOfCall(err error) engine.Kind {
	return engine.KindOf(translate(err, "call containerd"))
}
