package store

import (
	"context"

	"github.com/uptrace/bun"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/secret"
)

// Registry is a registry's record with its sealed password.
type Registry struct {
	engine.Registry
	Sealed secret.Sealed
}

type registryRow struct {
	bun.BaseModel `bun:"table:registries,alias:g"`

	ID             string `bun:",pk"`
	OrganizationID string
	Name           string
	URL            string `bun:"url"`
	Username       string
	Project        string
	KeyID          string
	Sealed         string
	CreatedAt      int64
	UpdatedAt      int64
}

func toRegistryRow(r *Registry) *registryRow {
	return &registryRow{
		ID: r.ID, OrganizationID: r.OrganizationID, Name: r.Name, URL: r.URL, Username: r.Username, Project: r.Project,
		KeyID: r.Sealed.KeyID, Sealed: r.Sealed.Text, CreatedAt: toNanos(r.CreatedAt), UpdatedAt: toNanos(r.UpdatedAt),
	}
}

func (r *registryRow) registry() Registry {
	return Registry{
		Registry: engine.Registry{
			ID: r.ID, OrganizationID: r.OrganizationID, Name: r.Name, URL: r.URL, Username: r.Username, Project: r.Project,
			CreatedAt: fromNanos(r.CreatedAt), UpdatedAt: fromNanos(r.UpdatedAt),
		},
		Sealed: secret.Sealed{KeyID: r.KeyID, Text: r.Sealed},
	}
}

// InsertRegistry stores a new registry. A taken name is a conflict.
func (s *Store) InsertRegistry(ctx context.Context, r Registry) error {
	_, err := s.w.NewInsert().Model(toRegistryRow(&r)).Exec(ctx)
	return nameTaken(translate(err, "insert a registry"), "registry", r.Name)
}

// UpdateRegistry overwrites a registry. A taken name is a conflict.
func (s *Store) UpdateRegistry(ctx context.Context, r Registry) error {
	res, err := s.w.NewUpdate().Model(toRegistryRow(&r)).WherePK().Where("organization_id = ?", r.OrganizationID).
		ExcludeColumn("organization_id", "created_at").Exec(ctx)
	return changedOne(res, nameTaken(translate(err, "update a registry"), "registry", r.Name), "registry", r.ID)
}

// DeleteRegistry removes a registry.
func (s *Store) DeleteRegistry(ctx context.Context, organizationID, id string) error {
	res, err := s.w.NewDelete().Table("registries").Where("id = ? AND organization_id = ?", id, organizationID).Exec(ctx)
	return changedOne(res, translate(err, "delete a registry"), "registry", id)
}

// Registry finds a registry by id.
func (s *Store) Registry(ctx context.Context, organizationID, id string) (Registry, error) {
	row := new(registryRow)
	err := s.r.NewSelect().Model(row).Where("id = ? AND organization_id = ?", id, organizationID).Scan(ctx)
	if err != nil {
		return Registry{}, missing(translate(err, "read a registry"), "registry", id)
	}
	return row.registry(), nil
}

// ListRegistries returns an organization's registries, oldest first.
func (s *Store) ListRegistries(ctx context.Context, organizationID string) ([]Registry, error) {
	var rows []registryRow
	err := s.r.NewSelect().Model(&rows).Where("organization_id = ?", organizationID).Order("created_at", "id").Scan(ctx)
	if err != nil {
		return nil, translate(err, "list registries")
	}
	out := make([]Registry, len(rows))
	for i := range rows {
		out[i] = rows[i].registry()
	}
	return out, nil
}
