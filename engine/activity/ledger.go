// Package activity keeps the ledger: what every sandbox did, in files that are
// only appended to. Each record holds the hash of the one before it, and the
// last hash is signed, so that a change, a removal or a cut shows.
//
// Recording never waits: what does not fit the queue is counted, and the count
// becomes a record itself. Records are in the page cache within milliseconds
// and on the disk, with a fresh signature, within a second.
package activity

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// Bounds of the ledger.
const (
	queueLength = 8192
	queueShare  = queueLength / 4 // of one sandbox, so that a busy one does not lose the others' records
	batchLength = 512
	syncEvery   = time.Second
	purgeEvery  = 10 * time.Minute
	maxText     = 1 << 10 // bytes of one field
	maxList     = 16
	maxWait     = 30 * time.Second
	maxLimit    = 1000
	defLimit    = 100
)

// Config is what a ledger needs. Dir and Key are required; zero means the
// default that is named.
type Config struct {
	Dir          string
	Key          ed25519.PrivateKey // signs the heads
	SegmentBytes int64              // 8 MiB
	KeepBytes    int64              // of one sandbox; 64 MiB
	Keep         time.Duration      // 30 days
	Now          func() time.Time
	Log          *slog.Logger
}

// Ledger is the chains of all sandboxes of this host.
type Ledger struct {
	cfg   Config
	since time.Time // when it was opened
	alive time.Time // when the server before this one was last known to run; may be zero
	queue chan item
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once

	// settler waits until all that happened to a sandbox so far was recorded.
	settler atomic.Pointer[func(ctx context.Context, sandbox string)]

	mu      sync.Mutex
	chains  map[string]*chain
	lost    map[string]uint64 // did not fit the queue, by sandbox
	waiting map[string]int    // in the queue, by sandbox

	loading sync.Mutex   // one chain is loaded at a time
	keep    sync.RWMutex // read: files are read; write: old ones are dropped
}

// item is a record, or a wish to know when all before it are written.
type item struct {
	record  engine.ActivityRecord
	barrier chan struct{}
}

// Source tells of what happens in sandboxes, as seen by the kernel.
type Source interface {
	// Run tells until ctx ends. Every record names its sandbox.
	Run(ctx context.Context, record func(engine.ActivityRecord)) error
}

