// Package core is the use cases: the one implementation of the engine's
// services on a server. It owns the state machine. Every change first writes
// what is wanted, then acts on the runner, then writes what came of it, so
// that after a crash at any point package reconcile can tell what to finish.
package core

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/scheduler"
	"github.com/atoll-sh/atoll/engine/secret"
	"github.com/atoll-sh/atoll/engine/store"
)

// Store is what core needs of engine/store.
type Store interface {
	SandboxStore
	SnapshotStore
	KeyStore
	SecretStore
	RegistryStore
	CatalogStore
	WarmPoolStore
	AccountStore
	MemberStore
	AuditStore
	PreviewStore
	SSHStore
	PolicyStore
	AccessStore
}

// SandboxStore keeps sandboxes.
type SandboxStore interface {
	InsertSandbox(ctx context.Context, sb *store.Sandbox, key *store.Idempotency) error
	UpdateSandbox(ctx context.Context, sb *store.Sandbox) error
	DeleteSandbox(ctx context.Context, id string) error
	SandboxByID(ctx context.Context, id string) (store.Sandbox, error)
	Sandbox(ctx context.Context, ref engine.SandboxRef) (store.Sandbox, error)
	ListSandboxes(ctx context.Context, q engine.SandboxQuery) (engine.SandboxPage, error)
	LiveSandboxes(ctx context.Context) ([]store.Sandbox, error)
	CountSandboxes(ctx context.Context) (map[engine.State]int, error)
	TouchSandboxes(ctx context.Context, at map[string]time.Time) error
	PurgeSandboxes(ctx context.Context, before time.Time) (int, error)
	Idempotency(ctx context.Context, organizationID, key string, now time.Time) (store.Idempotency, error)
	PurgeIdempotency(ctx context.Context, before time.Time) error
}

// SnapshotStore keeps snapshots.
type SnapshotStore interface {
	InsertSnapshot(ctx context.Context, sn engine.Snapshot) error
	UpdateSnapshot(ctx context.Context, sn engine.Snapshot) error
	UseSnapshot(ctx context.Context, id string, at time.Time) error
	DeleteSnapshot(ctx context.Context, id string) error
	Snapshot(ctx context.Context, ref engine.SnapshotRef) (engine.Snapshot, error)
	AllSnapshots(ctx context.Context) ([]engine.Snapshot, error)
	ListSnapshots(ctx context.Context, q engine.SnapshotQuery) (engine.SnapshotPage, error)
}

// KeyStore keeps API keys.
type KeyStore interface {
	InsertKey(ctx context.Context, k store.Key, secret string) error
	PutKey(ctx context.Context, k store.Key, secret string) error
	KeyBySecret(ctx context.Context, secret string) (store.Key, error)
	ListKeys(ctx context.Context, organizationID string) ([]store.Key, error)
	KeyByName(ctx context.Context, organizationID, userID, name string) (store.Key, error)
	DeleteKey(ctx context.Context, organizationID, userID, name string) error
	TouchKey(ctx context.Context, id string, at time.Time) error
}

// AccountStore keeps users, organizations and their quotas.
type AccountStore interface {
	EnsureAccount(ctx context.Context, u engine.User, o engine.Organization) error
	UserByEmail(ctx context.Context, email string) (engine.User, error)
	User(ctx context.Context, id string) (engine.User, error)
	Users(ctx context.Context) ([]engine.User, error)
	InsertUser(ctx context.Context, u engine.User, o engine.Organization, quota *engine.RegionQuota, k store.Key, secret string) error
	InsertOrganization(ctx context.Context, o engine.Organization) error
	Organization(ctx context.Context, id string) (engine.Organization, error)
	Organizations(ctx context.Context, userID string) ([]engine.Organization, error)
	ChangeOrganization(ctx context.Context, id string, change func(*engine.Organization)) error
	DeleteOrganization(ctx context.Context, id string) error
	RegionQuotas(ctx context.Context, organizationID string) ([]engine.RegionQuota, error)
	InsertRegionQuota(ctx context.Context, q engine.RegionQuota) error
	PutRegionQuota(ctx context.Context, q engine.RegionQuota) error
	DeleteRegionQuota(ctx context.Context, organizationID, region string, class engine.Class) error
	Usage(ctx context.Context, organizationID, except string) ([]store.Use, error)
	CountSnapshots(ctx context.Context, organizationID string) (int, error)
}

