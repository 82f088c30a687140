// Package coretest is a whole core for the tests of what is built on it: a
// real store on SQLite, and a runner in memory.
package coretest

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/core"
	"github.com/atoll-sh/atoll/engine/enginetest"
	"github.com/atoll-sh/atoll/engine/store"
)

// AdminSecret is the key of the server's administrator.
const AdminSecret = "atl_the_administrator_of_a_test"

// Rig is a core and what it stands on.
type Rig struct {
	*core.Core
	Store  *store.Store
	Runner *enginetest.Runner
	Bus    *enginetest.Bus
}

// New opens a core with the administrator's key and the snapshot atoll-small.
// It ends with the test.
func New(tb testing.TB, change ...func(*core.Config)) *Rig {
	tb.Helper()
	db, err := store.Open(tb.Context(), filepath.Join(tb.TempDir(), "atoll.db"), nil)
	if err != nil {
		tb.Fatal(err)
	}
	r := &Rig{Store: db, Runner: enginetest.NewRunner("r1")}
	r.Bus = enginetest.NewBus(r.Runner)
	cfg := core.Config{Store: db, Cluster: r.Bus}
	for _, c := range change {
		c(&cfg)
	}
	if r.Core, err = core.New(cfg); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			tb.Error(err)
		}
		_ = db.Close()
	})
	for _, step := range []func() error{
		func() error { return r.Keys().EnsureAdmin(tb.Context(), AdminSecret) },
		func() error { return r.EnsureDefaults(tb.Context(), snapshots()) },
		func() error { return r.PrepareDefaults(tb.Context()) },
	} {
		if err := step(); err != nil {
			tb.Fatal(err)
		}
	}
	return r
}

func snapshots() []engine.Snapshot {
	return []engine.Snapshot{{
		Name: "atoll-small", Image: "atoll:default", User: "daytona", WorkDir: "/home/daytona",
		Resources: engine.Resources{CPU: 1, MemoryMiB: 1024, DiskMiB: 3072},
	}}
}

// Admin is the server's administrator.
func (r *Rig) Admin(tb testing.TB) engine.Principal { return r.Principal(tb, AdminSecret) }

// Principal is whom a secret belongs to.
func (r *Rig) Principal(tb testing.TB, secret string) engine.Principal {
	tb.Helper()
	p, err := r.Keys().Authenticate(tb.Context(), secret)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// User makes a user with an organization of their own and an unrestricted key.
func (r *Rig) User(tb testing.TB, name string) (engine.NewUser, engine.Principal) {
	tb.Helper()
	u, err := r.Accounts().Users.CreateUser(tb.Context(), r.Admin(tb), engine.CreateUser{Name: name, Email: name + "@example.com"})
	if err != nil {
		tb.Fatal(err)
	}
	return u, r.Principal(tb, u.Secret)
}

// Key makes a key of p and returns its secret. Nil permissions are for an
// unrestricted one.
func (r *Rig) Key(tb testing.TB, p engine.Principal, name string, permissions []string) string {
	tb.Helper()
	_, secret, err := r.Accounts().Keys.Create(tb.Context(), p, engine.CreateKey{Name: name, Permissions: permissions})
	if err != nil {
		tb.Fatal(err)
	}
	return secret
}

// AddKey stores a key of the administrator whose secret and name the test
// chooses. Nil permissions are for one that may do everything.
func (r *Rig) AddKey(tb testing.TB, secret string, permissions []string) {
	tb.Helper()
	err := r.Store.InsertKey(tb.Context(), store.Key{Admin: permissions == nil, APIKey: engine.APIKey{
		ID: "key-" + secret, OrganizationID: engine.DefaultOrganization, UserID: engine.DefaultUser, Name: secret, Prefix: secret[:4],
		Unrestricted: permissions == nil, Permissions: permissions, CreatedAt: r.Now(),
	}}, secret)
	if err != nil {
		tb.Fatal(err)
	}
}
