package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

// Config says where the pool lives.
type Config struct {
	Home string
	// Size is how large the pool file may become; 0 is 80 % of what is free
	// when it is made. A later Open with a larger Size grows the pool; it
	// never shrinks. Unused when Home itself has reflinks.
	Size int64
	// Ready maps disk sizes in bytes to how many formatted and mounted disks
	// of that size are kept waiting for Create.
	Ready map[int64]int
	Log   *slog.Logger // nil: none
}

// Capabilities is what the pool can do on this host, found out by trying.
type Capabilities struct {
	Reflink   bool   // Save and Clone take the same time whatever the disk holds
	HardLimit bool   // a sandbox cannot write past its disk's size
	Kind      string // xfs-loop; xfs, btrfs or reflink when Home has reflinks; copy when nothing has
	Detail    string // for people
}

// Pool holds disks. All methods may be called at the same time; those that
// name the same disk wait for each other.
type Pool struct {
	home, dir string
	log       *slog.Logger
	caps      Capabilities
	lock      *os.File // held while the pool is open
	users     *userns
	names     keyed
	ready     *readyList

	closeOnce sync.Once
	closeErr  error
	cancel    context.CancelFunc
	wg        sync.WaitGroup
}

// Open makes or finds the pool, sorts out what a killed process left behind,
// and starts to fill the list of ready disks. Only one process may hold a pool
// open; a second Open is a conflict.
func Open(ctx context.Context, c Config) (*Pool, error) {
	log := c.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	home, err := prepareHome(c.Home)
	if err != nil {
		return nil, err
	}
	lock, err := lockHome(ctx, home)
	if err != nil {
		return nil, err
	}
	p := &Pool{home: home, dir: filepath.Join(home, "pool"), log: log, lock: lock, users: newUserns()}
	if p.ready, err = newReadyList(c.Ready); err == nil {
		err = p.open(ctx, c.Size)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	p.startFilling()
	return p, nil
}

func (p *Pool) open(ctx context.Context, size int64) error {
	caps, err := openBacking(ctx, p.home, p.dir, size)
	if err != nil {
		return fmt.Errorf("open storage pool: %w", err)
	}
	p.caps = caps
	if !caps.Reflink {
		p.log.Warn("storage pool has no reflinks: saving and forking disks copies all their data", "detail", caps.Detail)
	}
	for _, sub := range []string{"templates", "disks", "ready", "saved", "tmp"} {
		if err := os.MkdirAll(filepath.Join(p.dir, sub), 0o700); err != nil {
			return err
		}
	}
	return p.adopt()
}

// prepareHome makes the home directory and returns its path without symbolic
// links, as the kernel reports the backing files of loop devices.
func prepareHome(home string) (string, error) {
	home, err := filepath.Abs(home)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(home, 0o755); err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(home)
}

// lockHome takes the lock that the kernel gives back when the process dies. It
// waits a moment, because a child that a killed process was just starting
// holds the lock until it runs its own program.
func lockHome(ctx context.Context, home string) (*os.File, error) {
	const attempts, pause = 100, 10 * time.Millisecond
	f, err := os.OpenFile(filepath.Join(home, "pool.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for range attempts {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || ctx.Err() != nil {
			break
		}
		time.Sleep(pause)
	}
	if err != nil {
		f.Close()
		return nil, engine.Errorf(engine.KindConflict, "another process has the storage pool open").
			WithHint("stop the other server, or give this one its own home directory").Wrap(err)
	}
	return f, nil
}

// Capabilities tells what was found or chosen when the pool was opened.
func (p *Pool) Capabilities() Capabilities { return p.caps }

// Close stops the background work and lets another process open the pool.
// Disks stay mounted, because sandboxes outlive the server.
func (p *Pool) Close() error {
	p.closeOnce.Do(func() {
		p.cancel()
		p.wg.Wait()
		p.closeErr = errors.Join(p.users.close(), p.lock.Close())
	})
	return p.closeErr
}

// Destroy closes the pool, unmounts all its disks and the pool itself, and
// waits until their loop devices are free. The data stays. Roots should be
// unmounted before: what one, or another mount namespace, holds disappears
// from the host and is a conflict; it ends with its holder, and an Open before
// that finds it.
func (p *Pool) Destroy(ctx context.Context) error {
	if mounted, err := isMounted(p.dir); err != nil || !mounted && p.caps.Kind == "xfs-loop" {
		return errors.Join(p.Close(), err)
	}
	errs := []error{p.Close()}
	points := p.mountPoints()
	for _, mnt := range points {
		errs = append(errs, thawIfMounted(mnt), unmountAll(mnt, true))
	}
	for _, mnt := range points {
		errs = append(errs, awaitDetached(ctx, filepath.Join(filepath.Dir(mnt), "disk.img")))
	}
	errs = append(errs, closeBacking(ctx, p.home, p.dir))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("unmount storage pool: %w", busy(err))
	}
	return nil
}

// mountPoints lists where disks may be mounted.
func (p *Pool) mountPoints() []string {
	var all []string
	for _, sub := range []string{"disks", "ready", "tmp"} {
		found, err := filepath.Glob(filepath.Join(globEscape(p.dir), sub, "*", "mnt"))
		if err == nil { // the pattern is escaped, so it always is
			all = append(all, found...)
		}
	}
	return all
}

// busy turns the kernel's EBUSY into an error for people.
func busy(err error) error {
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	return engine.Errorf(engine.KindConflict, "a disk is in use").
		WithHint("stop the sandbox that uses it and try again").Wrap(err)
}

var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

func checkID(what, id string) error {
	if !validID.MatchString(id) {
		return engine.Errorf(engine.KindInvalid, "%q is no valid %s id", id, what).
			WithHint("use letters, digits, '_', '.' and '-'")
	}
	return nil
}

var globMeta = regexp.MustCompile(`[*?\[\\]`)

// globEscape makes a path match only itself in filepath.Glob.
func globEscape(path string) string { return globMeta.ReplaceAllString(path, `\$0`) }

// keyed is a set of mutexes by name. The zero value is ready for use.
type keyed struct {
	mu    sync.Mutex
	locks map[string]*keyLock
}

type keyLock struct {
	sync.Mutex
	users int
}

// lock waits for the name and returns the function that gives it back.
func (k *keyed) lock(name string) (unlock func()) {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = map[string]*keyLock{}
	}
	l := k.locks[name]
	if l == nil {
		l = &keyLock{}
		k.locks[name] = l
	}
	l.users++
	k.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.locks, name)
		}
	}
}
