package store

import (
	"strings"

	"github.com/uptrace/bun/schema"
)

// textDialect writes strings that every database takes. SQLite ends a
// statement at a NUL character and Postgres refuses it, like all that is not
// UTF-8; both may come from a caller's path or from the words of a sandbox.
type textDialect struct{ schema.Dialect }

// AppendString implements schema.Dialect.
func (d textDialect) AppendString(b []byte, s string) []byte {
	return d.Dialect.AppendString(b, plainText(s))
}

// plainText puts the replacement character where a database takes none.
func plainText(s string) string {
	const replacement = "\uFFFD"
	return strings.ReplaceAll(strings.ToValidUTF8(s, replacement), "\x00", replacement)
}
