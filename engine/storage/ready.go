package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// readyList holds the directories of disks that are mounted and have no id.
type readyList struct {
	wanted map[int64]int // by size in bytes; never changes
	wake   chan struct{} // tells the filler that a disk was claimed

	mu   sync.Mutex
	dirs map[int64][]string
}

func newReadyList(wanted map[int64]int) (*readyList, error) {
	l := &readyList{wanted: map[int64]int{}, wake: make(chan struct{}, 1), dirs: map[int64][]string{}}
	for size, n := range wanted {
		size, err := roundSize(size)
		if err != nil {
			return nil, err
		}
		l.wanted[size] = max(l.wanted[size], n)
	}
	return l, nil
}

// claim renames a ready disk of the size to dir; false when there is none.
// The mount moves along, because it hangs on a directory below.
func (l *readyList) claim(size int64, dir string) bool {
	defer l.poke()
	for {
		from := l.pop(size)
		if from == "" {
			return false
		}
		if os.Rename(from, dir) == nil {
			return true
		}
	}
}

func (l *readyList) pop(size int64) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.dirs[size])
	if n == 0 {
		return ""
	}
	dir := l.dirs[size][n-1]
	l.dirs[size] = l.dirs[size][:n-1]
	return dir
}

// add takes a disk in, unless enough are there.
func (l *readyList) add(size int64, dir string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.dirs[size]) >= l.wanted[size] {
		return false
	}
	l.dirs[size] = append(l.dirs[size], dir)
	return true
}

// missing returns a size of which too few are ready; 0 when all is well. Of
// several it is the one with the fewest, so that a burst empties none.
func (l *readyList) missing() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	least := int64(0)
	for size, n := range l.wanted {
		have := len(l.dirs[size])
		if have < n && (least == 0 || have < len(l.dirs[least])) {
			least = size
		}
	}
	return least
}

// poke wakes the filler without waiting for it.
func (l *readyList) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (p *Pool) startFilling() {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	p.wg.Go(func() { p.keepFilled(ctx) })
}

// refillPause keeps the making of disks out of the way of what took one.
const refillPause = 250 * time.Millisecond

// keepFilled makes ready disks until ctx ends, with growing pauses while it
// cannot.
func (p *Pool) keepFilled(ctx context.Context) {
	const shortest, longest = time.Second, time.Minute
	pause := shortest
	for {
		var retry <-chan time.Time
		if err := p.fill(ctx); err != nil && ctx.Err() == nil {
			p.log.Warn("cannot make disks ahead of demand", "error", err, "retry", pause)
			retry = time.After(pause)
			pause = min(2*pause, longest)
		} else {
			pause = shortest
		}
		select {
		case <-ctx.Done():
			return
		case <-retry:
		case <-p.ready.wake:
			// The sandbox that has just taken one is about to start.
			select {
			case <-ctx.Done():
				return
			case <-time.After(refillPause):
			}
		}
	}
}

// fill makes the disks that are missing. It also makes durable which disks
// were claimed, so that Create need not wait for the device.
func (p *Pool) fill(ctx context.Context) error {
	if err := syncPath(filepath.Join(p.dir, "disks")); err != nil {
		return err
	}
	for ctx.Err() == nil {
		size := p.ready.missing()
		if size == 0 {
			return nil
		}
		if err := p.checkRoom(); err != nil {
			return err
		}
		if err := p.makeReady(ctx, size); err != nil {
			return fmt.Errorf("make a ready disk of %d MiB: %w", size/mib, full(err))
		}
	}
	return ctx.Err()
}

// makeReady builds one disk; the directory it is renamed to has a new name.
func (p *Pool) makeReady(ctx context.Context, size int64) error {
	dir := filepath.Join(p.dir, "ready", strconv.FormatInt(size, 10)+"-"+rand.Text())
	if err := p.build(dir, func(image string) error { return p.fromTemplate(ctx, image, size) }); err != nil {
		return err
	}
	// The first directory made on a fresh mount waits for the disk; later ones
	// find the tables in memory.
	if _, err := freshWork(filepath.Join(dir, "mnt")); err != nil {
		return errors.Join(err, p.discard(dir))
	}
	if !p.ready.add(size, dir) {
		return p.discard(dir)
	}
	return nil
}

// adopt sorts out what a killed process left: it empties tmp, thaws disks that
// were being saved, and takes over ready disks that are still mounted.
func (p *Pool) adopt() error {
	for _, step := range []struct {
		sub string
		do  func(dir string) error
	}{{"tmp", p.discard}, {"disks", p.adoptDisk}, {"ready", p.adoptReady}} {
		found, err := os.ReadDir(filepath.Join(p.dir, step.sub))
		if err != nil {
			return err
		}
		for _, e := range found {
			if err := step.do(filepath.Join(p.dir, step.sub, e.Name())); err != nil {
				return fmt.Errorf("adopt %s/%s: %w", step.sub, e.Name(), err)
			}
		}
	}
	return nil
}

func (p *Pool) adoptDisk(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "disk.img")); os.IsNotExist(err) {
		return p.discard(dir) // the power failed before the image was written
	}
	return thawIfMounted(filepath.Join(dir, "mnt"))
}

// adoptReady keeps a ready disk only when it is mounted: after a reboot a new
// one costs no more than this one's mount.
func (p *Pool) adoptReady(dir string) error {
	text, _, _ := strings.Cut(filepath.Base(dir), "-")
	size, err := strconv.ParseInt(text, 10, 64)
	mounted, mountErr := isMounted(filepath.Join(dir, "mnt"))
	if err == nil && mountErr == nil && mounted && p.ready.add(size, dir) {
		return nil
	}
	return p.discard(dir)
}

func thawIfMounted(mnt string) error {
	mounted, err := isMounted(mnt)
	if err != nil || !mounted {
		return err
	}
	return thaw(mnt)
}
