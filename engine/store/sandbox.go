package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/uptrace/bun"

	"github.com/atoll-sh/atoll/engine"
)

// Sandbox is a sandbox's record: what the world sees of it, and what core
// keeps to start it again after its snapshot is gone.
type Sandbox struct {
	engine.Sandbox
	// Version counts the writes; UpdateSandbox compares it.
	Version    uint64
	Image      string // OCI reference
	WorkDir    string
	Entrypoint []string
	ForkDisk   string // saved disk made for this sandbox alone, to be dropped
}

// Idempotency ties a caller's key to the object that its first call made.
type Idempotency struct {
	OrganizationID string
	Key            string
	Fingerprint    string // hash of the request; another request under the same key is refused
	Object         string // id of what was made
	ExpiresAt      time.Time
}

type sandboxRow struct {
	bun.BaseModel `bun:"table:sandboxes,alias:s"`

	ID             string `bun:",pk"`
	Version        int64
	OrganizationID string
	Name           string
	Class          string
	State          string
	Desired        string
	Incarnation    int64
	Runner         string
	Target         string
	Snapshot       string
	Image          string
	ImageDigest    string
	OSUser         string `bun:"os_user"`
	WorkDir        string
	Entrypoint     string
	ForkDisk       string
	Env            string
	Secrets        string
	Labels         string
	Public         bool
	CPU            float64 `bun:"cpu"`
	MemoryMiB      int64   `bun:"memory_mib"`
	DiskMiB        int64   `bun:"disk_mib"`
	GPU            int64   `bun:"gpu"`
	PIDs           int64   `bun:"pids"`
	AutoStop       int64
	AutoArchive    int64
	AutoDelete     int64
	TTL            int64 `bun:"ttl"`
	Network        string
	Policy         string
	Learning       string
	Error          string
	Recoverable    bool
	Parent         string
	CreatedAt      int64
	UpdatedAt      int64
	LastActiveAt   int64
	StoppedAt      int64
}

func toSandboxRow(sb *Sandbox) *sandboxRow {
	return &sandboxRow{
		ID: sb.ID, Version: int64(sb.Version), OrganizationID: sb.OrganizationID, Name: sb.Name,
		Class: string(sb.Class), State: string(sb.State), Desired: string(sb.Desired),
		Incarnation: int64(sb.Incarnation), Runner: sb.Runner, Target: sb.Target, Snapshot: sb.Snapshot,
		Image: sb.Image, ImageDigest: sb.ImageDigest, OSUser: sb.User, WorkDir: sb.WorkDir,
		Entrypoint: toJSON(sb.Entrypoint), ForkDisk: sb.ForkDisk, Env: toJSON(sb.Env), Secrets: toJSON(sb.Secrets), Labels: toJSON(sb.Labels),
		Public: sb.Public, CPU: sb.Resources.CPU, MemoryMiB: sb.Resources.MemoryMiB,
		DiskMiB: sb.Resources.DiskMiB, GPU: int64(sb.Resources.GPU), PIDs: sb.Resources.PIDs,
		AutoStop: int64(sb.Lifecycle.AutoStop), AutoArchive: int64(sb.Lifecycle.AutoArchive),
		AutoDelete: int64(sb.Lifecycle.AutoDelete), TTL: int64(sb.Lifecycle.TTL),
		Network: toJSON(sb.Network), Policy: sb.Policy, Learning: toOptionalJSON(sb.Learning), Error: sb.Error, Recoverable: sb.Recoverable, Parent: sb.Parent,
		CreatedAt: toNanos(sb.CreatedAt), UpdatedAt: toNanos(sb.UpdatedAt),
		LastActiveAt: toNanos(sb.LastActive), StoppedAt: toNanos(sb.StoppedAt),
	}
}

