package core

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/atoll-sh/atoll/engine"
)

// tokenLike tells a signed access token from a key, as far as its form does.
func (k Keys) tokenLike(secret string) bool {
	return k.Identities != nil && strings.HasPrefix(secret, "ey") && strings.Count(secret, ".") == 2
}

// byToken reads whom an access token speaks for: the user that the provider
// vouches for, in one of their organizations, with no more than their role
// there and the token's scopes both allow.
func (k Keys) byToken(ctx context.Context, token string) (engine.Principal, error) {
	id, err := k.Identities.Identify(ctx, token)
	if err != nil {
		return engine.Principal{}, public(err)
	}
	user, err := k.userOf(ctx, id)
	if err != nil {
		return engine.Principal{}, public(err)
	}
	orgID, err := k.organizationOf(ctx, id, user)
	if err != nil {
		return engine.Principal{}, public(err)
	}
	m, err := k.member(ctx, orgID, user.ID)
	if engine.KindOf(err) == engine.KindNotFound {
		return engine.Principal{}, noOrganization(orgID)
	}
	if err != nil {
		return engine.Principal{}, public(err)
	}
	org, err := k.standing(ctx, orgID)
	if err != nil {
		return engine.Principal{}, public(err)
	}
	p := engine.Principal{
		OrganizationID: orgID, KeyID: tokenKey + user.ID, KeyName: tokenKey + id.Subject, ExpiresAt: id.ExpiresAt,
		UserID: user.ID, UserEmail: m.Email, Role: m.Role, Rates: org.Quota.Rates(),
	}
	return grant(p, id.Scopes, m.permissions(), user.Admin)
}

// tokenKey begins what stands for the id of a key where there is a token.
const tokenKey = "token:"

// userOf finds the user of an identity: the one that was made for it, or one
// with the address that the provider has verified.
func (k Keys) userOf(ctx context.Context, id engine.Identity) (engine.User, error) {
	made := uuid.NewSHA1(uuid.NameSpaceURL, []byte(id.Issuer+"\n"+id.Subject)).String()
	user, err := k.Store.User(ctx, made)
	if engine.KindOf(err) == engine.KindNotFound && id.Email != "" {
		user, err = k.Store.UserByEmail(ctx, id.Email)
	}
	if engine.KindOf(err) != engine.KindNotFound {
		return user, err
	}
	if !k.SignUp {
		return engine.User{}, engine.Errorf(engine.KindUnauthenticated, "the access token is good, but this server has no user for it").
			WithHint("ask an administrator for a user with your email address")
	}
	return k.signUp(ctx, id, made)
}

// signUp makes the user of an identity, with an organization of their own. Two
// at once make one.
func (k Keys) signUp(ctx context.Context, id engine.Identity, userID string) (engine.User, error) {
	now := k.Now().UTC()
	name := cmp.Or(id.Name, id.Email, id.Subject)
	if checkText("name", name, 128) != nil || strings.TrimSpace(name) == "" {
		name = userID
	}
	email := id.Email
	if checkEmail(email) != nil {
		email = ""
	}
	user := engine.User{ID: userID, Name: name, Email: email, EmailVerified: email != "", CreatedAt: now}
	return user, k.Store.EnsureAccount(ctx, user, engine.Organization{
		ID: uuid.NewSHA1(uuid.NameSpaceURL, []byte(userID)).String(), Name: name, CreatedBy: userID, Personal: true, CreatedAt: now, UpdatedAt: now,
	})
}

// organizationOf is where a token counts: the one it is bound to, the one the
// caller asks for, the user's own, or the first that they are in.
func (k Keys) organizationOf(ctx context.Context, id engine.Identity, user engine.User) (string, error) {
	asked := engine.OrganizationOf(ctx)
	switch {
	case id.OrganizationID != "" && asked != "" && asked != id.OrganizationID:
		return "", noOrganization(asked)
	case id.OrganizationID != "" || asked != "":
		return cmp.Or(id.OrganizationID, asked), nil
	}
	all, err := k.Store.Organizations(ctx, user.ID)
	if err != nil {
		return "", err
	}
	for _, o := range all {
		if o.Personal && o.CreatedBy == user.ID {
			return o.ID, nil
		}
	}
	if len(all) == 0 {
		return "", engine.Errorf(engine.KindUnauthenticated, "the access token's user is in no organization").WithHint("ask an owner for an invitation")
	}
	return all[0].ID, nil
}

// grant gives a principal what the scopes of a token and the role of its user
// both allow. A token without any scope of ours is good for nothing.
func grant(p engine.Principal, scopes, role []string, admin bool) (engine.Principal, error) {
	has := func(scope string) bool { return slices.Contains(scopes, scope) }
	named := slices.ContainsFunc(scopes, func(s string) bool { return slices.Contains(engine.Permissions(), s) })
	p.Permissions = slices.DeleteFunc(role, func(s string) bool {
		switch {
		case has(engine.TokenAdmin) || has(s):
			return false
		case has(engine.TokenWrite):
			return s == engine.ManageKeys
		case has(engine.TokenRead):
			return !strings.HasPrefix(s, "read:")
		}
		return true
	})
	switch {
	case has(engine.TokenAdmin):
		p.Unrestricted, p.Admin = true, admin
	case has(engine.TokenWrite) || named:
	case has(engine.TokenRead):
		p.Scope.ReadOnly = true
	default:
		return engine.Principal{}, engine.Errorf(engine.KindDenied, "the access token has no scope of this server").
			WithHint("ask the identity provider for %s", strings.Join(engine.TokenScopes(), ", "))
	}
	return p, nil
}
