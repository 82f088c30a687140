package interpreter

import (
	"bufio"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

//go:embed worker.py
var workerPython string

// linger is how long the last words of a worker that died are waited for.
const linger = 200 * time.Millisecond

// event is something that a worker said: a chunk, or that a marker passed.
type event struct {
	chunk  wire.InterpreterChunk
	marker bool
}

// turn is one program's time with a worker.
type turn struct {
	events chan event
	over   chan struct{}
}

// worker is a Python process that runs one program at a time.
type worker struct {
	child   *process.Child
	in      *os.File
	marker  string
	done    chan struct{} // closed when all it said is read
	readers sync.WaitGroup

	mu   sync.Mutex
	turn *turn // nil: what it says is dropped
}

// request is what a worker reads.
type request struct {
	Code   string            `json:"code"`
	Envs   map[string]string `json:"envs"`
	Marker string            `json:"marker"`
}

// start starts a worker in cwd.
func start(r *process.Runner, cwd, call string) (*worker, error) {
	spec, err := prepare(r, cwd)
	if err != nil {
		return nil, err
	}
	var ours, theirs [4]*os.File // stdin, stdout, stderr, the channel
	defer func() { closeAll(theirs[:]) }()
	for i := range ours {
		read, write, err := os.Pipe()
		if err != nil {
			closeAll(ours[:])
			return nil, fmt.Errorf("make a pipe: %w", err)
		}
		if ours[i], theirs[i] = read, write; i == 0 {
			ours[i], theirs[i] = write, read
		}
		spec.Files = append(spec.Files, int(theirs[i].Fd())) // Fd makes it a blocking one
	}
	spec.Call = call
	child, err := r.Table.Start(spec)
	if err != nil {
		closeAll(ours[:])
		return nil, wire.BadRequest("cannot start %s: %v", spec.Path, err)
	}
	w := &worker{child: child, in: ours[0], marker: "\x00" + rand.Text() + "\x00", done: make(chan struct{})}
	w.readers.Go(func() { w.readRaw(ours[1], wire.ChunkStdout) })
	w.readers.Go(func() { w.readRaw(ours[2], wire.ChunkStderr) })
	w.readers.Go(func() { w.readChannel(ours[3]) })
	go w.watch(ours[:]) // ends with the child
	return w, nil
}

func prepare(r *process.Runner, cwd string) (process.Spec, error) {
	var spec process.Spec
	var err error
	for _, python := range []string{"python3", "python"} {
		spec, _, err = r.Prepare(process.Command{Argv: []string{python, "-u", "-c", workerPython}, Cwd: cwd})
		var failed *process.StartError
		if !errors.As(err, &failed) {
			return spec, err
		}
		if failed.Code != 127 {
			return spec, wire.BadRequest("%s", failed.Reason)
		}
	}
	return spec, wire.Errorf(http.StatusNotImplemented, wire.CodeNotImplemented, "python3 is not installed in this sandbox; install it, or use an image that has it")
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// watch closes the pipes once the child has ended. Processes that it left may
// hold them open for ever.
func (w *worker) watch(pipes []*os.File) {
	<-w.child.Done()
	for _, f := range pipes[1:] {
		_ = f.SetReadDeadline(time.Now().Add(linger))
	}
	w.readers.Wait()
	closeAll(pipes)
	close(w.done)
}

// say hands an event to the program whose turn it is.
func (w *worker) say(e event) {
	w.mu.Lock()
	t := w.turn
	w.mu.Unlock()
	if t == nil {
		return
	}
	select {
	case t.events <- e:
	case <-t.over:
	}
}

// begin starts a program's turn.
func (w *worker) begin(q wire.InterpreterExecute) (*turn, error) {
	if q.Envs == nil {
		q.Envs = map[string]string{}
	}
	b, err := json.Marshal(request{Code: q.Code, Envs: q.Envs, Marker: w.marker})
	if err != nil {
		return nil, err
	}
	t := &turn{events: make(chan event), over: make(chan struct{})}
	w.mu.Lock()
	w.turn = t
	w.mu.Unlock()
	if _, err := w.in.Write(append(b, '\n')); err != nil {
		w.end(t)
		return nil, errDied
	}
	return t, nil
}

// end ends a turn; what its program says from now on is dropped.
func (w *worker) end(t *turn) {
	w.mu.Lock()
	w.turn = nil
	w.mu.Unlock()
	close(t.over)
}

func (w *worker) readRaw(f *os.File, kind string) {
	s := splitter{marker: []byte(w.marker)}
	buf := make([]byte, 8<<10)
	for {
		n, err := f.Read(buf)
		s.feed(buf[:n], func(text string) {
			w.say(event{chunk: wire.InterpreterChunk{Type: kind, Text: text}})
		}, func() { w.say(event{marker: true}) })
		if err != nil {
			return
		}
	}
}

// maxLine bounds what a worker may say at once; our own says far less.
const maxLine = 1 << 20

func (w *worker) readChannel(f *os.File) {
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var c wire.InterpreterChunk
		if json.Unmarshal(lines.Bytes(), &c) == nil {
			w.say(event{chunk: c})
		}
	}
}

// alive tells whether the process lives.
func (w *worker) alive() bool {
	select {
	case <-w.child.Done():
		return false
	default:
		return true
	}
}

// interrupt raises KeyboardInterrupt in a running program.
func (w *worker) interrupt() { _ = w.child.Signal(unix.SIGINT) }

// kill ends the process with all it started.
func (w *worker) kill() {
	w.child.Kill()
	<-w.done
}