func (r *sandboxRow) sandbox() Sandbox {
	sb := Sandbox{
		Sandbox: engine.Sandbox{
			ID: r.ID, OrganizationID: r.OrganizationID, Name: r.Name, Class: engine.Class(r.Class),
			State: engine.State(r.State), Desired: engine.DesiredState(r.Desired),
			Incarnation: uint64(r.Incarnation), Runner: r.Runner, Target: r.Target, Snapshot: r.Snapshot,
			ImageDigest: r.ImageDigest, User: r.OSUser, Public: r.Public,
			Resources: engine.Resources{CPU: r.CPU, MemoryMiB: r.MemoryMiB, DiskMiB: r.DiskMiB, GPU: int(r.GPU), PIDs: r.PIDs},
			Lifecycle: engine.Lifecycle{
				AutoStop: time.Duration(r.AutoStop), AutoArchive: time.Duration(r.AutoArchive),
				AutoDelete: time.Duration(r.AutoDelete), TTL: time.Duration(r.TTL),
			},
			Policy: r.Policy, Error: r.Error, Recoverable: r.Recoverable, Parent: r.Parent,
			CreatedAt: fromNanos(r.CreatedAt), UpdatedAt: fromNanos(r.UpdatedAt),
			LastActive: fromNanos(r.LastActiveAt), StoppedAt: fromNanos(r.StoppedAt),
		},
		Version: uint64(r.Version), Image: r.Image, WorkDir: r.WorkDir, ForkDisk: r.ForkDisk,
	}
	fromJSON(r.Entrypoint, &sb.Entrypoint)
	fromJSON(r.Env, &sb.Env)
	fromJSON(r.Secrets, &sb.Secrets)
	fromJSON(r.Labels, &sb.Labels)
	fromJSON(r.Network, &sb.Network)
	fromJSON(r.Learning, &sb.Learning)
	return sb
}

// InsertSandbox stores a new sandbox as version 1, and its idempotency key
// with it when there is one. A taken name or key is a conflict.
func (s *Store) InsertSandbox(ctx context.Context, sb *Sandbox, key *Idempotency) error {
	sb.Version = 1
	row := toSandboxRow(sb)
	insert := func(ctx context.Context, db bun.IDB) error {
		_, err := db.NewInsert().Model(row).Exec(ctx)
		return nameTaken(translate(err, "insert a sandbox"), "sandbox", sb.Name)
	}
	if key == nil {
		return insert(ctx, s.w)
	}
	err := s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := insertKey(ctx, tx, key); err != nil {
			return err
		}
		return insert(ctx, tx)
	})
	return translate(err, "insert a sandbox")
}

func nameTaken(err error, what, name string) error {
	if !Conflicting(err) {
		return err
	}
	return engine.Errorf(engine.KindConflict, "%s name %q is taken", what, name).
		WithHint("choose another name, or delete the %s that has it", what).Wrap(err)
}

// UpdateSandbox writes sb if its version is still the stored one, and counts
// the version up. Last activity never goes back. A lost race is a conflict.
func (s *Store) UpdateSandbox(ctx context.Context, sb *Sandbox) error {
	row := toSandboxRow(sb)
	row.Version++
	res, err := s.w.NewUpdate().Model(row).WherePK().Where("version = ?", int64(sb.Version)).
		Value("last_active_at", "CASE WHEN last_active_at > ? THEN last_active_at ELSE ? END", row.LastActiveAt, row.LastActiveAt).
		ExcludeColumn("organization_id", "created_at").Exec(ctx)
	if err != nil {
		return nameTaken(translate(err, "update a sandbox"), "sandbox", sb.Name)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return engine.Errorf(engine.KindConflict, "sandbox %s was changed by someone else at the same time", sb.Name).
			WithHint("read it again and retry").Wrap(err)
	}
	sb.Version++
	return nil
}

// DeleteSandbox removes the record itself and the keys that point to it. It
// is for creates that were never answered; others become destroyed.
func (s *Store) DeleteSandbox(ctx context.Context, id string) error {
	err := s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewDelete().Table("idempotency").Where("object = ?", id).Exec(ctx); err != nil {
			return err
		}
		_, err := tx.NewDelete().Table("sandboxes").Where("id = ?", id).Exec(ctx)
		return err
	})
	return translate(err, "delete a sandbox")
}

