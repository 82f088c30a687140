package activity

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/atoll-sh/atoll/engine"
)

// chain is the ledger of one sandbox.
type chain struct {
	ledger        *Ledger
	sandbox       string
	dir, headPath string

	mu      sync.Mutex
	head    head   // with everything that was appended
	written head   // with everything that is in the files
	signed  uint64 // sequence of the head on the disk
	marked  bool   // the head on the disk says what this one does, but for the sequence
	buf     []byte // appended, not in the file
	count   uint64 // of records in buf
	file    *os.File
	segment string // name of the current file; empty: the next record begins one
	size    int64  // of the current file
	lost    uint64 // could not be written
	turned  bool   // a new file was begun
	changed chan struct{}
}

// line is a record as it stands in the file.
type line struct {
	Previous string `json:"prev"` // hash of the line before
	engine.ActivityRecord
}

func (l *Ledger) newChain(sandbox string) *chain {
	return &chain{
		ledger: l, sandbox: sandbox, dir: filepath.Join(l.cfg.Dir, sandbox), headPath: filepath.Join(l.cfg.Dir, headsDir, sandbox),
		head: head{Sandbox: sandbox, First: 1}, written: head{Sandbox: sandbox, First: 1}, changed: make(chan struct{}),
	}
}

func hashOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func segmentName(first uint64) string { return fmt.Sprintf("%020d.jsonl", first) }

// appendLocked puts a record at the end, in memory. A new incarnation and a
// full file begin another file.
func (c *chain) appendLocked(r engine.ActivityRecord) {
	if r.Incarnation > c.head.Incarnation {
		c.head.Incarnation = r.Incarnation
		c.beginLocked()
	} else if c.segment == "" || c.size+int64(len(c.buf)) >= c.ledger.cfg.SegmentBytes {
		c.beginLocked()
	}
	if r.Incarnation == 0 {
		r.Incarnation = c.head.Incarnation
	}
	if r.Kind == engine.ActivityLifecycle {
		c.head.State = r.Operation
		if r.Organization != "" {
			c.head.Organization = r.Organization
		}
	}
	c.putLocked(r)
}

// beginLocked ends the current file and names the next, whose first record
// says what it is.
func (c *chain) beginLocked() {
	if err := errors.Join(c.flushLocked(), c.syncLocked()); err != nil {
		c.ledger.cfg.Log.Error("end a file of the ledger", "sandbox", c.sandbox, "err", err)
	}
	c.segment, c.size, c.turned = segmentName(c.head.Sequence+1), 0, true
	c.putLocked(engine.ActivityRecord{Time: c.ledger.cfg.Now().UTC(), Kind: engine.ActivitySegment, Incarnation: c.head.Incarnation})
}

func (c *chain) putLocked(r engine.ActivityRecord) {
	r.Sequence, r.Sandbox = c.head.Sequence+1, c.sandbox
	text, err := json.Marshal(line{c.head.Hash, r})
	if err != nil { // plain values always encode, but for impossible times
		c.lost++
		return
	}
	c.head.Sequence, c.head.Hash = r.Sequence, hashOf(text)
	c.buf = append(append(c.buf, text...), '\n')
	c.count++
}

// rotated tells once whether a new file was begun.
func (c *chain) rotated() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	turned := c.turned
	c.turned = false
	return turned
}

func (c *chain) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.flushLocked(); err != nil {
		c.ledger.cfg.Log.Error("activity lost", "sandbox", c.sandbox, "err", err)
	}
}

// flushLocked writes what was appended. What cannot be written is lost, and
// the chain goes on from what is in the files.
func (c *chain) flushLocked() error {
	if len(c.buf) == 0 {
		return nil
	}
	err := c.openLocked()
	if err == nil {
		var n int
		if n, err = c.file.Write(c.buf); err != nil && n > 0 {
			err = errors.Join(err, c.file.Truncate(c.size))
		}
	}
	if err != nil {
		c.lost += c.count
		segment := c.segment
		c.head, c.buf, c.count = c.written, nil, 0
		if c.size == 0 && segment != "" {
			c.segment = "" // the next record begins it again
		}
		return err
	}
	c.size += int64(len(c.buf))
	c.written, c.buf, c.count = c.head, c.buf[:0], 0
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

func (c *chain) openLocked() error {
	if c.file != nil {
		return nil
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(c.dir, c.segment), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	c.file = f
	return err
}

// syncLocked brings what was written to the disk, then signs the head. The
// file is closed: most sandboxes are silent most of the time.
func (c *chain) syncLocked() error {
	err := c.flushLocked()
	if c.file != nil {
		err = errors.Join(err, c.file.Sync(), c.file.Close())
		c.file = nil
	}
	if err != nil || c.written.Sequence == c.signed && c.marked {
		return err
	}
	return c.signLocked()
}

func (c *chain) signLocked() error {
	h := c.written
	h.Time, h.Count = c.ledger.cfg.Now().UTC(), c.head.Count+1
	if err := writeHead(c.headPath, h, c.ledger.cfg.Key); err != nil {
		return err
	}
	c.head.Count, c.head.Time = h.Count, h.Time
	c.written.Count, c.written.Time = h.Count, h.Time
	c.signed, c.marked = h.Sequence, true
	return nil
}
