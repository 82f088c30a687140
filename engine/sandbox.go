package engine

import (
	"context"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/atoll-sh/atoll/policies"
)

// Class is the isolation class of a sandbox, in the words of the wire contract.
type Class string

// The classes.
const (
	ClassContainer Class = "container"
	ClassGVisor    Class = "gvisor"
	ClassLinuxVM   Class = "linux-vm"
)

// Resources is what a sandbox may use at most.
type Resources struct {
	CPU       float64 `json:"cpu"`       // cores
	MemoryMiB int64   `json:"memoryMiB"` // hard limit; exceeding it kills a process in the sandbox
	DiskMiB   int64   `json:"diskMiB"`   // size of the writable disk
	GPU       int     `json:"gpu"`
	PIDs      int64   `json:"pids"` // 0 means the server's default
}

// Lifecycle holds a sandbox's timers. A zero duration switches a timer off,
// except AutoDelete, see there.
type Lifecycle struct {
	AutoStop    time.Duration `json:"autoStop"`    // after this long without activity
	AutoArchive time.Duration `json:"autoArchive"` // after this long stopped
	AutoDelete  time.Duration `json:"autoDelete"`  // after this long stopped; negative is off, 0 is ephemeral: delete at stop
	TTL         time.Duration `json:"ttl"`         // after this long since creation, whatever it does
}

// Ephemeral tells whether the sandbox is deleted as soon as it stops.
func (l Lifecycle) Ephemeral() bool { return l.AutoDelete == 0 }

// NetworkPolicy is what a sandbox may talk to. The zero value allows the
// internet and nothing private. Allow lists are enforced by the egress layer.
type NetworkPolicy struct {
	BlockAll         bool     `json:"blockAll"`
	AllowCIDRs       []string `json:"allowCidrs,omitempty"`
	AllowDomains     []string `json:"allowDomains,omitempty"`
	OutboundProxyURL string   `json:"outboundProxyUrl,omitempty"`
	// Policy is the egress of a named policy, which holds beside the lists:
	// what either denies is denied. The core fills it in on the way to a
	// runner; nil: there is none.
	Policy *policies.Policy `json:"policy,omitempty"`
	// Grants are what operators allowed on request, beside the lists. A change
	// of the settings by a user ends them.
	Grants []NetworkGrant `json:"grants,omitempty"`
	// Learn opens everything that may be open at all and has names noted. Only
	// the core sets it, for a while.
	Learn bool `json:"learn,omitempty"`
}

// Closed tells whether nothing at all is allowed.
func (p NetworkPolicy) Closed() bool {
	if p.Learn || len(p.Grants) > 0 {
		return false
	}
	if p.BlockAll || p.Policy == nil {
		return p.BlockAll
	}
	e := p.Policy.Egress
	return e.Default != policies.Allow && !slices.ContainsFunc(e.Rules, func(r policies.EgressRule) bool { return r.Verdict == policies.Allow })
}

// NeedsFilter tells whether some of the network is allowed and some is not, so
// that it takes more to enforce than to open or to close all.
func (p NetworkPolicy) NeedsFilter() bool {
	named := p.Policy != nil && (p.Policy.Egress.Default != policies.Allow || len(p.Policy.Egress.Rules) > 0)
	return !p.Closed() && (p.Learn || len(p.Grants) > 0 || named || len(p.AllowCIDRs) > 0 || len(p.AllowDomains) > 0)
}

// NetworkGrant opens one host or address.
type NetworkGrant struct {
	ID       string    `json:"id"` // of the request
	Host     string    `json:"host,omitempty"`
	Address  string    `json:"address,omitempty"`
	Port     uint16    `json:"port,omitempty"` // 0 for a host: 80 and 443 over TCP
	Protocol string    `json:"protocol,omitempty"`
	Until    time.Time `json:"until,omitzero"` // zero: for good
}

// Settings is the part of the policy that callers set.
func (p NetworkPolicy) Settings() NetworkPolicy {
	p.Grants, p.Learn = nil, false
	return p
}

