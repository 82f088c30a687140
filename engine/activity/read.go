package activity

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"path/filepath"
	"slices"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

func (l *Ledger) public() ed25519.PublicKey { return l.cfg.Key.Public().(ed25519.PublicKey) }

func noLedger(sandbox string) error {
	return engine.Errorf(engine.KindNotFound, "sandbox %.80q has no ledger", sandbox)
}

// Query returns records of one sandbox, with everything that happened before
// the call, but for a query that waits.
func (l *Ledger) Query(ctx context.Context, sandbox string, q engine.ActivityQuery) (engine.ActivityPage, error) {
	if err := check(&q); err != nil {
		return engine.ActivityPage{}, err
	}
	until := time.Now().Add(q.Wait)
	if f := l.settler.Load(); f != nil && q.Wait == 0 {
		(*f)(ctx, sandbox)
	}
	for {
		if err := l.settle(ctx); err != nil {
			return engine.ActivityPage{}, err
		}
		c, err := l.chain(sandbox, false)
		if err != nil {
			return engine.ActivityPage{}, err
		}
		if c == nil {
			return engine.ActivityPage{}, noLedger(sandbox)
		}
		page, changed, err := c.page(q)
		left := time.Until(until)
		if err != nil || len(page.Items) > 0 || left <= 0 {
			return page, err
		}
		q.After = max(q.After, page.Next)
		if !c.wait(ctx, changed, left) {
			return page, nil
		}
	}
}

// wait tells whether something was written before the time is over.
func (c *chain) wait(ctx context.Context, changed <-chan struct{}, left time.Duration) bool {
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-changed:
		return true
	case <-t.C:
	case <-ctx.Done():
	case <-c.ledger.done:
	}
	return false
}

func check(q *engine.ActivityQuery) error {
	if q.Limit == 0 {
		q.Limit = defLimit
	}
	if q.Limit < 0 || q.Limit > maxLimit {
		return engine.Errorf(engine.KindInvalid, "limit is %d", q.Limit).WithHint("use 1 to %d", maxLimit)
	}
	if q.Wait < 0 || q.Wait > maxWait {
		return engine.Errorf(engine.KindInvalid, "the wait is %s", q.Wait).WithHint("use at most %s", maxWait)
	}
	if !q.Until.IsZero() && q.Until.Before(q.Since) {
		return engine.Errorf(engine.KindInvalid, "until is before since")
	}
	for _, k := range q.Kinds {
		if !slices.Contains(engine.ActivityKinds(), k) {
			return engine.Errorf(engine.KindInvalid, "there is no kind %.40q of activity", string(k)).WithHint("kinds are %v", engine.ActivityKinds())
		}
	}
	return nil
}

func wanted(q engine.ActivityQuery, r *engine.ActivityRecord) bool {
	if len(q.Kinds) == 0 && r.Kind == engine.ActivitySegment || len(q.Kinds) > 0 && !slices.Contains(q.Kinds, r.Kind) {
		return false
	}
	return (q.Call == "" || r.Call == q.Call) && r.Sequence > q.After && !r.Time.Before(q.Since) && (q.Until.IsZero() || !r.Time.After(q.Until))
}

// page reads the files up to what is written now. The channel is closed when
// there is more.
func (c *chain) page(q engine.ActivityQuery) (engine.ActivityPage, <-chan struct{}, error) {
	c.ledger.keep.RLock()
	defer c.ledger.keep.RUnlock()
	c.mu.Lock()
	end, changed := c.written.Sequence, c.changed
	c.mu.Unlock()
	page := engine.ActivityPage{Items: []engine.ActivityRecord{}, Next: q.After}
	if end <= q.After {
		return page, changed, nil
	}
	names, err := segments(c.dir)
	if err != nil {
		return page, changed, err
	}
	for i, name := range names {
		if i+1 < len(names) {
			if next, _ := firstOf(names[i+1]); next <= q.After+1 {
				continue
			}
		}
		err := lines(filepath.Join(c.dir, name), func(_ int, text []byte) bool { return take(&page, q, text, end) })
		if err != nil || page.More && !q.Newest {
			return page, changed, err
		}
	}
	return page, changed, nil
}

// take puts a line into the page if it is wanted, and tells whether to go on.
func take(page *engine.ActivityPage, q engine.ActivityQuery, text []byte, end uint64) bool {
	var r engine.ActivityRecord
	if json.Unmarshal(text, &r) != nil || r.Sequence > end {
		return false
	}
	if r.Sequence <= q.After {
		return true
	}
	if wanted(q, &r) {
		if len(page.Items) == q.Limit {
			page.More = true
			if !q.Newest {
				return false
			}
			page.Items = slices.Delete(page.Items, 0, 1)
		}
		page.Items = append(page.Items, r)
	}
	page.Next = r.Sequence
	return true
}