// Open begins to record. Close ends it.
func Open(c Config) (*Ledger, error) {
	if c.SegmentBytes <= 0 {
		c.SegmentBytes = 8 << 20
	}
	if c.KeepBytes <= 0 {
		c.KeepBytes = 64 << 20
	}
	if c.Keep <= 0 {
		c.Keep = 30 * 24 * time.Hour
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if len(c.Key) != ed25519.PrivateKeySize {
		return nil, errors.New("the ledger needs a key")
	}
	if err := os.MkdirAll(filepath.Join(c.Dir, headsDir), 0o700); err != nil {
		return nil, err
	}
	l := &Ledger{
		cfg: c, since: c.Now().UTC(), queue: make(chan item, queueLength), stop: make(chan struct{}), done: make(chan struct{}),
		chains: map[string]*chain{}, lost: map[string]uint64{}, waiting: map[string]int{},
	}
	if st, err := os.Stat(l.alivePath()); err == nil {
		l.alive = st.ModTime().UTC()
	}
	if err := l.touch(); err != nil {
		return nil, err
	}
	go l.run()
	return l, nil
}

// SettleBy names what waits until all that happened to a sandbox so far was
// recorded: the kernel tells of things a little later than they happen.
func (l *Ledger) SettleBy(f func(ctx context.Context, sandbox string)) { l.settler.Store(&f) }

// Alive is when the server before this one was last known to run; zero when
// there was none.
func (l *Ledger) Alive() time.Time { return l.alive }

// Close writes and signs what is queued. Later records are lost.
func (l *Ledger) Close() {
	l.once.Do(func() { close(l.stop) })
	<-l.done
}

// Record queues a record. It never waits and never fails; what cannot be kept
// is counted. The caller sets all but Sequence; without a time it is now.
func (l *Ledger) Record(r engine.ActivityRecord) {
	if !validID(r.Sandbox) {
		return
	}
	if r.Time.IsZero() {
		r.Time = l.cfg.Now().UTC()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting[r.Sandbox] < queueShare {
		select {
		case l.queue <- item{record: r}:
			l.waiting[r.Sandbox]++
			return
		default:
		}
	}
	l.lost[r.Sandbox]++
}

// taken notes that a sandbox's record left the queue.
func (l *Ledger) taken(sandbox string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting[sandbox]--; l.waiting[sandbox] == 0 {
		delete(l.waiting, sandbox)
	}
}

var ids = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$`)

func validID(id string) bool { return ids.MatchString(id) && id != headsDir }

func (l *Ledger) alivePath() string { return filepath.Join(l.cfg.Dir, headsDir, ".alive") }

// touch notes that the server runs.
func (l *Ledger) touch() error {
	f, err := os.OpenFile(l.alivePath(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	now := l.cfg.Now()
	return errors.Join(f.Close(), os.Chtimes(l.alivePath(), now, now))
}

func (l *Ledger) run() {
	defer close(l.done)
	tick, purge := time.NewTicker(syncEvery), time.NewTicker(purgeEvery)
	defer tick.Stop()
	defer purge.Stop()
	for {
		select {
		case it := <-l.queue:
			l.write(l.more(it))
		case <-tick.C:
			l.sync()
		case <-purge.C:
			l.purge()
		case <-l.stop:
			for len(l.queue) > 0 {
				l.write(l.more(<-l.queue))
			}
			l.sync()
			return
		}
	}
}

// more takes what is queued behind an item.
func (l *Ledger) more(first item) []item {
	batch := []item{first}
	for len(batch) < batchLength {
		select {
		case it := <-l.queue:
			batch = append(batch, it)
		default:
			return batch
		}
	}
	return batch
}

func (l *Ledger) write(batch []item) {
	touched := map[*chain]bool{}
	for _, it := range batch {
		if it.barrier != nil {
			continue
		}
		l.taken(it.record.Sandbox)
		c, err := l.chain(it.record.Sandbox, true)
		if err != nil {
			l.cfg.Log.Error("activity lost", "sandbox", it.record.Sandbox, "err", err)
			l.mu.Lock()
			l.lost[it.record.Sandbox]++
			l.mu.Unlock()
			continue
		}
		touched[c] = true
		c.mu.Lock()
		l.lossesLocked(c)
		c.appendLocked(bound(it.record))
		c.mu.Unlock()
	}
	for c := range touched {
		c.flush()
		if c.rotated() {
			if err := l.purgeOne(c.sandbox); err != nil {
				l.cfg.Log.Error("old activity not dropped", "sandbox", c.sandbox, "err", err)
			}
		}
	}
	for _, it := range batch {
		if it.barrier != nil {
			close(it.barrier)
		}
	}
}

// lossesLocked records how much did not fit the queue.
func (l *Ledger) lossesLocked(c *chain) {
	l.mu.Lock()
	n := l.lost[c.sandbox]
	delete(l.lost, c.sandbox)
	l.mu.Unlock()
	if n += c.lost; n > 0 {
		c.lost = 0
		c.appendLocked(engine.ActivityRecord{
			Time: l.cfg.Now().UTC(), Kind: engine.ActivityLoss, Lost: n, Reason: "more happened than could be written",
		})
	}
}

// bound cuts what somebody else chose the length of.
func bound(r engine.ActivityRecord) engine.ActivityRecord {
	for _, s := range []*string{&r.Call, &r.Process, &r.Parent, &r.Program, &r.Operation, &r.Detail, &r.Host, &r.Rule, &r.Reason, &r.Actor, &r.Key} {
		if len(*s) > maxText {
			*s, r.Cut = (*s)[:maxText]+"…", true
		}
	}
	if len(r.Addresses) > maxList {
		r.Addresses = r.Addresses[:maxList]
	}
	return r
}

// sync brings what was written to the disk and signs it.
func (l *Ledger) sync() {
	for _, c := range l.loaded() {
		c.mu.Lock()
		l.lossesLocked(c)
		err := c.syncLocked()
		c.mu.Unlock()
		if err != nil {
			l.cfg.Log.Error("the ledger is not on the disk", "sandbox", c.sandbox, "err", err)
		}
	}
	if err := l.touch(); err != nil {
		l.cfg.Log.Error("the ledger is not on the disk", "err", err)
	}
}

func (l *Ledger) loaded() []*chain {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Values(l.chains))
}

// chain returns a sandbox's chain; an absent one is made, or is nil.
func (l *Ledger) chain(sandbox string, make bool) (*chain, error) {
	l.mu.Lock()
	c := l.chains[sandbox]
	l.mu.Unlock()
	if c != nil {
		return c, nil
	}
	if !validID(sandbox) {
		return nil, nil
	}
	l.loading.Lock()
	defer l.loading.Unlock()
	l.mu.Lock()
	c = l.chains[sandbox]
	l.mu.Unlock()
	if c != nil { // a reader and the writer met
		return c, nil
	}
	c, err := l.load(sandbox)
	if err != nil || c == nil && !make {
		return nil, err
	}
	if c == nil {
		c = l.newChain(sandbox)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.chains[sandbox] = c
	return c, nil
}

// settle waits until all that was recorded before is written.
func (l *Ledger) settle(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case l.queue <- item{barrier: done}:
	case <-l.done:
		return nil
	case <-ctx.Done():
		return engine.AsError(ctx.Err())
	}
	select {
	case <-done:
		return nil
	case <-l.done:
		return nil
	case <-ctx.Done():
		return engine.AsError(ctx.Err())
	}
}

// Owner returns the organization of a sandbox that may be deleted; empty when
// it has no ledger.
func (l *Ledger) Owner(sandbox string) string {
	c, err := l.chain(sandbox, false)
	if err != nil || c == nil {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.head.Organization
}
