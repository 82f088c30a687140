package container

import (
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/driver"
)

// require returns the process of an instance that must be running.
func (d *Driver) require(ctx context.Context, h driver.Handle) (*instance, *process, error) {
	if _, err := decodeHandle(h); err != nil {
		return nil, nil, err
	}
	in := d.instance(h.ID)
	p, err := d.find(ctx, in)
	if err != nil {
		if engine.KindOf(err) == engine.KindNotFound {
			d.forget(h.ID)
		}
		return nil, nil, err
	}
	if p == nil {
		return nil, nil, errNotRunning(h.ID)
	}
	return in, p, nil
}

// Pause freezes every process. Pausing a paused instance is not an error.
func (d *Driver) Pause(ctx context.Context, h driver.Handle) error {
	return d.setFrozen(ctx, h, true)
}

// Resume thaws every process. Resuming a running instance is not an error.
func (d *Driver) Resume(ctx context.Context, h driver.Handle) error {
	return d.setFrozen(ctx, h, false)
}

func (d *Driver) setFrozen(ctx context.Context, h driver.Handle, frozen bool) error {
	if _, _, err := d.require(ctx, h); err != nil {
		return err
	}
	verb := "resume"
	if frozen {
		verb = "pause"
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return translate(d.cgroups.setFrozen(ctx, d.template.cgroupPath(h.ID), frozen), "%s instance %s", verb, h.ID)
}

// Group makes the control group ahead of the runtime, which takes what is there.
func (d *Driver) Group(_ context.Context, h driver.Handle) (string, error) {
	if err := validID(h.ID); err != nil {
		return "", err
	}
	dir := d.cgroups.watched(d.template.cgroupPath(h.ID))
	return dir, translate(os.MkdirAll(dir, 0o755), "make the control group of instance %s", h.ID)
}

// Resize changes limits at once, and for later starts. Zero fields stay as they
// are. A stopped instance gets them at its next start.
func (d *Driver) Resize(ctx context.Context, h driver.Handle, r engine.Resources) error {
	if _, err := decodeHandle(h); err != nil {
		return err
	}
	in := d.instance(h.ID)
	p, err := d.find(ctx, in)
	if err != nil {
		return err
	}
	if p == nil {
		d.jobs.flush()
		return translate(d.storeLimits(ctx, h.ID, r), "store limits of instance %s", h.ID)
	}
	if err := d.cgroups.setLimits(d.template.cgroupPath(h.ID), r); err != nil {
		return translate(err, "change limits of instance %s", h.ID)
	}
	d.later(h.ID, "store limits", func(ctx context.Context) error { return d.storeLimits(ctx, h.ID, r) })
	return nil
}

func (d *Driver) storeLimits(ctx context.Context, id string, r engine.Resources) error {
	return d.change(ctx, id, func(doc *document, _ map[string]string) {
		want, have := d.template.resources(r), doc.Linux.Resources
		if r.CPU > 0 {
			have.CPU = want.CPU
		}
		if r.MemoryMiB > 0 {
			have.Memory = want.Memory
		}
		if r.PIDs > 0 {
			have.Pids = want.Pids
		}
	})
}

// Rename sets the host name inside and, after it returned, the labels that
// containerd shows.
func (d *Driver) Rename(ctx context.Context, h driver.Handle, sandbox, hostname string, labels map[string]string) error {
	_, p, err := d.require(ctx, h)
	if err != nil {
		return err
	}
	if err := setHostname(p, hostname); err != nil {
		return translate(err, "set the host name of instance %s", h.ID)
	}
	labels = maps.Clone(labels)
	d.later(h.ID, "store labels", func(ctx context.Context) error {
		return d.change(ctx, h.ID, func(doc *document, have map[string]string) {
			doc.Hostname = hostname
			maps.Copy(have, labels)
			d.addLabels(have, h.ID, sandbox, hostname)
		})
	})
	return nil
}

// later does book-keeping after the answer.
func (d *Driver) later(id, what string, job func(context.Context) error) {
	d.jobs.do(func() {
		if err := job(context.Background()); err != nil && !isNotFound(err) {
			d.log.Warn(what, "instance", id, "err", err)
		}
	})
}

// setHostname enters the instance's host name space on a thread of its own,
// which ends with the goroutine because it is never unlocked.
func setHostname(p *process, hostname string) error {
	conn, err := p.fd.SyscallConn()
	if err != nil {
		return err
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		var inside error
		err := conn.Control(func(fd uintptr) {
			if err := unix.Setns(int(fd), unix.CLONE_NEWUTS); err != nil {
				inside = fmt.Errorf("enter host name space: %w", err)
				return
			}
			inside = unix.Sethostname([]byte(hostname))
		})
		if err == nil {
			err = inside
		}
		result <- err
	}()
	return <-result
}

// Stats measures a running instance from its control group.
func (d *Driver) Stats(ctx context.Context, h driver.Handle) (engine.Stats, error) {
	in, _, err := d.require(ctx, h)
	if err != nil {
		return engine.Stats{}, err
	}
	u, err := d.cgroups.usage(d.template.cgroupPath(h.ID))
	if err != nil {
		return engine.Stats{}, translate(err, "measure instance %s", h.ID)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return engine.Stats{
		Time: time.Now(), CPUNanos: u.cpuNanos, MemoryBytes: u.memory, CacheBytes: u.cache, PIDs: u.pids,
		OOMKills: u.oomKills, LastOOM: in.lastOOM,
	}, nil
}
