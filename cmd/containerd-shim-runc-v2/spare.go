package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/containerd/containerd/v2/pkg/sys"

	"github.com/atoll-sh/atoll/cmd/containerd-shim-runc-v2/early"
)

const (
	listenerFD = 3 // where a shim expects its listening socket
	patience   = 5 * time.Second
)

// wait makes this process a spare shim: it returns when it was given a
// container, with everything as if containerd had started it for that. Before
// that it ends with its standard input, whose other end the server holds.
func wait() error {
	postpone()
	l, err := offer(os.Getenv(early.DirVariable))
	if err != nil {
		return err
	}
	var taken atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		if taken.CompareAndSwap(false, true) {
			withdraw(l)
			os.Exit(0)
		}
	}()
	conn, err := l.AcceptUnix()
	if err != nil {
		return err
	}
	if !taken.CompareAndSwap(false, true) {
		select {} // the other goroutine ends the process
	}
	defer conn.Close()
	withdraw(l)
	return serve(conn)
}

// ballast is never written to, so it takes no memory, but it counts as living:
// a spare shim starts its container, for which it needs 2 to 4 MB, without
// collecting garbage, which takes as many milliseconds.
var ballast []byte

func postpone() {
	ballast = make([]byte, 32<<20)
	runtime.GC()
}

// settle makes the shim as small as any, once it has nothing to do.
func settle() {
	time.Sleep(time.Second)
	runtime.KeepAlive(ballast)
	ballast = nil
	debug.FreeOSMemory()
}

// offer listens below dir. The name appears when a connection can be made.
func offer(dir string) (*net.UnixListener, error) {
	if err := raiseOOMScore(os.Getpid()); err != nil {
		return nil, err
	}
	name := strconv.Itoa(os.Getpid())
	hidden := filepath.Join(dir, "."+name)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return l, os.Rename(hidden, filepath.Join(dir, name))
}

// raiseOOMScore makes the kernel prefer a shim to the server, from which it has
// its score, when the machine runs out of memory.
func raiseOOMScore(pid int) error {
	score, err := sys.GetOOMScoreAdj(pid)
	if err != nil {
		return err
	}
	return sys.AdjustOOMScore(pid, score+1)
}

// withdraw closes the socket and removes it under both of its names.
func withdraw(l *net.UnixListener) {
	hidden := l.Addr().String()
	_ = l.Close()
	_ = os.Remove(filepath.Join(filepath.Dir(hidden), strings.TrimPrefix(filepath.Base(hidden), ".")))
}

// serve takes the container, or says why not.
func serve(conn *net.UnixConn) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	b, err := io.ReadAll(io.LimitReader(conn, early.MaxRequest))
	if err != nil {
		return err
	}
	answer, err := take(b)
	if err != nil {
		_, _ = conn.Write(append([]byte{early.Refused}, err.Error()...))
		return err
	}
	_, err = conn.Write(append([]byte{early.Accepted}, answer...))
	return err
}

// take becomes the shim of the container in the request and returns what
// containerd is told.
func take(b []byte) ([]byte, error) {
	r, err := early.Decode(b)
	if err != nil {
		return nil, err
	}
	if err := os.Chdir(r.Dir); err != nil {
		return nil, err
	}
	os.Clearenv()
	for _, e := range r.Env {
		if name, value, ok := strings.Cut(e, "="); ok {
			if err := os.Setenv(name, value); err != nil {
				return nil, err
			}
		}
	}
	answer, err := bootstrap(context.Background(), r)
	if err != nil {
		return nil, err
	}
	args := []string{r.Args[0]}
	for _, name := range []string{"-namespace", "-id", "-address"} {
		args = append(args, name, early.Flag(r.Args, name))
	}
	if err := show(args); err != nil {
		return nil, err
	}
	os.Args = args
	return answer, silence()
}

// show makes the process list show other arguments: those of the process's
// start are overwritten where they are.
func show(args []string) error {
	size := 0
	for _, a := range os.Args {
		size += len(a) + 1
	}
	line := strings.Join(args, "\x00") + "\x00"
	if len(line) > size {
		return errors.New("the command line has no room")
	}
	old := unsafe.Slice(unsafe.StringData(os.Args[0]), size)
	clear(old[copy(old, line):])
	return nil
}

// silence lets go of the server's pipes, which tells it that this spare shim
// is taken.
func silence() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 2 {
		if err := unix.Dup2(int(null.Fd()), fd); err != nil {
			return fmt.Errorf("let go of descriptor %d: %w", fd, err)
		}
	}
	return nil
}
