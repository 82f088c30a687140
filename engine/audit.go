package engine

import (
	"context"
	"time"
)

// AuditEntry says who did what to which object, and how it ended.
type AuditEntry struct {
	ID             string // ordered by time; set when it is stored
	OrganizationID string // empty: the server
	At             time.Time
	ActorID        string // of a user
	ActorEmail     string
	KeyPrefix      string
	KeySuffix      string
	Action         string // as create, in the words of the contract
	TargetType     string // as sandbox, in the words of the contract
	TargetID       string // id or name, as the caller gave it
	Status         int    // HTTP status
	Error          string
	IP             string
	UserAgent      string
	Source         string // what the client calls itself
	Metadata       map[string]string
}

// Actor fills in who did it.
func (e AuditEntry) Actor(p Principal) AuditEntry {
	e.OrganizationID, e.ActorID, e.ActorEmail = p.OrganizationID, p.UserID, p.UserEmail
	e.KeyPrefix, e.KeySuffix = p.KeyPrefix, p.KeySuffix
	return e
}

// AuditFilter is one condition on a field. Op is eq, not, gt, gte, lt, lte, in
// or notIn; only the last two take several values, which are texts, whole
// numbers or times.
type AuditFilter struct {
	Field  string // as the contract names it: actorId, action, statusCode, createdAt, …
	Op     string
	Values []any
}

// AuditQuery selects entries, newest first. Page counts from 1; Next, which
// an earlier page gave, goes before it.
type AuditQuery struct {
	OrganizationID string // empty: all
	Filters        []AuditFilter
	Page, Limit    int
	Next           string
}

// AuditPage is one page of entries. Next is empty on the last.
type AuditPage struct {
	Items []AuditEntry
	Total int
	Next  string
}

// AuditLog is what was done. Record does not wait for the store; entries
// cannot be changed, and go when they are old.
type AuditLog interface {
	Record(e AuditEntry)
	// Audit needs read:audit_logs in the organization, or an administrator
	// when that is empty.
	Audit(ctx context.Context, p Principal, q AuditQuery) (AuditPage, error)
}

// Accounts are the services of who may use a server.
type Accounts struct {
	Keys          KeyRing
	Users         Users
	Organizations Organizations
	RegionQuotas  RegionQuotas
	Members       Members
	Roles         Roles
	Invitations   Invitations
	Audit         AuditLog
}
