package desktop

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// keptOutput is how much of a stream of a process is kept: its end.
	keptOutput = 128 << 10
	// endGrace is how long a process has between SIGTERM and SIGKILL.
	endGrace = 3 * time.Second
	// steady is how long a process must run for its end not to count as a
	// failure to start; after maxFailures of those it is left alone.
	steady      = 10 * time.Second
	maxFailures = 5
	// firstPause is the time before the first restart; it doubles.
	firstPause = 300 * time.Millisecond
)

// program is a process to keep running.
type program struct {
	name     string
	priority int
	hidden   bool                   // not told of by its name: a helper of the others
	argv     func() []string        // the program's path first
	before   func()                 // what is done ahead of each start; nil: nothing
	ready    func(p *running) error // waits until it can be used; nil: at once
	pipe     bool                   // gets a pipe as file 3, for ready
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

// Write keeps p.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*keptOutput {
		t.buf = bytes.Clone(t.buf[len(t.buf)-keptOutput:])
	}
	return len(p), nil
}

// String returns the end.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ToValidUTF8(string(t.buf[max(0, len(t.buf)-keptOutput):]), "�")
}

// keeper runs a program again whenever it ends.
type keeper struct {
	program
	env            []string
	stdout, stderr tail

	change sync.Mutex // held by start, stop and restart

	mu      sync.Mutex
	run     *running      // nil: it does not run
	stop    chan struct{} // closed to end the keeping
	stopped chan struct{} // closed when it has ended
}

// running is one life of a program.
type running struct {
	cmd  *exec.Cmd
	pipe *os.File // our end; nil without
	done chan struct{}
}

// launch starts the program once and waits until it is ready.
func (k *keeper) launch() (*running, error) {
	if k.before != nil {
		k.before()
	}
	argv := k.argv()
	r := &running{cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{})}
	r.cmd.Env = k.env
	r.cmd.Stdout, r.cmd.Stderr = &k.stdout, &k.stderr
	r.cmd.WaitDelay = time.Second // descendants may hold the streams open
	// A group of its own, to be ended as one; and nothing outlives us.
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if k.pipe {
		ours, theirs, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		defer theirs.Close()
		r.pipe, r.cmd.ExtraFiles = ours, []*os.File{theirs}
	}
	if err := start(r.cmd); err != nil {
		return nil, err
	}
	go func() { // ends with the process
		defer close(r.done)
		_ = r.cmd.Wait()
	}()
	if k.ready != nil {
		if err := k.ready(r); err != nil {
			r.end()
			return nil, fmt.Errorf("%s did not start: %w: %s", k.name, err, lastLines(k.stderr.String()))
		}
	}
	return r, nil
}

// end ends the process with its group.
func (r *running) end() {
	_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-r.done:
	case <-time.After(endGrace):
	}
	_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
	<-r.done
	if r.pipe != nil {
		r.pipe.Close()
	}
}

// readLine reads what a ready program writes to its pipe.
func (r *running) readLine(limit time.Duration) (string, error) {
	line := make(chan string, 1)
	go func() { // ends with the pipe
		b := make([]byte, 64)
		n, _ := io.ReadAtLeast(r.pipe, b, 1)
		line <- strings.TrimSpace(string(b[:n]))
	}()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case s := <-line:
		if s == "" {
			return "", errors.New("it ended")
		}
		return s, nil
	case <-r.done:
		return "", errors.New("it ended")
	case <-t.C:
		return "", fmt.Errorf("it was not ready after %s", limit)
	}
}

// lastLines is the end of an output, for an error.
func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "; ")
}

// start starts the program and keeps it running. It does nothing when that is
// so already.
func (k *keeper) start() error {
	k.change.Lock()
	defer k.change.Unlock()
	return k.startLocked()
}

func (k *keeper) startLocked() error {
	k.mu.Lock()
	kept := k.stop != nil && k.run != nil
	k.mu.Unlock()
	if kept {
		return nil
	}
	k.endLocked() // the keeping of one that had failed for good
	r, err := k.launch()
	if err != nil {
		return err
	}
	k.mu.Lock()
	k.run, k.stop, k.stopped = r, make(chan struct{}), make(chan struct{})
	go k.keep(r, k.stop, k.stopped)
	k.mu.Unlock()
	return nil
}

// keep starts the program anew when it ends, until stop is closed or it fails
// too often.
func (k *keeper) keep(r *running, stop, stopped chan struct{}) {
	defer close(stopped)
	failures := 0
	for {
		began := time.Now()
		if r != nil {
			select {
			case <-stop:
				k.set(nil)
				r.end()
				return
			case <-r.done:
				r.end() // what is left of its group
			}
		}
		k.set(nil)
		if time.Since(began) > steady {
			failures = 0
		}
		if failures++; failures > maxFailures {
			fmt.Fprintf(&k.stderr, "\n%s ended %d times in a row and is left alone; restart it by hand\n", k.name, failures)
			return
		}
		select {
		case <-stop:
			return
		case <-time.After(firstPause << (failures - 1)):
		}
		var err error
		if r, err = k.launch(); err != nil {
			fmt.Fprintf(&k.stderr, "\n%v\n", err)
			r = nil
			continue
		}
		k.set(r)
	}
}

func (k *keeper) set(r *running) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.run = r
}

// end ends the program and the keeping.
func (k *keeper) end() {
	k.change.Lock()
	defer k.change.Unlock()
	k.endLocked()
}

func (k *keeper) endLocked() {
	k.mu.Lock()
	stop, stopped := k.stop, k.stopped
	k.stop = nil
	k.mu.Unlock()
	if stop != nil {
		close(stop)
		<-stopped
	}
}

// restart ends the program and starts it.
func (k *keeper) restart() error {
	k.change.Lock()
	defer k.change.Unlock()
	k.endLocked()
	return k.startLocked()
}

// pid returns the process's id, 0 while it does not run.
func (k *keeper) pid() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.run == nil {
		return 0
	}
	return k.run.cmd.Process.Pid
}