// At is the policy without what has expired by now.
func (p NetworkPolicy) At(now time.Time) NetworkPolicy {
	expired := func(g NetworkGrant) bool { return !g.Until.IsZero() && !now.Before(g.Until) }
	if slices.ContainsFunc(p.Grants, expired) {
		p.Grants = slices.DeleteFunc(slices.Clone(p.Grants), expired)
	}
	if len(p.Grants) == 0 {
		p.Grants = nil
	}
	return p
}

// Sandbox is one computer for an agent.
type Sandbox struct {
	ID             string
	OrganizationID string
	Name           string // unique in the organization; equals ID when none was given
	Class          Class
	State          State
	Desired        DesiredState
	// Incarnation counts the starts of the sandbox. Policies, handles and
	// ledger entries are bound to one incarnation.
	Incarnation uint64
	Runner      string // id of the runner that holds it
	Target      string // region as the caller named it
	Snapshot    string // name of the snapshot it was created from
	ImageDigest string
	User        string
	Env         map[string]string
	Secrets     map[string]string // ids of secrets by the variable that holds their placeholder
	Labels      map[string]string
	Public      bool
	Resources   Resources
	Lifecycle   Lifecycle
	Network     NetworkPolicy
	Policy      string    // name of the policy it is under; may be empty
	Learning    *Learning // the last time of learning; nil: never
	Error       string    // why, when State is error
	Recoverable bool      // a start may mend the error
	Parent      string    // id of the sandbox this was forked from; may be empty
	CreatedAt   time.Time
	UpdatedAt   time.Time
	LastActive  time.Time
	StoppedAt   time.Time // zero while it runs
	// Timing holds what each stage of the last create or start took. It is
	// set on the answer of Create, Start and Fork only.
	Timing []Stage
	// Warm tells whether a pool member was claimed. Set as Timing is.
	Warm bool
}

// EnforcedNetwork is what the runner has to enforce at a time.
func (s *Sandbox) EnforcedNetwork(now time.Time) NetworkPolicy {
	if s.Learning.Active(now) {
		return NetworkPolicy{Learn: true, OutboundProxyURL: s.Network.OutboundProxyURL}
	}
	return s.Network.At(now)
}

// NetworkOverdue tells whether something that was open for a time is to be
// closed.
func (s *Sandbox) NetworkOverdue(now time.Time) bool {
	l := s.Learning
	return l != nil && !l.Over && !l.Active(now) || len(s.Network.At(now).Grants) != len(s.Network.Grants)
}

// Stage is one step of a create, for the waterfall.
type Stage struct {
	Name  string        `json:"name"`
	Start time.Duration `json:"start"` // since the request arrived
	Took  time.Duration `json:"took"`
}

// CreateSandbox asks for a new sandbox. Empty fields take the snapshot's or
// the server's defaults.
type CreateSandbox struct {
	OrganizationID string
	Name           string // lower-case letters, digits, . _ -; at most 63; empty means the id
	Snapshot       string // id or name; empty means the default snapshot, unless Image is set
	Image          string // OCI reference to create from directly, instead of a snapshot
	User           string
	Env            map[string]string
	Secrets        map[string]string // names or ids of secrets by environment variable
	Labels         map[string]string
	Public         bool
	Target         string
	Class          Class
	Resources      Resources // zero fields: the snapshot's
	Network        NetworkPolicy
	Policy         string     // name; empty: the key's, else LabelPolicy, else the snapshot's, else none
	Lifecycle      *Lifecycle // nil: the server's defaults
	// IdempotencyKey makes a repeated call return the first call's sandbox.
	IdempotencyKey string
	// Cold forbids claiming a warm pool member. For measurements.
	Cold bool
}

