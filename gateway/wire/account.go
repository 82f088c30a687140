package wire

import (
	"slices"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// APIKey is a key without its secret.
type APIKey struct {
	Name        string   `json:"name"`
	Value       string   `json:"value" doc:"masked"`
	CreatedAt   string   `json:"createdAt"`
	Permissions []string `json:"permissions" doc:"all that the key was allowed"`
	LastUsedAt  *string  `json:"lastUsedAt"`
	ExpiresAt   *string  `json:"expiresAt"`
	UserID      string   `json:"userId"`

	Unrestricted   bool   `json:"unrestricted" doc:"extension: the key may do whatever its user may"`
	Policy         string `json:"policy,omitempty" doc:"extension: name of the policy that the key is bound to"`
	OrganizationID string `json:"organizationId" doc:"extension"`
	Scope          *Scope `json:"scope,omitempty" doc:"extension: what the key is limited to"`
}

// Scope is what a key is limited to.
type Scope struct {
	Tools    []string          `json:"tools,omitempty" doc:"names of MCP tools and toolsets; none: all"`
	Labels   map[string]string `json:"labels,omitempty" doc:"the sandboxes that have all of these; none: all"`
	ReadOnly bool              `json:"readOnly,omitempty" doc:"the key changes nothing"`
}

func fromScope(s engine.Scope) *Scope {
	if !s.Limits() {
		return nil
	}
	return &Scope{Tools: s.Tools, Labels: s.Labels, ReadOnly: s.ReadOnly}
}

func (s *Scope) scope() engine.Scope {
	if s == nil {
		return engine.Scope{}
	}
	return engine.Scope{Tools: s.Tools, Labels: s.Labels, ReadOnly: s.ReadOnly}
}

// FromKey makes the body for k.
func FromKey(k engine.APIKey) APIKey {
	return APIKey{
		Name: k.Name, Value: k.Prefix + "********" + k.Suffix, CreatedAt: Moment(k.CreatedAt), Permissions: permissions(k),
		LastUsedAt: optional(k.LastUsedAt), ExpiresAt: optional(k.ExpiresAt), UserID: k.UserID,
		Unrestricted: k.Unrestricted, Policy: k.Policy, OrganizationID: k.OrganizationID, Scope: fromScope(k.Scope),
	}
}

func permissions(k engine.APIKey) []string {
	if k.Unrestricted {
		return engine.Permissions()
	}
	return filledList(k.Permissions)
}

func filledList(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// Key returns the engine's key, as far as k tells.
func (k APIKey) Key() engine.APIKey {
	prefix, suffix, _ := strings.Cut(k.Value, "********")
	out := engine.APIKey{
		OrganizationID: k.OrganizationID, UserID: k.UserID, Name: k.Name, Prefix: prefix, Suffix: suffix, Unrestricted: k.Unrestricted, Policy: k.Policy, Scope: k.Scope.scope(),
		CreatedAt: ParseTime(k.CreatedAt), LastUsedAt: ParseTime(value(k.LastUsedAt)), ExpiresAt: ParseTime(value(k.ExpiresAt)),
	}
	if !k.Unrestricted {
		out.Permissions = k.Permissions
	}
	return out
}

// NewAPIKey is a key with its secret, which is shown once.
type NewAPIKey struct {
	Name        string   `json:"name"`
	Value       string   `json:"value" doc:"the secret; it cannot be read again"`
	CreatedAt   string   `json:"createdAt"`
	Permissions []string `json:"permissions"`
	ExpiresAt   *string  `json:"expiresAt"`

	Unrestricted   bool   `json:"unrestricted" doc:"extension"`
	Policy         string `json:"policy,omitempty" doc:"extension"`
	UserID         string `json:"userId" doc:"extension"`
	OrganizationID string `json:"organizationId" doc:"extension"`
	Scope          *Scope `json:"scope,omitempty" doc:"extension: what the key is limited to"`
}

// FromNewKey makes the body for a key that was just made.
func FromNewKey(k engine.APIKey, secret string) NewAPIKey {
	return NewAPIKey{
		Name: k.Name, Value: secret, CreatedAt: Moment(k.CreatedAt), Permissions: permissions(k), ExpiresAt: optional(k.ExpiresAt),
		Unrestricted: k.Unrestricted, Policy: k.Policy, UserID: k.UserID, OrganizationID: k.OrganizationID, Scope: fromScope(k.Scope),
	}
}

// CreateAPIKey asks for a key with exactly the permissions listed.
type CreateAPIKey struct {
	Name        string     `json:"name" minLength:"1" maxLength:"128"`
	Permissions []string   `json:"permissions" required:"false" doc:"none: the key may only read"`
	ExpiresAt   *time.Time `json:"expiresAt,omitempty" nullable:"true"`

	Unrestricted   bool   `json:"unrestricted,omitempty" doc:"extension: the key may do whatever its user may; goes without permissions"`
	Policy         string `json:"policy,omitempty" doc:"extension: name of a policy to bind the key to"`
	OrganizationID string `json:"organizationId,omitempty" doc:"extension: another organization of the user"`
	UserID         string `json:"userId,omitempty" doc:"extension: for administrators, another user"`
	Scope          *Scope `json:"scope,omitempty" doc:"extension: what to limit the key to; goes without unrestricted"`
}

// Request returns the engine's request.
func (c CreateAPIKey) Request() (engine.CreateKey, error) {
	req := engine.CreateKey{
		Name: c.Name, Permissions: filledList(c.Permissions), ExpiresAt: value(c.ExpiresAt),
		Policy: c.Policy, OrganizationID: c.OrganizationID, UserID: c.UserID, Scope: c.Scope.scope(),
	}
	if c.Unrestricted {
		if len(c.Permissions) > 0 {
			return req, engine.Errorf(engine.KindInvalid, "permissions and unrestricted exclude each other")
		}
		req.Permissions = nil
	} else if c.Permissions == nil {
		return req, engine.Errorf(engine.KindInvalid, "permissions is missing").WithHint("send a list; an empty one is for a key that only reads")
	}
	return req, nil
}

// FromCreateKey makes the body that asks for req.
func FromCreateKey(req engine.CreateKey) CreateAPIKey {
	c := CreateAPIKey{
		Name: req.Name, Permissions: req.Permissions, Unrestricted: req.Permissions == nil, Policy: req.Policy, OrganizationID: req.OrganizationID, UserID: req.UserID,
		Scope: fromScope(req.Scope),
	}
	if !req.ExpiresAt.IsZero() {
		c.ExpiresAt = &req.ExpiresAt
	}
	return c
}

// Moment is Time for fields that must hold one: none is the epoch.
func Moment(t time.Time) string {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	return Time(t)
}

func optional(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := Time(t)
	return &s
}

// User is somebody who holds keys.
type User struct {
	ID            string      `json:"id"`
	Name          string      `json:"name"`
	Email         string      `json:"email"`
	EmailVerified bool        `json:"emailVerified"`
	PublicKeys    []PublicKey `json:"publicKeys"`
	CreatedAt     string      `json:"createdAt"`

	Role string `json:"role" enum:"admin,user" doc:"extension"`
}

// PublicKey is a key of a User; none has any yet.
type PublicKey struct {
	Key  string `json:"key"`
	Name string `json:"name"`
}

// FromUser makes the body for u.
func FromUser(u engine.User) User {
	role := "user"
	if u.Admin {
		role = "admin"
	}
	return User{
		ID: u.ID, Name: u.Name, Email: u.Email, EmailVerified: u.EmailVerified, PublicKeys: []PublicKey{},
		CreatedAt: Moment(u.CreatedAt), Role: role,
	}
}

// User returns the engine's user.
func (u User) User() engine.User {
	return engine.User{
		ID: u.ID, Name: u.Name, Email: u.Email, EmailVerified: u.EmailVerified, Admin: u.Role == "admin", CreatedAt: ParseTime(u.CreatedAt),
	}
}

// CreateUser asks for a user with an organization and a key.
type CreateUser struct {
	ID            string  `json:"id,omitempty"`
	Name          string  `json:"name" minLength:"1" maxLength:"128"`
	Email         string  `json:"email,omitempty"`
	Quota         *Totals `json:"personalOrganizationQuota,omitempty"`
	Region        string  `json:"personalOrganizationDefaultRegionId,omitempty"`
	Role          string  `json:"role,omitempty" enum:"admin,user"`
	EmailVerified bool    `json:"emailVerified,omitempty"`
}

// Totals is the quota of a new user's organization. Absent fields do not bound.
type Totals struct {
	TotalCPU               *float64 `json:"totalCpuQuota,omitempty"`
	TotalMemory            *float64 `json:"totalMemoryQuota,omitempty"`
	TotalDisk              *float64 `json:"totalDiskQuota,omitempty"`
	TotalGPU               *float64 `json:"totalGpuQuota,omitempty"`
	MaxCPUPerSandbox       *float64 `json:"maxCpuPerSandbox,omitempty"`
	MaxMemoryPerSandbox    *float64 `json:"maxMemoryPerSandbox,omitempty"`
	MaxDiskPerSandbox      *float64 `json:"maxDiskPerSandbox,omitempty"`
	SnapshotQuota          *float64 `json:"snapshotQuota,omitempty"`
	MaxSnapshotSize        *float64 `json:"maxSnapshotSize,omitempty"`
	VolumeQuota            *float64 `json:"volumeQuota,omitempty"`
	MaxConcurrentSnapshots *float64 `json:"maxConcurrentSnapshotProcessing,omitempty"`
}

// Request returns the engine's request.
func (c CreateUser) Request() engine.CreateUser {
	req := engine.CreateUser{
		ID: c.ID, Name: c.Name, Email: c.Email, EmailVerified: c.EmailVerified, Admin: c.Role == "admin", Region: c.Region,
	}
	if q := c.Quota; q != nil {
		req.Quota = engine.Quota{
			MaxCPUPerSandbox: q.MaxCPUPerSandbox, MaxMemoryPerSandbox: q.MaxMemoryPerSandbox, MaxDiskPerSandbox: q.MaxDiskPerSandbox,
			SnapshotQuota: q.SnapshotQuota, MaxSnapshotSize: q.MaxSnapshotSize, VolumeQuota: q.VolumeQuota,
			MaxConcurrentSnapshotProcessing: q.MaxConcurrentSnapshots,
		}
		req.RegionQuota = &engine.RegionLimits{
			TotalCPU: q.TotalCPU, TotalMemory: q.TotalMemory, TotalDisk: q.TotalDisk, TotalGPU: q.TotalGPU,
		}
	}
	return req
}

// NewUser is a user that was just made, with the secret of their key.
type NewUser struct {
	User
	OrganizationID string `json:"organizationId" doc:"extension"`
	APIKey         string `json:"apiKey" doc:"extension: the secret; it cannot be read again"`
}

// Organization owns sandboxes, snapshots and keys. Numbers of -1 stand for no
// limit.
type Organization struct {
	ID                                 string         `json:"id"`
	Name                               string         `json:"name"`
	CreatedBy                          string         `json:"createdBy"`
	Personal                           bool           `json:"personal"`
	CreatedAt                          string         `json:"createdAt"`
	UpdatedAt                          string         `json:"updatedAt"`
	Suspended                          bool           `json:"suspended"`
	SuspendedAt                        string         `json:"suspendedAt"`
	SuspensionReason                   string         `json:"suspensionReason"`
	SuspendedUntil                     string         `json:"suspendedUntil"`
	SuspensionCleanupGracePeriodHours  float64        `json:"suspensionCleanupGracePeriodHours"`
	MaxCPUPerSandbox                   float64        `json:"maxCpuPerSandbox"`
	MaxMemoryPerSandbox                float64        `json:"maxMemoryPerSandbox" doc:"GiB"`
	MaxDiskPerSandbox                  float64        `json:"maxDiskPerSandbox" doc:"GiB"`
	SecretQuota                        float64        `json:"secretQuota"`
	MaxSecretsPerSandbox               float64        `json:"maxSecretsPerSandbox"`
	SnapshotDeactivationTimeoutMinutes float64        `json:"snapshotDeactivationTimeoutMinutes"`
	SandboxLimitedNetworkEgress        bool           `json:"sandboxLimitedNetworkEgress"`
	PreviewWarningEnabled              bool           `json:"previewWarningEnabled"`
	SSOEnabled                         bool           `json:"ssoEnabled"`
	DefaultRegionID                    string         `json:"defaultRegionId"`
	AuthenticatedRateLimit             *float64       `json:"authenticatedRateLimit"`
	SandboxCreateRateLimit             *float64       `json:"sandboxCreateRateLimit"`
	SandboxLifecycleRateLimit          *float64       `json:"sandboxLifecycleRateLimit"`
	ExperimentalConfig                 map[string]any `json:"experimentalConfig"`
	OtelConfig                         *string        `json:"otelConfig"`
	AuthenticatedRateLimitTTL          *float64       `json:"authenticatedRateLimitTtlSeconds"`
	SandboxCreateRateLimitTTL          *float64       `json:"sandboxCreateRateLimitTtlSeconds"`
	SandboxLifecycleRateLimitTTL       *float64       `json:"sandboxLifecycleRateLimitTtlSeconds"`
}

// snapshotDeactivation is the contract's default of a setting without effect
// here.
const snapshotDeactivation = 20160

// FromOrganization makes the body for o. region stands where it has none.
func FromOrganization(o engine.Organization, region string, now time.Time) Organization {
	q := o.Quota
	d := Organization{
		ID: o.ID, Name: o.Name, CreatedBy: o.CreatedBy, Personal: o.Personal, CreatedAt: Moment(o.CreatedAt), UpdatedAt: Moment(o.UpdatedAt),
		Suspended: o.Suspended(now), SuspendedAt: Moment(time.Time{}), SuspendedUntil: Moment(time.Time{}),
		MaxCPUPerSandbox: Unbounded(q.MaxCPUPerSandbox), MaxMemoryPerSandbox: Unbounded(q.MaxMemoryPerSandbox),
		MaxDiskPerSandbox: Unbounded(q.MaxDiskPerSandbox), SecretQuota: Unbounded(q.SecretQuota),
		MaxSecretsPerSandbox: Unbounded(q.MaxSecretsPerSandbox), SnapshotDeactivationTimeoutMinutes: snapshotDeactivation,
		SandboxLimitedNetworkEgress: o.LimitedEgress, PreviewWarningEnabled: o.PreviewWarning, DefaultRegionID: region,
		AuthenticatedRateLimit: q.AuthenticatedRateLimit, SandboxCreateRateLimit: q.SandboxCreateRateLimit,
		SandboxLifecycleRateLimit: q.SandboxLifecycleRateLimit, ExperimentalConfig: map[string]any{},
		AuthenticatedRateLimitTTL: q.AuthenticatedRateLimitTTLSeconds, SandboxCreateRateLimitTTL: q.SandboxCreateRateLimitTTLSeconds,
		SandboxLifecycleRateLimitTTL: q.SandboxLifecycleRateLimitTTL,
	}
	if o.DefaultRegion != "" {
		d.DefaultRegionID = o.DefaultRegion
	}
	if q.SnapshotDeactivationTimeoutMinutes != nil {
		d.SnapshotDeactivationTimeoutMinutes = *q.SnapshotDeactivationTimeoutMinutes
	}
	if s := o.Suspension; s != nil {
		d.SuspendedAt, d.SuspendedUntil = Moment(s.At), Moment(s.Until)
		d.SuspensionReason, d.SuspensionCleanupGracePeriodHours = s.Reason, s.CleanupGraceHours
	}
	return d
}

// Organization returns the engine's organization, as far as d tells.
func (d Organization) Organization() engine.Organization {
	o := engine.Organization{
		ID: d.ID, Name: d.Name, CreatedBy: d.CreatedBy, Personal: d.Personal, DefaultRegion: d.DefaultRegionID,
		LimitedEgress: d.SandboxLimitedNetworkEgress, PreviewWarning: d.PreviewWarningEnabled,
		CreatedAt: ParseTime(d.CreatedAt), UpdatedAt: ParseTime(d.UpdatedAt),
	}
	if d.Suspended {
		o.Suspension = &engine.Suspension{Reason: d.SuspensionReason, At: ParseTime(d.SuspendedAt), CleanupGraceHours: d.SuspensionCleanupGracePeriodHours}
		if until := ParseTime(d.SuspendedUntil); until.After(time.Unix(0, 0)) {
			o.Suspension.Until = until
		}
	}
	return o
}

// Unbounded writes a limit into a field that must hold a number: -1 is none.
func Unbounded(limit *float64) float64 {
	if limit == nil {
		return -1
	}
	return *limit
}

// Bound reads a limit that Unbounded wrote: a negative one is none.
func Bound(limit float64) *float64 {
	if limit < 0 {
		return nil
	}
	return &limit
}

// Role is a named set of permissions.
type Role struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Permissions []string `json:"permissions"`
	IsGlobal    bool     `json:"isGlobal"`
	CreatedAt   string   `json:"createdAt"`
	UpdatedAt   string   `json:"updatedAt"`
}

// FromRole makes the body for r.
func FromRole(r engine.Role) Role {
	return Role{
		ID: r.ID, Name: r.Name, Description: r.Description, Permissions: filledList(r.Permissions), IsGlobal: r.OrganizationID == "",
		CreatedAt: Moment(r.CreatedAt), UpdatedAt: Moment(r.UpdatedAt),
	}
}

// FromRoles makes the list for all.
func FromRoles(all []engine.Role) []Role {
	out := make([]Role, len(all))
	for i, r := range all {
		out[i] = FromRole(r)
	}
	return out
}

// Member is a user in an organization.
type Member struct {
	UserID         string `json:"userId"`
	OrganizationID string `json:"organizationId"`
	Name           string `json:"name"`
	Email          string `json:"email"`
	Role           string `json:"role" enum:"owner,member"`
	AssignedRoles  []Role `json:"assignedRoles"`
	CreatedAt      string `json:"createdAt"`
	UpdatedAt      string `json:"updatedAt"`
}

// FromMember makes the body for m.
func FromMember(m engine.Member) Member {
	return Member{
		UserID: m.UserID, OrganizationID: m.OrganizationID, Name: m.Name, Email: m.Email, Role: string(m.Role),
		AssignedRoles: FromRoles(m.Roles), CreatedAt: Moment(m.CreatedAt), UpdatedAt: Moment(m.UpdatedAt),
	}
}

// Invitation asks somebody to become a member.
type Invitation struct {
	ID               string `json:"id"`
	Email            string `json:"email"`
	InvitedBy        string `json:"invitedBy"`
	OrganizationID   string `json:"organizationId"`
	OrganizationName string `json:"organizationName"`
	ExpiresAt        string `json:"expiresAt"`
	Status           string `json:"status" enum:"pending,accepted,declined,cancelled"`
	Role             string `json:"role" enum:"owner,member"`
	AssignedRoles    []Role `json:"assignedRoles"`
	CreatedAt        string `json:"createdAt"`
	UpdatedAt        string `json:"updatedAt"`
}

// FromInvitation makes the body for i.
func FromInvitation(i engine.Invitation) Invitation {
	return Invitation{
		ID: i.ID, Email: i.Email, InvitedBy: i.InvitedBy, OrganizationID: i.OrganizationID, OrganizationName: i.OrganizationName,
		ExpiresAt: Moment(i.ExpiresAt), Status: i.Status, Role: string(i.Role), AssignedRoles: FromRoles(i.Roles),
		CreatedAt: Moment(i.CreatedAt), UpdatedAt: Moment(i.UpdatedAt),
	}
}

// Access is what a member or an invitation is given. Without a list the
// contract's default role is.
type Access struct {
	Role            string    `json:"role,omitempty" enum:"owner,member" default:"member"`
	AssignedRoleIDs *[]string `json:"assignedRoleIds,omitempty"`
}

// Access returns the engine's.
func (a Access) Access() engine.Access {
	out := engine.Access{Role: engine.MemberRole(a.Role), RoleIDs: []string{engine.DeveloperRole}}
	if a.AssignedRoleIDs != nil {
		out.RoleIDs = slices.Clone(*a.AssignedRoleIDs)
	}
	return out
}
