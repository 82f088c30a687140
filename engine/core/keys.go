package core

import (
	"cmp"
	"context"
	"crypto/rand"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

const (
	secretPrefix = "atl_"
	secretLen    = 40
	base62       = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	maxKeys      = 1000 // of one organization
)

// NewSecret makes the secret of an API key: atl_ and 40 letters and digits,
// which is 238 bits of chance.
func NewSecret() string {
	var b strings.Builder
	b.WriteString(secretPrefix)
	for range secretLen {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(base62))))
		if err != nil {
			panic(err) // the kernel has no randomness; nothing is safe then
		}
		b.WriteByte(base62[n.Int64()])
	}
	return b.String()
}

// Keys is API keys. It implements engine.Keys and engine.KeyRing.
type Keys struct{ *Core }

// Keys authenticates callers and manages their keys.
func (c *Core) Keys() Keys { return Keys{c} }

var (
	_ engine.Keys    = Keys{}
	_ engine.KeyRing = Keys{}
)

// Changed returns a channel that is closed when a principal may have changed:
// who holds a stream open asks again then.
func (k Keys) Changed() <-chan struct{} { return k.principals.changed() }

// Authenticate tells who a secret belongs to.
func (k Keys) Authenticate(ctx context.Context, secret string) (engine.Principal, error) {
	if secret == "" {
		return engine.Principal{}, unauthenticated("the API key is missing")
	}
	now := k.Now()
	// The same token may speak for its user in one organization or another.
	name := secret
	if org := engine.OrganizationOf(ctx); org != "" && k.tokenLike(secret) {
		name += " " + org
	}
	p, gen, ok := k.principals.look(name, now)
	if !ok {
		var err error
		if p, err = k.principal(ctx, secret, now); err != nil {
			return engine.Principal{}, err
		}
		k.principals.keep(name, gen, p, now)
	}
	if !p.ExpiresAt.IsZero() && !now.Before(p.ExpiresAt) {
		return engine.Principal{}, unauthenticated("the API key has expired")
	}
	p.Permissions, p.Scope = slices.Clone(p.Permissions), p.Scope.Clone()
	return p, nil
}

// principal reads who a secret belongs to. A key whose user has left the
// organization is as good as revoked.
func (k Keys) principal(ctx context.Context, secret string, now time.Time) (engine.Principal, error) {
	key, err := k.Store.KeyBySecret(ctx, secret)
	if engine.KindOf(err) == engine.KindNotFound && k.tokenLike(secret) {
		return k.byToken(ctx, secret)
	}
	if engine.KindOf(err) == engine.KindNotFound {
		return engine.Principal{}, unauthenticated("the API key is not known")
	}
	if err != nil {
		return engine.Principal{}, public(err)
	}
	m, err := k.member(ctx, key.OrganizationID, key.UserID)
	if engine.KindOf(err) == engine.KindNotFound {
		return engine.Principal{}, unauthenticated("the API key's user has left the organization")
	}
	if err != nil {
		return engine.Principal{}, public(err)
	}
	org, err := k.standing(ctx, key.OrganizationID)
	if err != nil {
		return engine.Principal{}, public(err)
	}
	k.used(ctx, key, now)
	p := engine.Principal{
		OrganizationID: key.OrganizationID, KeyID: key.ID, KeyName: key.Name, KeyPrefix: key.Prefix, KeySuffix: key.Suffix,
		ExpiresAt: key.ExpiresAt, UserID: key.UserID, UserEmail: m.Email, Role: m.Role,
		Unrestricted: key.Unrestricted, Permissions: m.permissions(), Scope: key.Scope, Admin: key.Admin, Rates: org.Quota.Rates(),
	}
	if err := k.bind(ctx, &p, key.Policy); err != nil {
		return engine.Principal{}, public(err)
	}
	if !key.Unrestricted {
		p.Permissions = slices.DeleteFunc(p.Permissions, func(s string) bool { return !slices.Contains(key.Permissions, s) })
	}
	return p, nil
}

// bind gives a principal what the policy says of tools that its key is bound to.
func (k Keys) bind(ctx context.Context, p *engine.Principal, policy string) error {
	if policy == "" {
		return nil
	}
	named, err := k.named(ctx, p.OrganizationID, policy)
	if err != nil {
		return err
	}
	doc, err := k.documents.parse(named.Document)
	if err != nil {
		return err
	}
	p.Policy, p.Tools = policy, &doc.Tools
	return nil
}

func unauthenticated(message string) error {
	return engine.Errorf(engine.KindUnauthenticated, "%s", message).
		WithHint("set ATOLL_API_KEY, or send the header Authorization: Bearer KEY")
}