// SandboxByID returns a sandbox in any state, destroyed included.
func (s *Store) SandboxByID(ctx context.Context, id string) (Sandbox, error) {
	row := new(sandboxRow)
	err := s.r.NewSelect().Model(row).Where("id = ?", id).Scan(ctx)
	if err != nil {
		return Sandbox{}, missing(translate(err, "read a sandbox"), "sandbox", id)
	}
	return row.sandbox(), nil
}

// Sandbox finds a sandbox by id, else by name, within one organization.
// Destroyed ones are found by id only.
func (s *Store) Sandbox(ctx context.Context, ref engine.SandboxRef) (Sandbox, error) {
	row := new(sandboxRow)
	err := s.r.NewSelect().Model(row).Where("organization_id = ?", ref.OrganizationID).
		Where("(id = ? OR (name = ? AND state <> 'destroyed'))", ref.IDOrName, ref.IDOrName).
		OrderExpr("CASE WHEN id = ? THEN 0 ELSE 1 END", ref.IDOrName).Limit(1).Scan(ctx)
	if err != nil {
		return Sandbox{}, missing(translate(err, "read a sandbox"), "sandbox", ref.IDOrName)
	}
	return row.sandbox(), nil
}

// changedOne turns a write that met no row into a missing object.
func changedOne(res sql.Result, err error, what, name string) error {
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return engine.Errorf(engine.KindNotFound, "%s %q does not exist", what, name).Wrap(err)
	}
	return nil
}

func missing(err error, what, name string) error {
	if engine.KindOf(err) != engine.KindNotFound {
		return err
	}
	return engine.Errorf(engine.KindNotFound, "%s %q not found", what, name).
		WithHint("use the id or name of one that exists in your organization").Wrap(err)
}

// LiveSandboxes returns every sandbox of every organization that is not
// destroyed, oldest first.
func (s *Store) LiveSandboxes(ctx context.Context) ([]Sandbox, error) {
	var rows []sandboxRow
	err := s.r.NewSelect().Model(&rows).Where("state <> 'destroyed'").Order("created_at", "id").Scan(ctx)
	if err != nil {
		return nil, translate(err, "read all sandboxes")
	}
	out := make([]Sandbox, len(rows))
	for i := range rows {
		out[i] = rows[i].sandbox()
	}
	return out, nil
}

// CountSandboxes counts the sandboxes of every organization by state. Those that
// are destroyed do not count.
func (s *Store) CountSandboxes(ctx context.Context) (map[engine.State]int, error) {
	var rows []struct {
		State engine.State
		Count int
	}
	err := s.r.NewSelect().Table("sandboxes").Column("state").ColumnExpr("count(*) AS count").
		Where("state <> 'destroyed'").Group("state").Scan(ctx, &rows)
	if err != nil {
		return nil, translate(err, "count all sandboxes")
	}
	out := make(map[engine.State]int, len(rows))
	for _, r := range rows {
		out[r.State] = r.Count
	}
	return out, nil
}

// TouchSandboxes moves the last activity of the given sandboxes forward, in
// one transaction. It leaves versions alone, so it never disturbs a change
// that is under way.
func (s *Store) TouchSandboxes(ctx context.Context, at map[string]time.Time) error {
	if len(at) == 0 {
		return nil
	}
	err := s.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		for id, t := range at {
			_, err := tx.NewUpdate().Table("sandboxes").Set("last_active_at = ?", toNanos(t)).
				Where("id = ?", id).Where("last_active_at < ?", toNanos(t)).Exec(ctx)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return translate(err, "write last activity")
}

// PurgeSandboxes forgets sandboxes that were destroyed before the given time.
func (s *Store) PurgeSandboxes(ctx context.Context, before time.Time) (int, error) {
	res, err := s.w.NewDelete().Table("sandboxes").Where("state = 'destroyed'").
		Where("updated_at < ?", toNanos(before)).Exec(ctx)
	if err != nil {
		return 0, translate(err, "purge destroyed sandboxes")
	}
	n, err := res.RowsAffected()
	return int(n), translate(err, "purge destroyed sandboxes")
}
