package activity

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/atoll-sh/atoll/engine"
)

// maxLine bounds a record in a file; the writer's are far below.
const maxLine = 64 << 10

// The lifecycle operations that the ledger itself looks at.
const (
	stateStopped = "stopped"
	stateDeleted = "deleted"
)

// load adopts what a server before this one wrote. It returns nil when there
// is nothing. Whatever is wrong stays where it is, for Verify to find: the
// chain goes on after the signed head.
func (l *Ledger) load(sandbox string) (*chain, error) {
	c := l.newChain(sandbox)
	h, err := readHead(c.headPath, l.public())
	names, listErr := segments(c.dir)
	switch {
	case listErr != nil:
		return nil, listErr
	case missing(err) && len(names) == 0:
		return nil, nil
	case missing(err), errors.Is(err, errUnsigned):
		return c, c.startOver(err, names)
	case err != nil:
		return nil, err
	}
	c.head, c.written, c.signed, c.marked = h, h, h.Sequence, true
	if err := c.adopt(names); err != nil {
		return nil, err
	}
	return c, nil
}

// startOver sets a ledger aside that has no good head, and says so in the new
// one.
func (c *chain) startOver(why error, names []string) error {
	if missing(why) {
		why = errors.New("the head is gone")
		if len(names) == 1 { // the server died before it signed the first
			return c.adopt(names)
		}
	}
	now := c.ledger.cfg.Now().UTC()
	suffix := ".aside-" + strconv.FormatInt(now.UnixNano(), 36)
	if len(names) > 0 {
		if err := os.Rename(c.dir, c.dir+suffix); err != nil {
			return err
		}
	}
	if err := os.Rename(c.headPath, c.headPath+suffix); err != nil && !missing(err) {
		return err
	}
	c.gap("the ledger before was put aside: " + why.Error())
	return nil
}

// adopt continues the last file if it reaches the head.
func (c *chain) adopt(names []string) error {
	why := "the server was down"
	if len(names) > 0 {
		last := names[len(names)-1]
		t, err := scanTail(filepath.Join(c.dir, last), c.head)
		if err != nil {
			return err
		}
		switch {
		case !t.sound:
			why = "the files do not reach the signed head"
			if last == segmentName(c.head.Sequence+1) { // its name is needed
				if err := os.Rename(filepath.Join(c.dir, last), filepath.Join(c.dir, last+".aside")); err != nil {
					return err
				}
			}
		default:
			if n := t.end.Sequence - c.head.Sequence; n > 0 {
				why = fmt.Sprintf("the server was down; it had not signed the last %d records", n)
				c.marked = false
			}
			if t.torn > 0 {
				why += fmt.Sprintf("; a record of which %d bytes were written is lost", t.torn)
				if err := os.Truncate(filepath.Join(c.dir, last), t.size); err != nil {
					return err
				}
			}
			c.head, c.written, c.segment, c.size = t.end, t.end, last, t.size
		}
	}
	if c.head.State != stateStopped && c.head.State != stateDeleted || !c.marked {
		c.gap(why)
	}
	return nil
}

// gap records that nobody looked until now.
func (c *chain) gap(why string) {
	from, to := c.ledger.alive, c.ledger.since
	if from.IsZero() {
		from = c.head.Time
	}
	r := engine.ActivityRecord{Time: c.ledger.cfg.Now().UTC(), Kind: engine.ActivityGap, To: &to, Reason: why}
	if !from.IsZero() {
		r.From = &from
	}
	c.appendLocked(r) // nobody else knows the chain yet
	if err := c.flushLocked(); err != nil {
		c.ledger.cfg.Log.Error("activity lost", "sandbox", c.sandbox, "err", err)
	}
}

// segments lists the files of a sandbox, oldest first.
func segments(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if _, ok := firstOf(e.Name()); ok && e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// firstOf returns the sequence of a file's first record.
func firstOf(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, ".jsonl")
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, ok && err == nil && len(digits) == 20
}

// tail is what the last file says.
type tail struct {
	sound bool // it holds the head, or begins right after it
	end   head // with the records that follow the head
	size  int64
	torn  int64 // bytes after the last whole record
}

// scanTail follows the chain of the last file from the head to its end.
func scanTail(path string, h head) (tail, error) {
	f, err := os.Open(path)
	if err != nil {
		return tail{}, err
	}
	defer f.Close()
	t := tail{end: h}
	first, _ := firstOf(filepath.Base(path))
	t.sound = first == h.Sequence+1
	r := bufio.NewReaderSize(f, maxLine)
	for {
		text, err := r.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			t.torn = int64(len(text))
			return t, nil
		}
		var e line
		if err != nil || json.Unmarshal(text[:len(text)-1], &e) != nil {
			return tail{}, nil // nothing that was written here
		}
		hash := hashOf(text[:len(text)-1])
		switch {
		case e.Sequence == h.Sequence:
			t.sound = hash == h.Hash
		case e.Sequence > h.Sequence && (!t.sound || e.Sequence != t.end.Sequence+1 || e.Previous != t.end.Hash):
			return tail{}, nil
		}
		if e.Sequence >= h.Sequence {
			t.end.Sequence, t.end.Hash = e.Sequence, hash
			t.end.Incarnation = max(t.end.Incarnation, e.Incarnation)
			if e.Kind == engine.ActivityLifecycle {
				t.end.State = e.Operation
				if e.Organization != "" {
					t.end.Organization = e.Organization
				}
			}
		}
		t.size += int64(len(text))
	}
}

// lines calls f with every line of a file and the number it has.
func lines(path string, f func(n int, text []byte) bool) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	sc := bufio.NewScanner(file)
	sc.Buffer(make([]byte, 0, 16<<10), maxLine)
	for n := 1; sc.Scan(); n++ {
		if !f(n, sc.Bytes()) {
			return nil
		}
	}
	return sc.Err()
}
