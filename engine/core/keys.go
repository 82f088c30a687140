package core

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"math/big"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

const (
	secretPrefix = "atl_"
	secretLen    = 40
	base62       = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

	// keyTTL bounds for how long a key works here that another server has
	// revoked. One that this server revokes ends at once.
	keyTTL = 5 * time.Second
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

// Keys is API keys.
type Keys struct{ *Core }

// Keys authenticates callers and manages their keys.
func (c *Core) Keys() Keys { return Keys{c} }

var _ engine.Keys = Keys{}

type keyCache struct {
	mu sync.Mutex
	m  map[[sha256.Size]byte]cachedKey
}

type cachedKey struct {
	key store.Key
	at  time.Time
}

func newKeyCache() *keyCache { return &keyCache{m: map[[sha256.Size]byte]cachedKey{}} }

func (k *keyCache) look(secret string, now time.Time) (store.Key, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	got, ok := k.m[sha256.Sum256([]byte(secret))]
	return got.key, ok && now.Sub(got.at) < keyTTL
}

func (k *keyCache) keep(secret string, key store.Key, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.m) > 1000 {
		clear(k.m)
	}
	k.m[sha256.Sum256([]byte(secret))] = cachedKey{key, now}
}

func (k *keyCache) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.m)
}

// Authenticate tells who a secret belongs to.
func (k Keys) Authenticate(ctx context.Context, secret string) (engine.Principal, error) {
	if secret == "" {
		return engine.Principal{}, unauthenticated("the API key is missing")
	}
	now := k.Now()
	key, ok := k.keyCache.look(secret, now)
	if !ok {
		var err error
		key, err = k.Store.KeyBySecret(ctx, secret)
		if engine.KindOf(err) == engine.KindNotFound {
			return engine.Principal{}, unauthenticated("the API key is not known")
		}
		if err != nil {
			return engine.Principal{}, public(err)
		}
		k.keyCache.keep(secret, key, now)
		k.used(ctx, key, now)
	}
	if !key.ExpiresAt.IsZero() && !now.Before(key.ExpiresAt) {
		return engine.Principal{}, unauthenticated("the API key has expired")
	}
	return engine.Principal{
		OrganizationID: key.OrganizationID, KeyID: key.ID, KeyName: key.Name,
		Permissions: slices.Clone(key.Permissions), Admin: key.Admin,
	}, nil
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

// EnsureAdmin makes secret the admin's key of the default organization, in
// place of the one before.
func (k Keys) EnsureAdmin(ctx context.Context, secret string) error {
	if len(secret) < 16 {
		return invalid("the admin API key has %d characters", len(secret)).WithHint("use at least 16, or leave ATOLL_API_KEY out to have one made")
	}
	now := k.Now().UTC()
	if old, err := k.Store.KeyBySecret(ctx, secret); err == nil && old.Admin && old.OrganizationID == engine.DefaultOrganization {
		return nil // the same as at the last start, and so is its id
	}
	if err := k.Store.EnsureOrganization(ctx, engine.DefaultOrganization, "Default", now); err != nil {
		return public(err)
	}
	defer k.keyCache.forget()
	return public(k.Store.PutKey(ctx, store.Key{Admin: true, APIKey: engine.APIKey{
		ID: uuid.NewString(), OrganizationID: engine.DefaultOrganization, Name: "admin",
		Prefix: prefix(secret), CreatedAt: now,
	}}, secret))
}

func prefix(secret string) string { return secret[:min(len(secret)/3, 8)] }

// Create makes a key and returns its secret, which cannot be read again.
func (k Keys) Create(ctx context.Context, organizationID, name string, permissions []string, expires time.Time) (engine.APIKey, string, error) {
	now := k.Now().UTC()
	err := firstError(checkOrganization(organizationID), checkText("name", name, 128))
	switch {
	case err != nil:
		return engine.APIKey{}, "", err
	case strings.TrimSpace(name) == "":
		return engine.APIKey{}, "", invalid("name is empty").WithHint("name the key")
	case !expires.IsZero() && !expires.After(now):
		return engine.APIKey{}, "", invalid("expiresAt is in the past").WithHint("leave it out, or use a later time")
	}
	secret := NewSecret()
	key := engine.APIKey{
		ID: uuid.NewString(), OrganizationID: organizationID, Name: name, Prefix: prefix(secret),
		Permissions: permissions, CreatedAt: now, ExpiresAt: expires,
	}
	if err := k.Store.InsertKey(ctx, store.Key{APIKey: key}, secret); err != nil {
		return engine.APIKey{}, "", public(err)
	}
	return key, secret, nil
}

// List returns an organization's keys, without secrets.
func (k Keys) List(ctx context.Context, organizationID string) ([]engine.APIKey, error) {
	keys, err := k.Store.ListKeys(ctx, organizationID)
	out := make([]engine.APIKey, len(keys))
	for i := range keys {
		out[i] = keys[i].APIKey
	}
	return out, public(err)
}

// Revoke ends a key at once.
func (k Keys) Revoke(ctx context.Context, organizationID, idOrName string) error {
	defer k.keyCache.forget()
	return public(k.Store.DeleteKey(ctx, organizationID, idOrName))
}