// Verify reads a sandbox's whole ledger and follows its chain to the signed
// head. The first fault is told.
func (l *Ledger) Verify(ctx context.Context, sandbox string, known *engine.ActivityHead) (engine.ActivityProof, error) {
	if err := l.settle(ctx); err != nil {
		return engine.ActivityProof{}, err
	}
	c, err := l.chain(sandbox, false)
	if err != nil {
		return engine.ActivityProof{}, err
	}
	if c == nil {
		return engine.ActivityProof{}, noLedger(sandbox)
	}
	l.keep.RLock()
	defer l.keep.RUnlock()
	c.mu.Lock()
	disk, diskErr := readHead(c.headPath, l.public())
	signed := c.signed
	err = c.syncLocked()
	end := c.written
	c.mu.Unlock()
	if err != nil {
		return engine.ActivityProof{}, err
	}
	v := &verifier{end: end, known: known, sequence: end.First, hash: end.Base, proof: engine.ActivityProof{
		Sandbox: sandbox, First: end.First, Head: engine.ActivityHead{Sequence: end.Sequence, Hash: end.Hash},
		SignedAt: end.Time, PublicKey: base64.StdEncoding.EncodeToString(l.public()),
	}}
	switch {
	case signed > 0 && diskErr != nil:
		v.fault(signed, "", 0, "the signed head is gone or changed")
	case signed > 0 && disk.Sequence != signed:
		v.fault(disk.Sequence+1, "", 0, "the signed head was put back")
	}
	return v.proof, v.run(ctx, c.dir)
}

// verifier follows a chain.
type verifier struct {
	end      head
	known    *engine.ActivityHead
	proof    engine.ActivityProof
	sequence uint64 // expected next
	hash     string // of the record before
	met      bool   // the known head
}

func (v *verifier) fault(sequence uint64, segment string, n int, problem string) {
	if v.proof.Fault == nil {
		v.proof.Fault = &engine.ActivityFault{Sequence: sequence, Segment: segment, Line: n, Problem: problem}
	}
}

func (v *verifier) run(ctx context.Context, dir string) error {
	names, err := segments(dir)
	if err != nil {
		return err
	}
	for i, name := range names {
		if i+1 < len(names) {
			if next, _ := firstOf(names[i+1]); next <= v.end.First {
				continue // was to be dropped
			}
		}
		if ctx.Err() != nil {
			return engine.AsError(ctx.Err())
		}
		if first, _ := firstOf(name); first > v.end.Sequence {
			break // written meanwhile
		}
		err := lines(filepath.Join(dir, name), func(n int, text []byte) bool { return v.step(name, n, text) })
		if err != nil {
			v.fault(v.sequence, name, 0, "the file cannot be read: "+err.Error())
		}
		if v.proof.Fault != nil {
			return nil
		}
	}
	switch {
	case v.sequence <= v.end.Sequence:
		v.fault(v.sequence, "", 0, "the ledger was cut: its end is missing")
	case v.hash != v.end.Hash:
		v.fault(v.end.Sequence, "", 0, "the last record was changed")
	case v.known != nil && !v.met && v.known.Sequence >= v.end.First:
		v.fault(v.known.Sequence, "", 0, "the head that is known from before is not in the ledger: it was put back or written anew")
	}
	return nil
}

// step judges one line and tells whether to go on.
func (v *verifier) step(name string, n int, text []byte) bool {
	if v.sequence > v.end.Sequence {
		return false
	}
	var e line
	if json.Unmarshal(text, &e) != nil {
		v.fault(v.sequence, name, n, "the record was changed: it is none")
		return false
	}
	switch {
	case e.Sequence > v.sequence:
		v.fault(v.sequence, name, n, "records are missing or out of order")
	case e.Sequence < v.sequence:
		v.fault(v.sequence, name, n, "records are out of order or repeated")
	case e.Previous != v.hash && v.sequence == v.end.First:
		v.fault(v.sequence, name, n, "the first record does not follow what was there before")
	case e.Previous != v.hash:
		v.fault(v.sequence-1, name, n-1, "the record was changed")
	}
	if v.proof.Fault != nil {
		return false
	}
	v.hash = hashOf(text)
	if v.known != nil && v.known.Sequence == e.Sequence {
		v.met = v.known.Hash == v.hash
	}
	v.proof.Records++
	switch e.Kind {
	case engine.ActivityGap:
		v.proof.Gaps++
	case engine.ActivityLoss:
		v.proof.Lost += e.Lost
	}
	v.sequence++
	return true
}
