package store

import (
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"

	"github.com/atoll-sh/atoll/engine"
)

// translate turns an SQL error into an *engine.Error. An error that is one
// already passes. A broken unique rule is a conflict, whose text the callers
// replace by one that names the object.
func translate(err error, doing string) error {
	var known *engine.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.Is(err, sql.ErrNoRows):
		return engine.Errorf(engine.KindNotFound, "not found").Wrap(err)
	}
	cause := fmt.Errorf("%s: %w", doing, err)
	switch k := engine.KindOf(err); k {
	case engine.KindCanceled, engine.KindTimeout:
		return engine.AsError(cause)
	}
	e := &engine.Error{Kind: engine.KindInternal, Message: "the database refused the request", Hint: "see the server's log", Err: cause}
	var lite *sqlite.Error
	var pg *pgconn.PgError
	var conn *pgconn.ConnectError
	switch {
	case errors.As(err, &lite):
		sqliteKind(e, lite.Code())
	case errors.As(err, &pg):
		postgresKind(e, pg.Code)
	case errors.As(err, &conn), errors.Is(err, sql.ErrConnDone):
		unavailable(e)
	}
	return e
}

func sqliteKind(e *engine.Error, code int) {
	switch code {
	case sqlitelib.SQLITE_CONSTRAINT_UNIQUE, sqlitelib.SQLITE_CONSTRAINT_PRIMARYKEY:
		e.Kind, e.Message, e.Hint = engine.KindConflict, "it exists already", ""
		return
	}
	switch code & 0xff {
	case sqlitelib.SQLITE_BUSY, sqlitelib.SQLITE_LOCKED:
		unavailable(e)
	case sqlitelib.SQLITE_INTERRUPT:
		e.Kind, e.Message, e.Hint = engine.KindCanceled, "the request was canceled", ""
	case sqlitelib.SQLITE_FULL:
		e.Kind, e.Message = engine.KindExhausted, "the disk that holds the database is full"
		e.Hint = "free space on the file system of ATOLL_HOME"
	}
}

func postgresKind(e *engine.Error, code string) {
	switch {
	case code == "23505":
		e.Kind, e.Message, e.Hint = engine.KindConflict, "it exists already", ""
	case code == "57014":
		e.Kind, e.Message, e.Hint = engine.KindCanceled, "the request was canceled", ""
	case code == "53100":
		e.Kind, e.Message = engine.KindExhausted, "the disk that holds the database is full"
		e.Hint = "free space on the database's server"
	case len(code) == 5 && (code[:2] == "08" || code[:2] == "57" || code[:2] == "53"):
		unavailable(e)
	}
}

func unavailable(e *engine.Error) {
	e.Kind, e.Message, e.Hint = engine.KindUnavailable, "the database does not answer", "try again in a moment"
}

// Conflicting tells whether err is a broken unique rule or a lost
// compare-and-set.
func Conflicting(err error) bool { return engine.KindOf(err) == engine.KindConflict }
