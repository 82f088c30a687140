package egress

import (
	"strings"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// Bounds of what is told of things that a sandbox can repeat as it likes.
const (
	foldFor  = 10 * time.Second // for which alike records are one
	maxFolds = 64               // different ones of a sandbox in that time
)

// folder lets the first of alike records pass and counts the others, so that
// whoever repeats something fills no ledger.
type folder struct {
	mu    sync.Mutex
	boxes map[uint32]*box // by number of the sandbox
}

// box is what a sandbox repeats.
type box struct {
	holding Holding
	folds   map[foldKey]*fold
	beyond  uint64 // records of more kinds than are kept
}

type foldKey struct {
	kind                                                     engine.ActivityKind
	operation, detail, host, remote, addresses, rule, reason string
}

type fold struct {
	since time.Time
	last  engine.ActivityRecord
	more  uint64 // not told yet
}

func newFolder() *folder { return &folder{boxes: map[uint32]*box{}} }

// take tells whether a record is the first of its like and must be told.
func (d *folder) take(h Holding, r engine.ActivityRecord, now time.Time) bool {
	k := foldKey{r.Kind, r.Operation, r.Detail, r.Host, r.Remote, strings.Join(r.Addresses, " "), r.Rule, r.Reason}
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.boxes[h.Number]
	if b == nil {
		b = &box{holding: h, folds: map[foldKey]*fold{}}
		d.boxes[h.Number] = b
	}
	if f := b.folds[k]; f != nil {
		f.more++
		f.last = r
		f.last.Time = now.UTC()
		return false
	}
	if len(b.folds) >= maxFolds {
		b.beyond++
		return false
	}
	b.folds[k] = &fold{since: now}
	return true
}

// due tells what was counted long enough, and forgets what did not repeat.
func (d *folder) due(now time.Time, tell teller) {
	d.flush(tell, func(_ uint32, f *fold) bool { return now.Sub(f.since) >= foldFor })
}

// end tells all that was counted of one sandbox, which is no more.
func (d *folder) end(number uint32, tell teller) {
	d.flush(tell, func(n uint32, _ *fold) bool { return n == number })
}

// all tells all that was counted.
func (d *folder) all(tell teller) { d.flush(tell, func(uint32, *fold) bool { return true }) }

func (d *folder) flush(tell teller, ripe func(number uint32, f *fold) bool) {
	type entry struct {
		h Holding
		r engine.ActivityRecord
	}
	var out []entry
	d.mu.Lock()
	for number, b := range d.boxes {
		before := len(b.folds)
		for k, f := range b.folds {
			if !ripe(number, f) {
				continue
			}
			delete(b.folds, k)
			if f.more > 0 {
				f.last.Count = f.more
				out = append(out, entry{b.holding, f.last})
			}
		}
		if b.beyond > 0 && len(b.folds) < before {
			out = append(out, entry{b.holding, engine.ActivityRecord{Kind: engine.ActivityLoss, Lost: b.beyond, Reason: "more different things than are told one by one"}})
			b.beyond = 0
		}
		if len(b.folds) == 0 {
			delete(d.boxes, number)
		}
	}
	d.mu.Unlock()
	for _, e := range out {
		tell(e.h, e.r)
	}
}
