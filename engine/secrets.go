package engine

import (
	"context"
	"time"
)

// Secret is a value that sandboxes may use but never see. The value itself is
// not part of it: it is written only.
type Secret struct {
	ID             string
	OrganizationID string
	Name           string // letters, digits, - and _
	Description    string
	Hosts          []string // where the value may be sent; empty: nowhere
	Placeholder    string   // what stands for the value in a sandbox
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// CreateSecret asks for a new secret.
type CreateSecret struct {
	OrganizationID string
	Name           string
	Value          string `json:"-"` // never written anywhere in the clear
	Description    string
	Hosts          []string
}

// UpdateSecret changes a secret. Nil fields stay.
type UpdateSecret struct {
	Value       *string `json:"-"`
	Description *string
	Hosts       *[]string
}

// SecretRef names a secret by id or name.
type SecretRef struct{ OrganizationID, IDOrName string }

// SecretQuery selects secrets.
type SecretQuery struct {
	OrganizationID string
	Name           string // part of the name, case-insensitive
	Sort           string // name, createdAt, updatedAt; empty: createdAt
	Ascending      bool
	Limit          int    // 1..200; 0 means 100
	Cursor         string // from a previous page
}

// SecretPage is one page of secrets. Next is empty on the last page.
type SecretPage struct {
	Items []Secret
	Next  string
	Total int
}

// Secrets is the life of secrets. The gateway calls it.
type Secrets interface {
	Create(ctx context.Context, req CreateSecret) (Secret, error)
	Secret(ctx context.Context, ref SecretRef) (Secret, error)
	List(ctx context.Context, q SecretQuery) (SecretPage, error)
	// Update changes a secret for all sandboxes that have it, at once.
	Update(ctx context.Context, ref SecretRef, u UpdateSecret) (Secret, error)
	// Delete removes a secret, also one in use: from then on its placeholder
	// stands for nothing, and sandboxes lose the variable.
	Delete(ctx context.Context, ref SecretRef) error
	// Attach replaces the secrets of a sandbox: names or ids by environment
	// variable. In a running sandbox processes that start later see it.
	Attach(ctx context.Context, ref SandboxRef, secrets map[string]string) (Sandbox, error)
}
