package store

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/uptrace/bun"

	"github.com/atoll-sh/atoll/engine"
)

const (
	defaultPage = 100
	maxPage     = 200
)

// sortColumns maps the contract's sort keys to columns.
var sortColumns = map[string]string{
	"":               "last_active_at",
	"lastActivityAt": "last_active_at",
	"createdAt":      "created_at",
	"name":           "name",
	"cpu":            "cpu",
	"memoryGib":      "memory_mib",
	"diskGib":        "disk_mib",
}

// cursor is the place after one row: its sort value and its id. Rows that are
// inserted later neither repeat nor hide a row that was there before.
type cursor struct {
	Sort  string          `json:"s"`
	Asc   bool            `json:"a,omitempty"`
	Value json.RawMessage `json:"v"`
	ID    string          `json:"i"`
}

func (c cursor) encode() string {
	b, err := json.Marshal(c)
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func decodeCursor(text, sort string, asc bool) (cursor, any, error) {
	bad := engine.Errorf(engine.KindInvalid, "cursor is not one that this list gave").
		WithHint("pass nextCursor of the previous page unchanged, with the same sort and order")
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return cursor{}, nil, bad.Wrap(err)
	}
	var c cursor
	if err := json.Unmarshal(b, &c); err != nil {
		return cursor{}, nil, bad.Wrap(err)
	}
	if c.Sort != sort || c.Asc != asc || c.ID == "" {
		return cursor{}, nil, bad
	}
	v, err := cursorValue(c)
	if err != nil {
		return cursor{}, nil, bad.Wrap(err)
	}
	return c, v, nil
}

func cursorValue(c cursor) (any, error) {
	var err error
	switch c.Sort {
	case "name":
		var v string
		err = json.Unmarshal(c.Value, &v)
		return v, err
	case "cpu":
		var v float64
		err = json.Unmarshal(c.Value, &v)
		return v, err
	}
	var v int64
	err = json.Unmarshal(c.Value, &v)
	return v, err
}

func (r *sandboxRow) sortValue(column string) any {
	switch column {
	case "created_at":
		return r.CreatedAt
	case "name":
		return r.Name
	case "cpu":
		return r.CPU
	case "memory_mib":
		return r.MemoryMiB
	case "disk_mib":
		return r.DiskMiB
	}
	return r.LastActiveAt
}

// ListSandboxes returns one page. Total counts all matches, not the page.
func (s *Store) ListSandboxes(ctx context.Context, q engine.SandboxQuery) (engine.SandboxPage, error) {
	column, ok := sortColumns[q.Sort]
	if !ok {
		return engine.SandboxPage{}, engine.Errorf(engine.KindInvalid, "sort %q is not known", q.Sort).
			WithHint("use one of name, cpu, memoryGib, diskGib, lastActivityAt, createdAt")
	}
	limit, err := pageLimit(q.Limit)
	if err != nil {
		return engine.SandboxPage{}, err
	}
	var rows []sandboxRow
	sel := s.r.NewSelect().Model(&rows).Apply(s.filterSandboxes(q))
	total, err := sel.Clone().Count(ctx)
	if err != nil {
		return engine.SandboxPage{}, translate(err, "count sandboxes")
	}
	if sel, err = afterCursor(sel, column, q.Cursor, q.Ascending); err != nil {
		return engine.SandboxPage{}, err
	}
	if err := sel.Limit(int64(limit) + 1).Scan(ctx); err != nil {
		return engine.SandboxPage{}, translate(err, "list sandboxes")
	}
	return sandboxPage(rows, limit, int(total), column, q), nil
}

func pageLimit(n int) (int, error) {
	switch {
	case n == 0:
		return defaultPage, nil
	case n < 0 || n > maxPage:
		return 0, engine.Errorf(engine.KindInvalid, "limit is %d", n).WithHint("use 1 to %d", maxPage)
	}
	return n, nil
}

func afterCursor(sel *bun.SelectQuery, column, after string, ascending bool) (*bun.SelectQuery, error) {
	dir, cmp := "DESC", "<"
	if ascending {
		dir, cmp = "ASC", ">"
	}
	if after != "" {
		c, v, err := decodeCursor(after, column, ascending)
		if err != nil {
			return nil, err
		}
		sel = sel.Where("(? "+cmp+" ? OR (? = ? AND id "+cmp+" ?))", bun.Ident(column), v, bun.Ident(column), v, c.ID)
	}
	return sel.OrderExpr("? "+dir+", id "+dir, bun.Ident(column)), nil
}

func sandboxPage(rows []sandboxRow, limit, total int, column string, q engine.SandboxQuery) engine.SandboxPage {
	page := engine.SandboxPage{Total: total, Items: make([]engine.Sandbox, 0, min(len(rows), limit))}
	if len(rows) > limit {
		rows = rows[:limit]
		last := &rows[limit-1]
		if v, err := json.Marshal(last.sortValue(column)); err == nil {
			page.Next = cursor{Sort: column, Asc: q.Ascending, Value: v, ID: last.ID}.encode()
		}
	}
	for i := range rows {
		page.Items = append(page.Items, rows[i].sandbox().Sandbox)
	}
	return page
}

func (s *Store) filterSandboxes(q engine.SandboxQuery) func(*bun.SelectQuery) *bun.SelectQuery {
	return func(sel *bun.SelectQuery) *bun.SelectQuery {
		sel = sel.Where("organization_id = ?", q.OrganizationID)
		sel = wantedStates(sel, q)
		if q.Policy != "" {
			sel = sel.Where("policy = ?", q.Policy)
		}
		if q.IDPrefix != "" {
			sel = sel.Where(`id LIKE ? ESCAPE '!'`, likePrefix(strings.ToLower(q.IDPrefix)))
		}
		if q.NamePrefix != "" {
			sel = sel.Where(`lower(name) LIKE ? ESCAPE '!'`, likePrefix(strings.ToLower(q.NamePrefix)))
		}
		if len(q.Snapshots) > 0 {
			sel = sel.Where("snapshot IN (?)", bun.List(q.Snapshots))
		}
		for k, v := range q.Labels {
			sel = sel.Where("labels <> ''").Where(s.labelMatch(), k, v)
		}
		return sel
	}
}

// wantedStates hides destroyed sandboxes unless they are asked for by state,
// and those in error that are to be destroyed unless they are included.
func wantedStates(sel *bun.SelectQuery, q engine.SandboxQuery) *bun.SelectQuery {
	if len(q.States) > 0 {
		sel = sel.Where("state IN (?)", bun.List(q.States))
	} else {
		sel = sel.Where("state <> 'destroyed'")
	}
	if !q.IncludeErroredDeleted {
		sel = sel.Where("NOT (state IN ('error', 'build_failed') AND desired = 'destroyed')")
	}
	return sel
}

// labelMatch is the one condition that the two databases spell differently.
// A label column is never damaged JSON, and empty ones are tested before;
// NULLIF keeps Postgres from reading those all the same.
func (s *Store) labelMatch() string {
	if s.postgres {
		return "NULLIF(labels, '')::jsonb ->> ? = ?"
	}
	return "EXISTS (SELECT 1 FROM json_each(NULLIF(s.labels, '')) AS l WHERE l.key = ? AND l.value = ?)"
}

// likePrefix makes a LIKE pattern of text, escaped with an exclamation mark,
// which both databases read the same way.
func likePrefix(text string) string { return likeEscape(text) + "%" }

func likePart(text string) string { return "%" + likeEscape(text) + "%" }

func likeEscape(text string) string {
	return strings.NewReplacer("!", "!!", "%", "!%", "_", "!_").Replace(text)
}
