package storage

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // the writer whose disk is saved

	"github.com/atoll-sh/atoll/engine"
)

func noCancel(t *testing.T) context.Context { return context.WithoutCancel(t.Context()) }

func TestSaveTakesTheSameTimeWhateverTheSize(t *testing.T) {
	p := openPool(t, Config{})
	d := create(t, p, "big", 3*gib)
	data := bytes.Repeat([]byte("atoll"), gib/10_000/5)
	for i := range 10_000 {
		dir := fmt.Sprintf("%s/upper/d%02d", d.Dir, i%100)
		if i < 100 {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(fmt.Sprintf("%s/f%d", dir, i), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		start := time.Now()
		n, err := p.Save(t.Context(), "big", fmt.Sprint("cut", i))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("save %d (%d MiB in 10,000 files): %v", i, n/mib, time.Since(start))
		if n < gib*95/100 || n > gib*12/10 {
			t.Errorf("got %d bytes, want about 1 GiB", n)
		}
		write(t, fmt.Sprintf("%s/upper/d00/g%d", d.Dir, i), "dirty")
	}
	start := time.Now()
	if _, err := p.Clone(t.Context(), "fork", "cut4", 0); err != nil {
		t.Fatal(err)
	}
	t.Logf("clone: %v", time.Since(start))
}

func TestSaveUnderADatabase(t *testing.T) {
	p := openPool(t, Config{})
	d := create(t, p, "db", testSize)
	db := openDB(t, d.Dir+"/upper")
	defer db.Close()
	if _, err := db.Exec(`CREATE TABLE t (id INTEGER PRIMARY KEY, pad BLOB)`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var written atomic.Int64
	done := make(chan error, 1)
	go func() { done <- insertRows(ctx, db, &written) }()
	for i := range 6 {
		for seen := written.Load(); written.Load() < seen+20; {
			time.Sleep(time.Millisecond)
		}
		acknowledged := written.Load()
		if _, err := p.Save(t.Context(), "db", fmt.Sprint("cut", i)); err != nil {
			t.Fatal(err)
		}
		wantDatabase(t, p, fmt.Sprint("cut", i), acknowledged)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func openDB(t *testing.T, dir string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "data.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	return db
}

func insertRows(ctx context.Context, db *sql.DB, written *atomic.Int64) error {
	for ctx.Err() == nil {
		if _, err := db.ExecContext(context.WithoutCancel(ctx), `INSERT INTO t (pad) VALUES (randomblob(3000))`); err != nil {
			return err
		}
		written.Add(1)
	}
	return nil
}

// wantDatabase clones a saved disk and checks that its database is whole and
// holds every row that was acknowledged before the cut.
func wantDatabase(t *testing.T, p *Pool, saved string, acknowledged int64) {
	t.Helper()
	d, err := p.Clone(t.Context(), "fork-"+saved, saved, 0)
	if err != nil {
		t.Fatal(err)
	}
	db := openDB(t, d.Dir+"/upper")
	defer db.Close()
	var verdict string
	var rows, last int64
	err = errors.Join(db.QueryRow(`PRAGMA integrity_check`).Scan(&verdict), db.QueryRow(`SELECT count(*), max(id) FROM t`).Scan(&rows, &last))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %s, %d rows, %d acknowledged before", saved, verdict, rows, acknowledged)
	if verdict != "ok" || rows != last || rows < acknowledged {
		t.Errorf("got %s, %d rows up to %d, want ok and at least %d", verdict, rows, last, acknowledged)
	}
}

func TestForkIsIndependent(t *testing.T) {
	p := openPool(t, Config{})
	d := create(t, p, "source", testSize)
	write(t, d.Dir+"/upper/f", "before")
	if err := p.Unmount(t.Context(), "source"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Save(t.Context(), "source", "cut"); err != nil { // of an unmounted disk
		t.Fatal(err)
	}
	d, err := p.Mount(t.Context(), "source")
	if err != nil {
		t.Fatal(err)
	}
	fork, err := p.Clone(t.Context(), "fork", "cut", 2*testSize)
	if err != nil {
		t.Fatal(err)
	}
	write(t, d.Dir+"/upper/f", "source")
	write(t, fork.Dir+"/upper/f", "fork")
	if err := errors.Join(p.Remove(t.Context(), "source"), p.Drop(t.Context(), "cut")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, fork.Dir+"/upper/f"); got != "fork" {
		t.Errorf("got %q, want fork", got)
	}
	if _, total, err := p.Usage(t.Context(), "fork"); err != nil || total < 2*testSize*9/10 {
		t.Errorf("got a fork of %d bytes, %v, want %d", total, err, 2*testSize)
	}
	_, err = p.Clone(t.Context(), "small", "cut", minDiskSize)
	wantKind(t, err, engine.KindNotFound)
}

func TestGrowKeepsFiles(t *testing.T) {
	p := openPool(t, Config{})
	write(t, create(t, p, "one", testSize).Dir+"/upper/f", "kept")
	wantKind(t, p.Grow(t.Context(), "one", 2*testSize), engine.KindConflict)
	if err := p.Unmount(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, p.Grow(t.Context(), "one", testSize/2), engine.KindInvalid)
	for range 2 {
		if err := p.Grow(t.Context(), "one", 4*testSize); err != nil {
			t.Fatal(err)
		}
	}
	_, unmounted, err := p.Usage(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	d, err := p.Mount(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	_, mounted, err := p.Usage(t.Context(), "one")
	if err != nil || mounted < 4*testSize*9/10 || mounted != unmounted {
		t.Errorf("got %d mounted and %d unmounted bytes, %v, want the same, about %d", mounted, unmounted, err, 4*testSize)
	}
	if got := read(t, d.Dir+"/upper/f"); got != "kept" {
		t.Errorf("got %q, want kept", got)
	}
}

func TestFreezeIsLifted(t *testing.T) {
	p := openPool(t, Config{})
	d := create(t, p, "one", testSize)
	func() {
		defer func() { _ = recover() }()
		_ = whileFrozen(d.Dir, func() error { panic("in the middle") })
	}()
	write(t, d.Dir+"/upper/f", "thawed after a panic")

	dir, err := os.Open(d.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.IoctlSetInt(int(dir.Fd()), ioctlFreeze, 0); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p = openPool(t, Config{Home: p.home})
	write(t, d.Dir+"/upper/f", "thawed by Open")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = p.Save(ctx, "one", "cut")
	wantKind(t, err, engine.KindCanceled)
}
