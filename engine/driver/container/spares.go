package container

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// spares keeps shims that were started ahead and wait for a container: a start
// takes one instead of running two programs that load containerd's packages. A
// spare belongs to no instance. It ends when its pipe from this process does,
// so none is left when the server is killed, and is nobody's child, so that
// the shim that it becomes outlives the server.
//
// They listen in a directory beside containerd's socket, where the shim's
// program finds them when containerd runs it.
type spares struct {
	program string // the shim
	dir     string
	want    int // 0 for none
	log     *slog.Logger

	mu     sync.Mutex
	closed bool
	lines  map[*line]struct{}
	wg     sync.WaitGroup
}

// line is the connection to one spare.
type line struct {
	hold *os.File // the spare ends when this is closed
	gone *os.File // reads end when the spare is taken or dead
}

const (
	spareStart = 5 * time.Second // for the program that leaves a spare behind
	spareEnd   = 2 * time.Second // for spares to end after close
)

func newSpares(c Config) *spares {
	s := &spares{
		program: c.Shim, dir: filepath.Join(filepath.Dir(c.Address), "spare"), want: c.Spares, log: c.Log,
		lines: map[*line]struct{}{},
	}
	if c.Group || c.Shim == "" {
		s.want = 0 // a group has its shim already
	}
	return s
}

// fill starts the spares that are missing. One that does not start is only
// logged: without it, starts take longer.
func (s *spares) fill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.closed && len(s.lines) < s.want {
		if err := s.add(); err != nil {
			s.log.Warn("no spare shim", "err", err)
			return
		}
	}
}

// add starts one spare.
func (s *spares) add() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("make directory of spare shims: %w", err)
	}
	in, hold, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer in.Close()
	gone, out, err := os.Pipe()
	if err != nil {
		hold.Close()
		return fmt.Errorf("make pipe: %w", err)
	}
	defer out.Close()
	l := &line{hold, gone}
	if err := s.spawn(in, out); err != nil {
		l.close()
		return err
	}
	s.lines[l] = struct{}{}
	s.wg.Go(func() {
		_, _ = io.Copy(io.Discard, gone)
		s.mu.Lock()
		delete(s.lines, l)
		s.mu.Unlock()
		l.close()
	})
	return nil
}

func (s *spares) spawn(in, out *os.File) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	ctx, cancel := context.WithTimeout(context.Background(), spareStart)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.program, "spare")
	cmd.Dir = "/"
	cmd.Env = []string{"GOMAXPROCS=2", "ATOLL_SPARE_DIR=" + s.dir}
	cmd.Stdin, cmd.Stdout, cmd.ExtraFiles = in, out, []*os.File{null}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("start a spare shim: %w", err)
	}
	return nil
}

// close ends all spares and waits for it. Those that were taken go on.
func (s *spares) close() {
	s.mu.Lock()
	s.closed = true
	for l := range s.lines {
		_ = l.hold.Close()
		_ = l.gone.SetReadDeadline(time.Now().Add(spareEnd))
	}
	s.mu.Unlock()
	s.wg.Wait()
}

func (l *line) close() {
	_ = l.hold.Close()
	_ = l.gone.Close()
}
