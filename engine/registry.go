package engine

import (
	"context"
	"time"
)

// Registry is an account at a registry of images, used for every pull from its
// host. The password is not part of it: it is written only.
type Registry struct {
	ID             string
	OrganizationID string
	Name           string
	URL            string // as given; its host decides which images it is for
	Username       string
	Project        string // when set, only images below host/project use it
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// PutRegistry is what a registry shall be. An empty Password of a change
// leaves the one that is stored.
type PutRegistry struct {
	OrganizationID string
	Name           string
	URL            string
	Username       string
	Password       string `json:"-"`
	Project        string
}

// Registries is the life of registries. The gateway calls it.
type Registries interface {
	Create(ctx context.Context, req PutRegistry) (Registry, error)
	Registry(ctx context.Context, organizationID, id string) (Registry, error)
	List(ctx context.Context, organizationID string) ([]Registry, error)
	Update(ctx context.Context, id string, req PutRegistry) (Registry, error)
	Delete(ctx context.Context, organizationID, id string) error
}
