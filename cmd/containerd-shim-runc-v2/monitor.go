package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/process"
	"github.com/containerd/go-runc"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/driver/container/refused"
)

// monitor runs the runtime for the task service. It leaves all to the monitor
// inside but the start of a container that runc has created: that is the
// reading of one pipe, for which a process of its own takes 5 ms. And it waits
// for the listener of a container's system call filter, when that has one.
type monitor struct {
	runc.ProcessMonitor

	mu       sync.Mutex
	created  map[call]*container // that runc is about to create
	released map[call]chan error // containers that started as soon as they were created
}

// container is what is known of one before runc has created it.
type container struct {
	atOnce bool
	keeper *refused.Keeper // nil: its filter has no listener
}

func newMonitor(inside runc.ProcessMonitor) *monitor {
	return &monitor{ProcessMonitor: inside, created: map[call]*container{}, released: map[call]chan error{}}
}

// atOnce is the annotation, of any value, of a container whose creator starts
// it as soon as it is created, and will not mind that it runs a moment before
// that is known: the two calls in between take as long as its process 1 needs
// to get ready.
const atOnce = "atoll.start-at-once"

// StartLocked runs the command or, when it would start a container, does its
// work. When that is not possible runc is asked, which also says why.
func (m *monitor) StartLocked(c *exec.Cmd) (chan runc.Exit, error) {
	call := parse(c.Args)
	if call.command == "create" {
		c.Env = append(c.Env, "GOGC=off") // it ends before it holds much
		if err := m.expect(call); err != nil {
			return nil, err
		}
	}
	if call.command != "start" || m.start(call) != nil {
		done, err := m.ProcessMonitor.StartLocked(c)
		if err != nil {
			_ = m.arrive(call, false)
		}
		return done, err
	}
	go settle()
	done := make(chan runc.Exit, 1)
	done <- runc.Exit{Timestamp: time.Now()}
	return done, nil
}

// Wait returns the command's exit status.
func (m *monitor) Wait(c *exec.Cmd, done chan runc.Exit) (int, error) {
	if c.Process == nil { // it never ran, see StartLocked
		return (<-done).Status, nil
	}
	status, err := m.ProcessMonitor.Wait(c, done)
	return status, errors.Join(err, m.arrive(parse(c.Args), status == 0 && err == nil))
}

// expect prepares for a container that runc creates next.
func (m *monitor) expect(c call) error {
	var spec struct {
		Annotations map[string]string `json:"annotations"`
		Linux       struct {
			Seccomp struct {
				Path   string `json:"listenerPath"`
				Server string `json:"listenerMetadata"`
			} `json:"seccomp"`
		} `json:"linux"`
	}
	b, err := os.ReadFile(filepath.Join("..", c.id, "config.json"))
	if err != nil || json.Unmarshal(b, &spec) != nil {
		return nil // runc will say so
	}
	var box container
	_, box.atOnce = spec.Annotations[atOnce]
	if l := spec.Linux.Seccomp; l.Path != "" {
		if box.keeper, err = refused.Open(l.Path, l.Server, c.id); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.created[c] = &box
	return nil
}

// arrive ends what expect began, when runc has created the container or failed.
// Without its listener a container must not run: runc is told to have failed.
func (m *monitor) arrive(c call, ok bool) error {
	m.mu.Lock()
	box := m.created[c]
	delete(m.created, c)
	m.mu.Unlock()
	if box == nil {
		return nil
	}
	if box.keeper != nil {
		if !ok {
			box.keeper.Close()
		} else if err := box.keeper.Passed(); err != nil {
			return err
		}
	}
	if ok && box.atOnce {
		m.release(c)
	}
	return nil
}

// release starts a created container in the background.
func (m *monitor) release(c call) {
	c.command = "start"
	result := make(chan error, 1)
	m.mu.Lock()
	m.released[c] = result
	m.mu.Unlock()
	go func() { result <- release(c.root, c.id) }()
}

// start starts a created container, or waits until it started at once.
func (m *monitor) start(c call) error {
	m.mu.Lock()
	result := m.released[c]
	delete(m.released, c)
	m.mu.Unlock()
	if result != nil {
		return <-result
	}
	return release(c.root, c.id)
}

// call is what a command line asks of runc. Other runtimes, and anything that
// does not look as expected, give an empty one.
type call struct{ command, root, id string }

func parse(args []string) call {
	if len(args) < 3 || filepath.Base(args[0]) != "runc" {
		return call{}
	}
	c := call{id: args[len(args)-1]}
	for i := 1; i < len(args)-1; i++ {
		switch a := args[i]; {
		case a == "--root":
			c.root = args[i+1]
			i++
		case a == "--log" || a == "--log-format":
			i++
		case strings.HasPrefix(a, "-"): // --debug, --systemd-cgroup
		default:
			c.command = a
			if a == "start" && i != len(args)-2 {
				return call{}
			}
			return c
		}
	}
	return call{}
}

// errNotWaiting tells that process 1 does not wait to be started.
var errNotWaiting = errors.New("the container does not wait to be started")

// release lets a created container run, as "runc start" does: process 1 writes
// a byte into the pipe of its state directory as soon as somebody reads it, and
// a container without that pipe counts as started.
func release(root, id string) error {
	const limit = 10 * time.Second
	if root == "" || id != filepath.Base(id) {
		return errNotWaiting
	}
	path := filepath.Join(root, id, "exec.fifo")
	pipe, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer pipe.Close()
	if err := pipe.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(200 * time.Microsecond) {
		n, err := pipe.Read(make([]byte, 8))
		if n > 0 {
			return os.Remove(path)
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		// It has not come to the pipe yet, or it died on the way.
		if !alive(initPID(id)) {
			return errNotWaiting
		}
	}
	return errNotWaiting
}

// initPID is process 1 of a container, 0 when unknown. The shim's working
// directory is a container's bundle, and all bundles lie side by side.
func initPID(id string) int {
	b, err := os.ReadFile(filepath.Join("..", id, process.InitPidFile))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil {
		return 0
	}
	return pid
}

func alive(pid int) bool { return pid > 0 && unix.Kill(pid, 0) == nil }
