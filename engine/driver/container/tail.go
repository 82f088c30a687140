package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const tailSize = 8 << 10

// tail keeps the last words of a toolbox's standard error. They come through a
// named pipe and stay in memory: root inside can write there as well, and must
// not be able to fill the host's disk.
type tail struct {
	file *os.File
	done chan struct{}

	mu  sync.Mutex
	buf []byte
}

// makeTail makes the named pipe.
func makeTail(path string) error {
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make log pipe: %w", err)
	}
	return nil
}

// openTail starts reading. It returns nil when there is no pipe.
func openTail(path string) *tail {
	// Opened for both ways, the pipe has no end of file before the shim opens
	// it, and a write to it never fails while we read.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	t := &tail{file: os.NewFile(uintptr(fd), path), done: make(chan struct{})}
	go t.read()
	return t
}

func (t *tail) read() {
	defer close(t.done)
	chunk := make([]byte, 4<<10)
	for {
		n, err := t.file.Read(chunk)
		t.mu.Lock()
		t.buf = append(t.buf, chunk[:n]...)
		if over := len(t.buf) - tailSize; over > 0 {
			t.buf = append(t.buf[:0], t.buf[over:]...)
		}
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// text returns what was written last, cut to whole lines.
func (t *tail) text() string {
	if t == nil {
		return ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := string(t.buf)
	if len(t.buf) == tailSize {
		_, s, _ = strings.Cut(s, "\n")
	}
	return strings.TrimSpace(strings.ToValidUTF8(s, "?"))
}

func (t *tail) close() {
	_ = t.file.Close()
	<-t.done
}
