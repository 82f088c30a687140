// Package process starts, watches and ends the processes of a sandbox. It does
// not use os/exec: as PID 1 the toolbox must reap every orphan with one wait,
// and a reaper beside os/exec would steal its children.
package process

import (
	"context"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// childOOMScore makes the kernel's memory killer prefer any child to the
// toolbox. Raising a score needs no privilege.
const childOOMScore = "500"

// Table is the set of children. Exactly one may exist per process when it
// reaps orphans.
type Table struct {
	Calls *Calls // is told of every process; nil: nobody is

	reapAll bool
	cancel  context.CancelFunc
	stopped chan struct{}

	mu       sync.Mutex
	children map[int]*Child
	starting int                        // forks under way
	early    map[int]syscall.WaitStatus // reaped before their fork was registered
}

// Spec is a process to start. Path is absolute; Files become 0, 1, 2, ….
type Spec struct {
	Path  string
	Argv  []string
	Env   []string
	Dir   string
	Cred  *syscall.Credential // nil: as the toolbox
	Files []int
	TTY   bool   // file 0 becomes the controlling terminal
	Call  string // of the server's ledger, for which it works
	For   int    // the process for which it works instead; 0: none
}

// Exit tells how a process ended.
type Exit struct {
	Code   int            // 128+n when a signal ended it
	Signal syscall.Signal // 0: it exited by itself
}

// Child is a process started by a Table. It leads its own session and group.
type Child struct {
	PID   int
	table *Table
	tty   bool
	done  chan struct{}
	exit  Exit     // valid once done is closed
	after []func() // called at the end; guarded by the table's mutex
}

// NewTable starts reaping. With reapAll it reaps every child of this process,
// which only PID 1 may ask for; otherwise only those it started.
func NewTable(reapAll bool) *Table {
	ctx, cancel := context.WithCancel(context.Background())
	t := &Table{
		reapAll:  reapAll,
		cancel:   cancel,
		stopped:  make(chan struct{}),
		children: map[int]*Child{},
		early:    map[int]syscall.WaitStatus{},
	}
	c := make(chan os.Signal, 1) // one pending wake-up is enough: each reaps all
	signal.Notify(c, syscall.SIGCHLD)
	go func() {
		defer close(t.stopped)
		defer signal.Stop(c)
		for {
			select {
			case <-ctx.Done():
				return
			case <-c:
				t.reap()
			}
		}
	}()
	return t
}

// Close stops reaping. Children go on.
func (t *Table) Close() {
	t.cancel()
	<-t.stopped
	t.Calls.Close()
}

// Len returns the number of running children.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.children)
}

// Children returns the running children.
func (t *Table) Children() []*Child {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*Child, 0, len(t.children))
	for _, c := range t.children {
		all = append(all, c)
	}
	return all
}

// Start forks and executes. An error is the errno of the step that failed.
func (t *Table) Start(s Spec) (*Child, error) {
	files := make([]uintptr, len(s.Files))
	for i, f := range s.Files {
		files[i] = uintptr(f)
	}
	attr := &syscall.ProcAttr{
		Dir:   s.Dir,
		Env:   s.Env,
		Files: files,
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: s.TTY, Credential: s.Cred},
	}
	t.mu.Lock()
	t.starting++
	t.mu.Unlock()
	pid, err := syscall.ForkExec(s.Path, s.Argv, attr)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.starting--
	defer t.forgetEarlyLocked()
	if err != nil {
		return nil, err
	}
	t.Calls.Tell(pid, s.Call, s.For)
	c := &Child{PID: pid, table: t, tty: s.TTY, done: make(chan struct{})}
	if ws, ok := t.early[pid]; ok {
		delete(t.early, pid)
		c.finishLocked(ws)
		return c, nil
	}
	t.children[pid] = c
	if !t.reapAll {
		t.collectLocked(pid, c) // its signal may have come before it was registered
	}
	offer(strconv.Itoa(pid))
	return c, nil
}

// offer makes the kernel prefer a process when memory runs out. Descendants
// inherit that, but the process runs already and may have forked before.
func offer(pid string) {
	if writeSmall("/proc/"+pid+"/oom_score_adj", childOOMScore) != nil {
		return
	}
	b := readSmall("/proc/" + pid + "/task/" + pid + "/children")
	for child := range strings.FieldsSeq(string(b)) {
		offer(child)
	}
}

func (t *Table) forgetEarlyLocked() {
	if t.starting == 0 {
		clear(t.early)
	}
}

func (t *Table) reap() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.reapAll {
		for pid, c := range t.children {
			t.collectLocked(pid, c)
		}
		return
	}
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if c, ok := t.children[pid]; ok {
			c.finishLocked(ws)
		} else if t.starting > 0 {
			t.early[pid] = ws
		}
	}
}

func (t *Table) collectLocked(pid int, c *Child) {
	var ws syscall.WaitStatus
	for {
		got, err := syscall.Wait4(pid, &ws, syscall.WNOHANG, nil)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil: // somebody else reaped it
			c.finishLocked(syscall.WaitStatus(0xff00))
		case got == pid:
			c.finishLocked(ws)
		}
		return
	}
}

func (c *Child) finishLocked(ws syscall.WaitStatus) {
	if ws.Signaled() {
		c.exit = Exit{Code: 128 + int(ws.Signal()), Signal: ws.Signal()}
	} else {
		c.exit = Exit{Code: ws.ExitStatus()}
	}
	delete(c.table.children, c.PID)
	close(c.done)
	for _, f := range c.after {
		f()
	}
	c.after = nil
}

// atEnd has f called when the process has ended, at once if it has already. f
// must not block.
func (c *Child) atEnd(f func()) {
	c.table.mu.Lock()
	defer c.table.mu.Unlock()
	if c.ended() {
		f()
		return
	}
	c.after = append(c.after, f)
}

func (c *Child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// wait waits for the end. A process whose streams have just closed has mostly
// ended already, long before the news comes by way of its signal.
func (c *Child) wait() {
	c.table.mu.Lock()
	if !c.ended() {
		c.table.collectLocked(c.PID, c)
	}
	c.table.mu.Unlock()
	<-c.done
}

// TTY tells whether the process has a terminal.
func (c *Child) TTY() bool { return c.tty }

// Done is closed when the process has ended.
func (c *Child) Done() <-chan struct{} { return c.done }

// Exit tells how the process ended. It waits for the end.
func (c *Child) Exit() Exit {
	<-c.done
	return c.exit
}

// Signal sends sig to the process group. A process that has ended gets nothing:
// its id may belong to another by now.
func (c *Child) Signal(sig syscall.Signal) error {
	c.table.mu.Lock()
	defer c.table.mu.Unlock()
	if c.ended() {
		return os.ErrProcessDone
	}
	if err := syscall.Kill(-c.PID, sig); err != nil {
		return syscall.Kill(c.PID, sig)
	}
	return nil
}

// Ended returns a Child that stands for a process that could not be started.
func Ended(code int) *Child {
	c := &Child{table: &Table{}, done: make(chan struct{}), exit: Exit{Code: code}}
	close(c.done)
	return c
}
