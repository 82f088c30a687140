package activity

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/atoll-sh/atoll/engine"
)

// purge keeps the ledger bounded: whole files go, oldest first, and the ledger
// of a deleted sandbox when its time is over.
func (l *Ledger) purge() {
	entries, err := os.ReadDir(l.cfg.Dir)
	if err != nil {
		l.cfg.Log.Error("old activity not dropped", "err", err)
		return
	}
	for _, e := range entries {
		var err error
		switch name := e.Name(); {
		case strings.Contains(name, ".aside-"):
			err = l.dropAside(e)
		case validID(name):
			err = l.purgeOne(name)
		}
		if err != nil {
			l.cfg.Log.Error("old activity not dropped", "sandbox", e.Name(), "err", err)
		}
	}
}

func (l *Ledger) dropAside(e os.DirEntry) error {
	info, err := e.Info()
	if err != nil || l.cfg.Now().Sub(info.ModTime()) < l.cfg.Keep {
		return err
	}
	return errors.Join(os.RemoveAll(filepath.Join(l.cfg.Dir, e.Name())), os.RemoveAll(filepath.Join(l.cfg.Dir, headsDir, e.Name())))
}

func (l *Ledger) purgeOne(sandbox string) error {
	c, err := l.chain(sandbox, false)
	if err != nil || c == nil {
		return err
	}
	l.keep.Lock()
	defer l.keep.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.head.State == stateDeleted && l.cfg.Now().Sub(c.head.Time) > l.cfg.Keep {
		l.mu.Lock()
		delete(l.chains, sandbox)
		l.mu.Unlock()
		return errors.Join(os.RemoveAll(c.dir), os.Remove(c.headPath))
	}
	return c.dropLocked()
}

// dropLocked moves the begin of the chain past files that are too old or too
// many. The head says so before they go, so that their absence is no fault.
func (c *chain) dropLocked() error {
	names, err := segments(c.dir)
	if err != nil || len(names) < 2 {
		return err
	}
	var total int64
	infos := make([]os.FileInfo, len(names))
	for i, name := range names {
		if infos[i], err = os.Stat(filepath.Join(c.dir, name)); err != nil {
			return err
		}
		total += infos[i].Size()
	}
	n := 0
	for ; n < len(names)-1; n++ {
		if total <= c.ledger.cfg.KeepBytes && c.ledger.cfg.Now().Sub(infos[n].ModTime()) <= c.ledger.cfg.Keep {
			break
		}
		total -= infos[n].Size()
	}
	if n == 0 {
		return nil
	}
	first, err := firstLine(filepath.Join(c.dir, names[n]))
	if err != nil {
		return err
	}
	if err := c.syncLocked(); err != nil {
		return err
	}
	c.head.First, c.head.Base = first.Sequence, first.Previous
	c.written.First, c.written.Base = first.Sequence, first.Previous
	if err := c.signLocked(); err != nil {
		return err
	}
	var errs []error
	for _, name := range names[:n] {
		errs = append(errs, os.Remove(filepath.Join(c.dir, name)))
	}
	return errors.Join(errs...)
}

func firstLine(path string) (line, error) {
	f, err := os.Open(path)
	if err != nil {
		return line{}, err
	}
	defer f.Close()
	text, err := bufio.NewReaderSize(f, maxLine).ReadSlice('\n')
	if err != nil {
		return line{}, err
	}
	var e line
	if err := json.Unmarshal(text, &e); err != nil {
		return line{}, engine.Errorf(engine.KindInternal, "%s does not begin with a record", filepath.Base(path)).Wrap(err)
	}
	return e, nil
}