// used notes the last use, at most once a minute.
func (k Keys) used(ctx context.Context, key store.Key, now time.Time) {
	if now.Sub(key.LastUsedAt) < time.Minute {
		return
	}
	k.later(ctx, "note the use of key "+key.ID, limitInspect, func(ctx context.Context) error {
		return k.Store.TouchKey(ctx, key.ID, now)
	})
}

// EnsureAdmin makes secret the key of the server's own administrator in the
// default organization, in place of the one before.
func (k Keys) EnsureAdmin(ctx context.Context, secret string) error {
	if len(secret) < 16 {
		return invalid("the admin API key has %d characters", len(secret)).WithHint("use at least 16, or leave ATOLL_API_KEY out to have one made")
	}
	now := k.Now().UTC()
	user := engine.User{ID: engine.DefaultUser, Name: "admin", Email: "admin@localhost", Admin: true, CreatedAt: now}
	err := k.Store.EnsureAccount(ctx, user, engine.Organization{
		ID: engine.DefaultOrganization, Name: "Default", CreatedBy: user.ID, Personal: true, CreatedAt: now, UpdatedAt: now,
	})
	if err != nil {
		return public(err)
	}
	if old, err := k.Store.KeyBySecret(ctx, secret); err == nil && serverKey(old) {
		return nil // the same as at the last start, and so is its id
	}
	defer k.principals.forget()
	key := newKey(engine.DefaultOrganization, user.ID, adminKey, secret, now)
	key.Admin, key.Unrestricted = true, true
	return public(k.Store.PutKey(ctx, key, secret))
}

// adminKey is the name of the key that the server's start makes.
const adminKey = "admin"

func serverKey(k store.Key) bool {
	return k.Admin && k.Name == adminKey && k.UserID == engine.DefaultUser && k.OrganizationID == engine.DefaultOrganization
}

func newKey(organizationID, userID, name, secret string, now time.Time) store.Key {
	shown := min(len(secret)/3, 8)
	return store.Key{APIKey: engine.APIKey{
		ID: uuid.NewString(), OrganizationID: organizationID, UserID: userID, Name: name,
		Prefix: secret[:shown], Suffix: secret[len(secret)-shown/2:], CreatedAt: now,
	}}
}

// Create makes a key that can do no more than the caller.
func (k Keys) Create(ctx context.Context, p engine.Principal, req engine.CreateKey) (engine.APIKey, string, error) {
	now := k.Now().UTC()
	if err := firstError(checkKey(req, now), k.checkScope(req.Scope, req.Permissions)); err != nil {
		return engine.APIKey{}, "", err
	}
	org, user := cmp.Or(req.OrganizationID, p.OrganizationID), cmp.Or(req.UserID, p.UserID)
	m, err := k.holder(ctx, p, org, user)
	if err != nil {
		return engine.APIKey{}, "", public(err)
	}
	secret := NewSecret()
	key := newKey(org, user, req.Name, secret, now)
	key.ExpiresAt, key.Permissions, key.Unrestricted = req.ExpiresAt, req.Permissions, req.Permissions == nil
	key.Scope = req.Scope.Clone()
	key.Policy = cmp.Or(req.Policy, p.Policy)
	key.Admin = key.Unrestricted && p.Admin && user == p.UserID && key.Policy == ""
	if err := k.mayBind(ctx, p, key.APIKey); err != nil {
		return engine.APIKey{}, "", public(err)
	}
	if err := mayGrant(p, m, key.APIKey); err != nil {
		return engine.APIKey{}, "", err
	}
	if all, err := k.Store.ListKeys(ctx, org); err != nil || len(all) >= maxKeys {
		if err == nil {
			err = engine.Errorf(engine.KindExhausted, "the organization has %d keys", len(all)).WithHint("delete some")
		}
		return engine.APIKey{}, "", public(err)
	}
	if err := k.Store.InsertKey(ctx, key, secret); err != nil {
		return engine.APIKey{}, "", public(err)
	}
	return key.APIKey, secret, nil
}

func checkKey(req engine.CreateKey, now time.Time) error {
	switch {
	case strings.TrimSpace(req.Name) == "":
		return invalid("name is empty").WithHint("name the key")
	case req.Name == "current":
		return invalid("name %q stands for the key of a request", req.Name).WithHint("choose another name")
	case !req.ExpiresAt.IsZero() && !req.ExpiresAt.After(now):
		return invalid("expiresAt is in the past").WithHint("leave it out, or use a later time")
	}
	return firstError(checkText("name", req.Name, 128), checkPermissions(req.Permissions))
}

