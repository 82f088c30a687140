package session

import (
	"context"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// remark is how far apart markers are at most, so that a read from any
	// offset finds its channel by looking back only that far.
	remark = 64 << 10
	// keep is how much of a log stays on disk; older output is given back to
	// the file system while offsets stay as they are.
	keep = 64 << 20
	// slack is by how much a log exceeds keep before it is trimmed.
	slack = 8 << 20
	// MaxRead bounds one read.
	MaxRead = 16 << 20
)

// Log is the output of one command: a file that holds both channels with
// markers, addressed by offset.
type Log struct {
	f *os.File

	mu      sync.Mutex
	size    int64
	base    int64 // what lies before it is gone
	on      Channel
	marked  int64 // offset of the last marker
	ended   bool
	failed  bool          // the disk is full: later output is lost
	changed chan struct{} // closed at the next change
}

func newLog(path string) (*Log, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &Log{f: f, changed: make(chan struct{})}, nil
}

// Write appends output of channel c. The command is never disturbed: output
// that does not fit on the disk is lost.
func (l *Log) Write(c Channel, p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed {
		return
	}
	for len(p) > 0 {
		n := min(len(p), remark)
		var b []byte
		if l.on != c || l.size-l.marked >= remark {
			b = append(b, c.marker()...)
		}
		marker := len(b) > 0
		b = append(b, p[:n]...)
		if _, err := l.f.WriteAt(b, l.size); err != nil {
			l.failed = true
			break
		}
		if marker {
			l.on, l.marked = c, l.size
		}
		l.size += int64(len(b))
		p = p[n:]
	}
	l.trimLocked()
	l.wakeLocked()
}

func (l *Log) trimLocked() {
	if l.size-l.base < keep+slack {
		return
	}
	const block = 4096
	from := l.base / block * block
	base := (l.size - keep) / block * block
	err := unix.Fallocate(int(l.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, base-from)
	if err == nil {
		l.base = l.firstMarker(base)
	} else if l.size > 4*keep {
		l.failed = true
	}
}

// firstMarker finds where the log can be read from once all before at is gone.
func (l *Log) firstMarker(at int64) int64 {
	b := make([]byte, 2*remark)
	n, _ := l.f.ReadAt(b, at)
	if i, _ := nextMarker(b[:n]); i >= 0 {
		return at + int64(i)
	}
	return at
}

func (l *Log) wakeLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// end tells readers that nothing more is waited for.
func (l *Log) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.ended = true
		l.wakeLocked()
	}
}

func (l *Log) close() {
	l.end()
	l.f.Close()
}

// Page is a part of a log.
type Page struct {
	Stream []byte  // with markers
	First  Channel // of the bytes before the first marker
	Offset int64   // of Stream
	Next   int64   // where to read on
}

// Read returns up to limit bytes from offset; a limit of 0 or beyond MaxRead
// is MaxRead. A negative offset counts from the end. An offset that was trimmed
// moves to what is left.
func (l *Log) Read(offset, limit int64) (Page, error) {
	l.mu.Lock()
	size, base, ended := l.size, l.base, l.ended
	l.mu.Unlock()
	if limit <= 0 || limit > MaxRead {
		limit = MaxRead
	}
	if offset < 0 {
		offset += size
	}
	offset = min(max(offset, base), size)
	p := Page{Offset: offset, First: l.channelAt(offset, base), Stream: make([]byte, min(limit, size-offset))}
	if _, err := l.f.ReadAt(p.Stream, offset); err != nil && err != io.EOF {
		return Page{}, err
	}
	if !ended || offset+int64(len(p.Stream)) < size {
		p.Stream = cut(p.Stream)
	}
	p.Next = offset + int64(len(p.Stream))
	return p, nil
}

// channelAt finds the channel that the byte at offset belongs to.
func (l *Log) channelAt(offset, base int64) Channel {
	from := max(base, offset-2*remark-markerLen)
	b := make([]byte, offset-from)
	if _, err := l.f.ReadAt(b, from); err != nil {
		return Stdout
	}
	if i, c := lastMarker(b); i >= 0 {
		return c
	}
	return Stdout
}

// Follow calls fn with the log from its start and then with what is added,
// until the command ends, ctx ends or fn fails.
func (l *Log) Follow(ctx context.Context, fn func([]byte) error) error {
	const step = 64 << 10
	var at int64
	for first := true; ; first = false {
		l.mu.Lock()
		changed, ended, size := l.changed, l.ended, l.size
		l.mu.Unlock()
		p, err := l.Read(at, step)
		if err != nil {
			return err
		}
		if len(p.Stream) > 0 {
			b := p.Stream
			if p.Offset != at || (first && p.First != Stdout) {
				b = append(p.First.marker(), b...)
			}
			if err := fn(b); err != nil {
				return err
			}
			at = p.Next
			continue
		}
		if ended && at >= size {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
