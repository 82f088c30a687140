// Package store holds all SQL: the owners and wishes behind sandboxes,
// snapshots, keys and the audit trail. What really runs is known to runners,
// not to this package. It runs on SQLite and on Postgres with the same
// migrations and passes the same tests on both. SQL errors become
// *engine.Error values here and nowhere else.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"runtime"
	"strings"
	"time"

	// The two drivers register themselves with database/sql.
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	_ "modernc.org/sqlite"

	"github.com/atoll-sh/atoll/engine"
)

// Store is a database. Its methods may be called at the same time.
type Store struct {
	// SQLite allows one writer at a time, so w has one connection and a call
	// queues for it in memory. On Postgres w and r are the same.
	w, r     *bun.DB
	postgres bool
	log      *slog.Logger
}

// Open opens the database and brings its tables up to date. The url is a file
// path, sqlite:path, or postgres://…; several servers may open the same
// Postgres, but only one the same SQLite file.
func Open(ctx context.Context, dbURL string, log *slog.Logger) (*Store, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Store{log: log}
	open := s.openSQLite
	if strings.HasPrefix(dbURL, "postgres://") || strings.HasPrefix(dbURL, "postgresql://") {
		open = s.openPostgres
	}
	if err := open(dbURL); err != nil {
		return nil, err
	}
	if err := s.prepare(ctx); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Store) prepare(ctx context.Context) error {
	if err := s.w.PingContext(ctx); err != nil {
		return (&engine.Error{
			Kind: engine.KindUnavailable, Message: "the database does not answer",
			Hint: "check ATOLL_DATABASE_URL and that the database is running",
		}).Wrap(err)
	}
	return s.migrate(ctx)
}

func (s *Store) openSQLite(dbURL string) error {
	path := strings.TrimPrefix(strings.TrimPrefix(dbURL, "sqlite://"), "sqlite:")
	if path == "" || strings.Contains(path, "://") {
		return engine.Errorf(engine.KindInvalid, "database url %q is not supported", redact(dbURL)).
			WithHint("use a file path, sqlite:PATH or postgres://USER:PASSWORD@HOST/NAME")
	}
	if err := private(path); err != nil {
		return err
	}
	w, err := sqliteDB(path, "immediate", 1)
	if err != nil {
		return err
	}
	r, err := sqliteDB(path, "deferred", max(2, runtime.NumCPU()))
	if err != nil {
		_ = w.Close()
		return err
	}
	s.w, s.r = w, r
	return nil
}

// private makes the database's file so that only its owner reads it: it holds
// the environment of sandboxes. SQLite gives its side files the same mode.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		err = f.Close()
	}
	if errors.Is(err, fs.ErrExist) {
		// Not opened: closing it would end the locks of others in this process.
		err = os.Chmod(path, 0o600)
		for _, side := range []string{"-wal", "-shm"} {
			_ = os.Chmod(path+side, 0o600) // of a server that was killed
		}
	}
	if err != nil {
		e := &engine.Error{Kind: engine.KindUnavailable, Message: "the database's file cannot be opened"}
		return e.WithHint("check the directory of %s", path).Wrap(err)
	}
	return nil
}

// sqliteDB opens one pool of connections. With WAL and synchronous=NORMAL a
// commit survives a crash of the process; a power cut may lose the last ones,
// which reconcile then repairs from what the runners hold.
func sqliteDB(path, lock string, conns int) (*bun.DB, error) {
	q := url.Values{"_txlock": {lock}, "_pragma": {
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(NORMAL)",
		"foreign_keys(ON)", "cache_size(-8000)", "temp_store(MEMORY)",
	}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return nil, translate(err, "open the database")
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return bun.NewDB(db, textDialect{sqlitedialect.New()}), nil
}

func (s *Store) openPostgres(dbURL string) error {
	db, err := sql.Open("pgx", dbURL)
	if err != nil {
		return translate(err, "open the database")
	}
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	db.SetConnMaxIdleTime(5 * time.Minute)
	s.w = bun.NewDB(db, textDialect{pgdialect.New()})
	s.r, s.postgres = s.w, true
	return nil
}

// Close closes the database. It may be called twice.
func (s *Store) Close() error {
	err := s.w.Close()
	if s.r != s.w {
		if rerr := s.r.Close(); err == nil {
			err = rerr
		}
	}
	if err != nil {
		return fmt.Errorf("close the database: %w", err)
	}
	return nil
}

// Kind names the database in use: sqlite or postgres.
func (s *Store) Kind() string {
	if s.postgres {
		return "postgres"
	}
	return "sqlite"
}

func (s *Store) inTx(ctx context.Context, fn func(ctx context.Context, tx bun.Tx) error) error {
	return s.w.RunInTx(ctx, nil, fn)
}

// redact hides the password of a database url.
func redact(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(unreadable)"
	}
	return u.Redacted()
}