// SandboxQuery selects sandboxes for List. Empty fields do not filter.
type SandboxQuery struct {
	OrganizationID        string
	Policy                string
	IDPrefix              string
	NamePrefix            string            // case-insensitive
	Labels                map[string]string // all must match
	States                []State
	Snapshots             []string
	IncludeErroredDeleted bool
	Sort                  string // name, cpu, memoryGib, diskGib, lastActivityAt, createdAt; empty: lastActivityAt
	Ascending             bool
	Limit                 int    // 1..200; 0 means 100
	Cursor                string // from a previous page
}

// SandboxPage is one page of List. Next is empty on the last page.
type SandboxPage struct {
	Items []Sandbox
	Next  string
	Total int
}

// UpdateSandbox changes what may change while a sandbox runs. Nil fields stay.
type UpdateSandbox struct {
	Labels      *map[string]string // replaces all labels
	Public      *bool
	AutoStop    *time.Duration
	AutoArchive *time.Duration
	AutoDelete  *time.Duration
	TTL         *time.Duration
	Network     *NetworkPolicy
	Policy      *string // name; empty takes the sandbox out of its policy
}

// StopOptions says how to stop. Force kills at once; otherwise processes get
// Grace (0: 10 s) after SIGTERM.
type StopOptions struct {
	Force bool
	Grace time.Duration
}

// SandboxRef names a sandbox by id or name within one organization.
type SandboxRef struct{ OrganizationID, IDOrName string }

// Sandboxes is the life of sandboxes. The gateway, MCP and CLI call it.
// All methods return *Error values; changes wait until the sandbox is settled.
type Sandboxes interface {
	Create(ctx context.Context, req CreateSandbox) (Sandbox, error)
	Sandbox(ctx context.Context, ref SandboxRef) (Sandbox, error)
	List(ctx context.Context, q SandboxQuery) (SandboxPage, error)
	Start(ctx context.Context, ref SandboxRef) (Sandbox, error)
	Stop(ctx context.Context, ref SandboxRef, opt StopOptions) (Sandbox, error)
	Delete(ctx context.Context, ref SandboxRef) (Sandbox, error)
	Resize(ctx context.Context, ref SandboxRef, r Resources) (Sandbox, error)
	Update(ctx context.Context, ref SandboxRef, u UpdateSandbox) (Sandbox, error)
}

// Toolboxes reaches the toolbox inside sandboxes. The RoundTripper sends
// requests whose URL path is a toolbox path (as /process/execute); scheme and
// host are ignored. WebSocket upgrades pass. It refreshes last activity and
// fails with a conflict error when the sandbox is not started.
type Toolboxes interface {
	Toolbox(ctx context.Context, ref SandboxRef) (http.RoundTripper, error)

	// DialPort connects to what listens on a port inside a sandbox, on
	// 127.0.0.1 or else on [::1]. The context bounds the connecting only. The
	// connection has CloseWrite and no deadlines, counts as activity while it
	// is open unless the context is Quiet, and ends with the sandbox's run.
	// Nothing that listens is an unavailable error.
	DialPort(ctx context.Context, ref SandboxRef, port int) (net.Conn, error)
}

type quietKey struct{}

// WithoutActivity returns a context whose calls of Toolboxes do not count as
// activity of the sandbox.
func WithoutActivity(ctx context.Context) context.Context {
	return context.WithValue(ctx, quietKey{}, true)
}

// Quiet tells whether ctx comes from WithoutActivity.
func Quiet(ctx context.Context) bool {
	quiet, _ := ctx.Value(quietKey{}).(bool)
	return quiet
}

// Stats is one live sample of a sandbox's use.
type Stats struct {
	Time        time.Time
	CPUNanos    uint64 // since start
	MemoryBytes uint64
	CacheBytes  uint64 // pages of files, most of which the kernel gives back on need
	PIDs        uint64
	DiskBytes   uint64 // used on the writable disk
	OOMKills    uint64
	LastOOM     time.Time
}

// Inspector answers what is not part of a sandbox's record.
type Inspector interface {
	Stats(ctx context.Context, ref SandboxRef) (Stats, error)
	Doctor(ctx context.Context) (Report, error)
}