func checkPermissions(list []string) error {
	for i, s := range list {
		if !slices.Contains(engine.Permissions(), s) {
			return invalid("permission %s is not known", quote(s)).WithHint("use some of %s", strings.Join(engine.Permissions(), ", "))
		}
		if slices.Contains(list[:i], s) {
			return invalid("permission %s is there twice", s)
		}
	}
	return nil
}

// holder returns the member whose key it shall be. Keys of others, and keys in
// other organizations than the caller's key is of, are not everybody's to make.
func (k Keys) holder(ctx context.Context, p engine.Principal, org, user string) (member, error) {
	if err := engine.Authorize(p, engine.ManageKeys, ""); err != nil {
		return member{}, err
	}
	if user != p.UserID && !p.Admin {
		return member{}, engine.Errorf(engine.KindDenied, "keys of other users are for administrators to make")
	}
	if org != p.OrganizationID && !p.Unrestricted {
		return member{}, noOrganization(org)
	}
	m, err := k.member(ctx, org, user)
	if engine.KindOf(err) == engine.KindNotFound {
		return member{}, noOrganization(org)
	}
	return m, err
}

// mayBind refuses a policy that there is none of, and keys that would get out of
// the one that their maker is bound to.
func (k Keys) mayBind(ctx context.Context, p engine.Principal, key engine.APIKey) error {
	if p.Policy != "" && (key.Policy != p.Policy || key.OrganizationID != p.OrganizationID) {
		return engine.Errorf(engine.KindDenied, "this API key is bound to policy %s, and so are the keys that it makes", p.Policy).WithHint("leave the policy out")
	}
	if key.Policy == "" {
		return nil
	}
	_, err := k.named(ctx, key.OrganizationID, key.Policy)
	if engine.KindOf(err) == engine.KindNotFound {
		return invalid("policy %s does not exist", quote(key.Policy)).WithHint("list the policies that there are")
	}
	return err
}

// mayGrant refuses keys that could do more than their maker.
func mayGrant(p engine.Principal, m member, key engine.APIKey) error {
	if key.Unrestricted {
		if p.Unrestricted {
			return nil
		}
		return engine.Errorf(engine.KindDenied, "a restricted key cannot make an unrestricted one").WithHint("name the permissions")
	}
	has := p.Permissions
	if key.OrganizationID != p.OrganizationID || key.UserID != p.UserID {
		has = m.permissions() // the maker's key is unrestricted
	}
	for _, s := range key.Permissions {
		if !slices.Contains(has, s) {
			return engine.Errorf(engine.KindDenied, "a key cannot get the permission %s, which its maker lacks", s).WithHint("leave it out")
		}
	}
	return nil
}

// List returns the caller's keys, and for owners those of all members.
func (k Keys) List(ctx context.Context, p engine.Principal) ([]engine.APIKey, error) {
	keys, err := k.Store.ListKeys(ctx, p.OrganizationID)
	if err != nil {
		return nil, public(err)
	}
	all := ownsKeys(p) && engine.Authorize(p, engine.ManageKeys, "") == nil
	out := []engine.APIKey{}
	for _, key := range keys {
		if all || key.UserID == p.UserID {
			out = append(out, key.APIKey)
		}
	}
	return out, nil
}

func ownsKeys(p engine.Principal) bool { return p.Admin || p.Role == engine.RoleOwner }

// Key returns one of the caller's own keys.
func (k Keys) Key(ctx context.Context, p engine.Principal, name string) (engine.APIKey, error) {
	key, err := k.Store.KeyByName(ctx, p.OrganizationID, p.UserID, name)
	return key.APIKey, public(err)
}

// Revoke ends a key at once, here and within seconds on other servers.
func (k Keys) Revoke(ctx context.Context, p engine.Principal, userID, name string) error {
	userID = cmp.Or(userID, p.UserID)
	if err := engine.Authorize(p, engine.ManageKeys, ""); err != nil {
		return err
	}
	if userID != p.UserID && !ownsKeys(p) {
		return engine.Errorf(engine.KindDenied, "keys of other users are for owners to delete")
	}
	key, err := k.Store.KeyByName(ctx, p.OrganizationID, userID, name)
	if err != nil {
		return public(err)
	}
	if serverKey(key) {
		return engine.Errorf(engine.KindDenied, "this is the server's own key").WithHint("start the server with another ATOLL_API_KEY to replace it")
	}
	if err := k.Store.DeleteKey(ctx, p.OrganizationID, userID, name); err != nil {
		return public(err)
	}
	k.principals.forget()
	return nil
}