// MemberStore keeps who belongs to an organization and what they may do.
type MemberStore interface {
	Members(ctx context.Context, organizationID, userID string) ([]store.Member, error)
	SetAccess(ctx context.Context, organizationID, userID string, a engine.Access, at time.Time) error
	DeleteMember(ctx context.Context, organizationID, userID string) error
	Roles(ctx context.Context, organizationID string) ([]engine.Role, error)
	InsertRole(ctx context.Context, r engine.Role) error
	UpdateRole(ctx context.Context, r engine.Role) error
	DeleteRole(ctx context.Context, organizationID, id string) error
	Invitations(ctx context.Context, q store.InvitationQuery) ([]store.Invitation, error)
	InsertInvitation(ctx context.Context, i store.Invitation) error
	UpdateInvitation(ctx context.Context, i store.Invitation, userID string) error
}

// AuditStore keeps the audit trail.
type AuditStore interface {
	AppendAudit(ctx context.Context, entries ...engine.AuditEntry) error
	Audit(ctx context.Context, q engine.AuditQuery) (engine.AuditPage, error)
	PurgeAudit(ctx context.Context, before time.Time, keep int) error
}

// Cluster is what core needs of engine/cluster.
type Cluster interface {
	Client(runnerID string) engine.Runner
	Runners(ctx context.Context) []engine.RunnerInfo
	Publish(e engine.Event)
	Watch(ctx context.Context, organizationID string) (<-chan engine.Event, error)
}

// ToolboxDialer connects to the toolbox inside a started sandbox.
type ToolboxDialer interface {
	Dial(ctx context.Context, sandboxID string) (net.Conn, error)
}

// Config is what core is made of. Store and Cluster are needed; toolboxes are
// unavailable without a Dialer.
type Config struct {
	Store           Store
	Cluster         Cluster
	Scheduler       *scheduler.Scheduler
	Dialer          ToolboxDialer
	Secret          []byte                                           // that preview secrets are derived from; empty: one for this process
	Ledger          Ledger                                           // of what sandboxes did; nil: none is kept
	Box             *secret.Box                                      // seals secrets; nil: none are kept
	PolicyHosts     map[string][]string                              // hosts by the variable of policies that stands for them; what is missing is asked of the default snapshot's tools
	DefaultSnapshot string                                           // name; empty: atoll-small
	OnDemand        []string                                         // images of the server's own snapshots that are built when first needed
	Tools           []string                                         // MCP tools and toolsets that keys may be limited to; empty: any name
	Identities      engine.Identities                                // checks access tokens; nil: only keys are taken
	SignUp          bool                                             // make users of those whom Identities knows and the server does not
	OutboundProxies []netip.Prefix                                   // private networks that sandboxes may have their outbound proxy in
	Target          string                                           // region of sandboxes whose caller names none; empty: local
	Lifecycle       *engine.Lifecycle                                // timers of sandboxes whose caller sets none
	Doctor          func(ctx context.Context) (engine.Report, error) // what this host can do
	Now             func() time.Time
	Log             *slog.Logger
}

