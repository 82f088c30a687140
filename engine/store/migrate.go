package store

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"github.com/atoll-sh/atoll/engine"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrate applies every migration that the database lacks, in order, all in
// one transaction, so that a crash leaves either the old or the new tables.
func (s *Store) migrate(ctx context.Context) error {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return fmt.Errorf("list migrations: %w", err)
	}
	err = s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		return s.migrateTx(ctx, tx, names)
	})
	if err != nil {
		return translate(err, "prepare the database")
	}
	return nil
}

func (s *Store) migrateTx(ctx context.Context, tx bun.Tx, names []string) error {
	if s.postgres {
		// Two servers may start at once; the lock ends with the transaction.
		if _, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock(7015510)"); err != nil {
			return fmt.Errorf("lock migrations: %w", err)
		}
	}
	_, err := tx.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied_at BIGINT NOT NULL)")
	if err != nil {
		return fmt.Errorf("create the migrations table: %w", err)
	}
	var done []string
	if err := tx.NewRaw("SELECT name FROM migrations").Scan(ctx, &done); err != nil {
		return fmt.Errorf("read applied migrations: %w", err)
	}
	return applyMissing(ctx, tx, names, done)
}

func applyMissing(ctx context.Context, tx bun.Tx, names, done []string) error {
	applied := make(map[string]bool, len(done))
	for _, n := range done {
		applied[n] = true
	}
	for _, file := range names {
		name := path.Base(file)
		if applied[name] {
			delete(applied, name)
			continue
		}
		if err := apply(ctx, tx, file, name); err != nil {
			return fmt.Errorf("migration %s: %w", name, err)
		}
	}
	for name := range applied {
		return engine.Errorf(engine.KindUnsupported, "the database was made by a newer version (it has migration %s)", name).
			WithHint("start the newer version, or use another ATOLL_HOME or ATOLL_DATABASE_URL")
	}
	return nil
}

func apply(ctx context.Context, tx bun.Tx, file, name string) error {
	text, err := migrations.ReadFile(file)
	if err != nil {
		return err
	}
	for _, stmt := range statements(string(text)) {
		if _, err := tx.ExecContext(ctx, stmt); err != nil {
			return err
		}
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO migrations (name, applied_at) VALUES (?, ?)", name, time.Now().UnixNano())
	return err
}

// statements splits a migration at the semicolons that end a line. Comment
// lines are dropped.
func statements(text string) []string {
	var out []string
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "--") {
			continue
		}
		b.WriteString(line)
		if strings.HasSuffix(strings.TrimSpace(line), ";") {
			out = append(out, strings.TrimSuffix(strings.TrimSpace(b.String()), ";"))
			b.Reset()
		}
	}
	return out
}