func (c Config) withDefaults() Config {
	c.DefaultSnapshot = cmp.Or(c.DefaultSnapshot, "atoll-small")
	c.Target = cmp.Or(c.Target, "local")
	if c.Scheduler == nil {
		c.Scheduler = scheduler.New(scheduler.Config{})
	}
	if c.Lifecycle == nil {
		c.Lifecycle = &engine.Lifecycle{AutoStop: 15 * time.Minute, AutoArchive: 7 * 24 * time.Hour, AutoDelete: -1}
	}
	if len(c.Secret) == 0 {
		c.Secret = make([]byte, 32)
		_, _ = rand.Read(c.Secret) // never fails
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Core is the server's use cases. Its parts are got with Sandboxes, Snapshots,
// Toolboxes, Events, Keys and Inspector.
type Core struct {
	Config
	ops        *ops
	activity   *activity
	routes     *routes
	pools      *pools
	progress   progress
	principals *principals
	standings  *standings
	audit      *audit
	visits     *visits
	denials    *denials
	suspects   chan struct{}
	warm       *warm
	images     sync.RWMutex // read: one is made ready; write: one is dropped
	unneeded   unneeded
	documents  documents
	tools      toolHosts

	stop context.CancelFunc
	wg   sync.WaitGroup // everything that outlives a call
}

// New makes a core. Close ends it.
func New(c Config) (*Core, error) {
	if c.Store == nil || c.Cluster == nil {
		return nil, errors.New("core needs a store and a cluster")
	}
	ctx, stop := context.WithCancel(context.Background())
	core := &Core{
		Config: c.withDefaults(), ops: newOps(), activity: newActivity(), routes: newRoutes(),
		principals: newPrincipals(), standings: newStandings(), visits: newVisits(), denials: newDenials(), suspects: make(chan struct{}, 1), warm: newWarm(), stop: stop,
	}
	core.pools = newPools(core)
	core.audit = newAudit(core)
	core.wg.Go(func() { core.flushActivity(ctx) })
	core.wg.Go(func() { core.tendDenials(ctx) })
	return core, nil
}

// Close refuses new changes, waits for those under way until ctx ends, then
// cancels them and waits for their clean-up. Sandboxes go on.
func (c *Core) Close(ctx context.Context) error {
	err := c.ops.close(ctx)
	c.stop()
	c.wg.Wait()
	c.pools.closeAll()
	c.audit.close()
	return err
}

// Sandboxes is the life of sandboxes.
func (c *Core) Sandboxes() engine.Sandboxes { return sandboxes{c} }

// Snapshots is the life of snapshots.
func (c *Core) Snapshots() engine.Snapshots { return snapshots{c} }

// Toolboxes reaches into sandboxes.
func (c *Core) Toolboxes() engine.Toolboxes { return toolboxes{c} }

// Events tells of changes.
func (c *Core) Events() engine.Events { return events{c} }

// Inspector measures sandboxes and the host.
func (c *Core) Inspector() engine.Inspector { return inspector{c} }

// later runs work that the caller need not wait for. Close waits for it.
func (c *Core) later(ctx context.Context, what string, limit time.Duration, work func(ctx context.Context) error) {
	ctx = context.WithoutCancel(ctx)
	c.wg.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		if err := work(ctx); err != nil {
			c.Log.Warn("not done after the answer", "what", what, "error", err)
		}
	})
}

// public makes err an *engine.Error, as the services promise, and keeps the
// whole chain for the log.
func public(err error) error {
	var e *engine.Error
	if err == nil || errors.As(err, &e) && error(e) == err {
		return err
	}
	return engine.AsError(err).Wrap(err)
}

type events struct{ *Core }

// Watch refuses the empty organization, which inside the server means all.
func (e events) Watch(ctx context.Context, organizationID string) (<-chan engine.Event, error) {
	if organizationID == "" {
		return nil, engine.Errorf(engine.KindInvalid, "organization is empty")
	}
	ch, err := e.Cluster.Watch(ctx, organizationID)
	if err != nil {
		return nil, public(err)
	}
	if bound := engine.CallerOf(ctx).Principal.Policy; bound != "" {
		ch = e.ofPolicy(ctx, ch, bound)
	}
	return seen(ctx, engine.ScopeOf(ctx), ch), nil
}

// ofPolicy passes on what is about objects under a policy.
func (e events) ofPolicy(ctx context.Context, in <-chan engine.Event, policy string) <-chan engine.Event {
	out := make(chan engine.Event)
	e.wg.Go(func() {
		defer close(out)
		for ev := range in {
			if (ev.Sandbox == nil || ev.Sandbox.Policy != policy) && (ev.Snapshot == nil || ev.Snapshot.Policy != policy) {
				continue
			}
			select {
			case out <- ev:
			case <-ctx.Done():
				return
			}
		}
	})
	return out
}

type inspector struct{ *Core }

// Stats fails with a conflict unless the sandbox is started.
func (i inspector) Stats(ctx context.Context, ref engine.SandboxRef) (engine.Stats, error) {
	sb, err := i.find(ctx, ref)
	if err != nil {
		return engine.Stats{}, public(err)
	}
	if !running(&sb) {
		return engine.Stats{}, notStarted(&sb)
	}
	ctx, cancel := context.WithTimeout(ctx, limitInspect)
	defer cancel()
	st, err := i.Cluster.Client(sb.Runner).Stats(ctx, sb.ID)
	return st, public(err)
}

func (i inspector) Doctor(ctx context.Context) (engine.Report, error) {
	if i.Config.Doctor == nil {
		return engine.Report{}, engine.Errorf(engine.KindUnsupported, "this server cannot examine its host")
	}
	r, err := i.Config.Doctor(ctx)
	return r, public(err)
}
