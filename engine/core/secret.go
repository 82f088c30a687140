package core

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/secret"
	"github.com/atoll-sh/atoll/engine/store"
	toolboxclient "github.com/atoll-sh/atoll/engine/toolbox/client"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
	"github.com/atoll-sh/atoll/policies"
)

// SecretStore keeps secrets.
type SecretStore interface {
	InsertSecret(ctx context.Context, sec store.Secret) error
	UpdateSecret(ctx context.Context, sec store.Secret) error
	DeleteSecret(ctx context.Context, organizationID, id string) error
	Secret(ctx context.Context, ref engine.SecretRef) (store.Secret, error)
	SecretsByID(ctx context.Context, organizationID string, ids []string) ([]store.Secret, error)
	ListSecrets(ctx context.Context, q engine.SecretQuery) (engine.SecretPage, error)
	SandboxesWithSecret(ctx context.Context, organizationID, secretID string) ([]store.Sandbox, error)
	SealedBefore(ctx context.Context, keyID string) ([]store.Resealable, error)
	Reseal(ctx context.Context, old store.Resealable, fresh secret.Sealed) error
}

const (
	maxSecrets           = 1000 // of an organization
	maxSecretsPerSandbox = 64
	maxSecretValue       = 64 << 10
	detachAtOnce         = 16
)

var secretRule = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)

type secrets struct{ *Core }

// Secrets is the life of secrets.
func (c *Core) Secrets() engine.Secrets { return secrets{c} }

// box returns what seals, or says that this server has none.
func (c *Core) box() (*secret.Box, error) {
	if c.Box == nil {
		return nil, engine.Errorf(engine.KindUnsupported, "this server keeps no secrets: it has no key file")
	}
	return c.Box, nil
}

func (c *Core) seal(table, organizationID, id, value string) (secret.Sealed, error) {
	box, err := c.box()
	if err != nil {
		return secret.Sealed{}, err
	}
	return box.Seal(secret.Owner(table, organizationID, id), secret.NewValue(value))
}

func (c *Core) unseal(table, organizationID, id string, s secret.Sealed) (secret.Value, error) {
	box, err := c.box()
	if err != nil {
		return secret.Value{}, err
	}
	return box.Open(secret.Owner(table, organizationID, id), s)
}

// Create stores a secret, its value sealed.
func (s secrets) Create(ctx context.Context, req engine.CreateSecret) (engine.Secret, error) {
	if !secretRule.MatchString(req.Name) {
		return engine.Secret{}, invalid("secret name %s is not allowed", quote(req.Name)).
			WithHint("use 1 to 128 letters, digits, dashes and underscores")
	}
	err := firstError(ctx.Err(), checkOrganization(req.OrganizationID), checkSecretValue(req.Value),
		checkText("description", req.Description, 1024), checkHosts(req.Hosts), s.roomForSecret(ctx, req.OrganizationID))
	if err != nil {
		return engine.Secret{}, public(err)
	}
	id, now := uuid.NewString(), s.Now().UTC()
	sealed, err := s.seal("secrets", req.OrganizationID, id, req.Value)
	if err != nil {
		return engine.Secret{}, public(err)
	}
	row := store.Secret{Sealed: sealed, Secret: engine.Secret{
		ID: id, OrganizationID: req.OrganizationID, Name: req.Name, Description: req.Description, Hosts: req.Hosts,
		Placeholder: secret.Placeholder(id), CreatedAt: now, UpdatedAt: now,
	}}
	return row.Secret, public(s.Store.InsertSecret(ctx, row))
}

func (s secrets) roomForSecret(ctx context.Context, organizationID string) error {
	page, err := s.Store.ListSecrets(ctx, engine.SecretQuery{OrganizationID: organizationID, Limit: 1})
	if err == nil && page.Total >= maxSecrets {
		err = engine.Errorf(engine.KindExhausted, "the organization has %d secrets", page.Total).WithHint("delete those that nothing uses")
	}
	return err
}

func checkSecretValue(value string) error {
	switch {
	case value == "":
		return invalid("value is empty").WithHint("send the secret's value")
	case len(value) > maxSecretValue:
		return invalid("value has %d bytes", len(value)).WithHint("use at most %d", maxSecretValue)
	case !utf8.ValidString(value), strings.ContainsRune(value, 0):
		return invalid("value is not UTF-8 text").WithHint("encode it, for example as base64")
	}
	return nil
}

func checkHosts(hosts []string) error {
	if len(hosts) > maxList {
		return invalid("hosts has %d entries", len(hosts)).WithHint("use at most %d", maxList)
	}
	for _, h := range hosts {
		if _, err := policies.ParseHost(h); err != nil {
			return invalid("hosts: %s is not a host name", quote(h)).WithHint("use a form like api.example.com or *.example.com, without a port")
		}
	}
	return nil
}

// Secret returns one secret, without its value.
func (s secrets) Secret(ctx context.Context, ref engine.SecretRef) (engine.Secret, error) {
	row, err := s.secret(ctx, ref)
	return row.Secret, public(err)
}

func (c *Core) secret(ctx context.Context, ref engine.SecretRef) (store.Secret, error) {
	if ref.IDOrName == "" {
		return store.Secret{}, invalid("secret id or name is empty")
	}
	return c.Store.Secret(ctx, ref)
}

// List returns one page of an organization's secrets.
func (s secrets) List(ctx context.Context, q engine.SecretQuery) (engine.SecretPage, error) {
	page, err := s.Store.ListSecrets(ctx, q)
	return page, public(err)
}

// Update changes a secret. Its placeholder stays, so sandboxes need not be told.
func (s secrets) Update(ctx context.Context, ref engine.SecretRef, u engine.UpdateSecret) (engine.Secret, error) {
	row, err := s.secret(ctx, ref)
	if err != nil {
		return engine.Secret{}, public(err)
	}
	if u.Value != nil {
		if err := checkSecretValue(*u.Value); err != nil {
			return engine.Secret{}, err
		}
		if row.Sealed, err = s.seal("secrets", row.OrganizationID, row.ID, *u.Value); err != nil {
			return engine.Secret{}, public(err)
		}
	}
	set(&row.Description, u.Description)
	set(&row.Hosts, u.Hosts)
	if err := firstError(checkText("description", row.Description, 1024), checkHosts(row.Hosts)); err != nil {
		return engine.Secret{}, err
	}
	row.UpdatedAt = s.Now().UTC()
	if err := s.Store.UpdateSecret(ctx, row); err != nil {
		return engine.Secret{}, public(err)
	}
	if u.Hosts != nil {
		s.eachUser(ctx, row, func(ctx context.Context, sb *store.Sandbox) error {
			if !running(sb) {
				return nil
			}
			return s.tellTravels(ctx, sb)
		})
	}
	return row.Secret, nil
}

// eachUser calls f for the sandboxes of a secret that changed or went. What
// fails is logged; it is made good when they start again.
func (s secrets) eachUser(ctx context.Context, row store.Secret, f func(context.Context, *store.Sandbox) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limitRemove)
	defer cancel()
	users, err := s.Store.SandboxesWithSecret(ctx, row.OrganizationID, row.ID)
	if err != nil {
		s.Log.Warn("sandboxes of a changed secret not found", "secret", row.ID, "error", err)
	}
	var g errgroup.Group
	g.SetLimit(detachAtOnce)
	for _, sb := range users {
		g.Go(func() error {
			if err := f(ctx, &sb); err != nil {
				s.Log.Warn("a sandbox does not know of a changed secret", "secret", row.ID, "sandbox", sb.ID, "error", err)
			}
			return nil
		})
	}
	_ = g.Wait()
}

// travels tells whether a secret of the sandbox may be sent anywhere.
func (c *Core) travels(ctx context.Context, sb *store.Sandbox) (bool, error) {
	rows, err := c.allowedSecrets(ctx, sb)
	return slices.ContainsFunc(rows, func(r store.Secret) bool { return len(r.Hosts) > 0 }), err
}

// tellTravels has the runner put the sandbox's secrets into its traffic, if
// any may be sent anywhere.
func (c *Core) tellTravels(ctx context.Context, sb *store.Sandbox) error {
	on, err := c.travels(ctx, sb)
	if err != nil {
		return err
	}
	return c.Cluster.Client(sb.Runner).SetSecrets(ctx, sb.ID, on)
}

// Delete removes a secret at once, then takes its variable from sandboxes.
// Where that does not work now, a placeholder stays that stands for nothing.
func (s secrets) Delete(ctx context.Context, ref engine.SecretRef) error {
	row, err := s.secret(ctx, ref)
	if err != nil {
		return public(err)
	}
	if err := s.Store.DeleteSecret(ctx, row.OrganizationID, row.ID); err != nil {
		return public(err)
	}
	s.eachUser(ctx, row, func(ctx context.Context, sb *store.Sandbox) error { return s.lose(ctx, *sb, row.ID) })
	return nil
}

// lose takes one secret away from a sandbox, whatever else happens to it.
func (s secrets) lose(ctx context.Context, sb store.Sandbox, id string) error {
	old := sb.Secrets
	err := s.write(ctx, &sb, func(row *store.Sandbox) {
		row.Secrets = maps.Clone(row.Secrets)
		maps.DeleteFunc(row.Secrets, func(_, has string) bool { return has == id })
	})
	if err != nil || !running(&sb) {
		return err
	}
	return s.tellSecrets(ctx, &sb, old)
}

// Attach replaces the secrets of a sandbox. When its toolbox cannot be told,
// the old ones are written back, so that the row says what holds.
func (s secrets) Attach(ctx context.Context, ref engine.SandboxRef, wanted map[string]string) (engine.Sandbox, error) {
	if err := checkAttached(wanted); err != nil {
		return engine.Sandbox{}, err
	}
	ctx, sb, end, err := s.change(ctx, ref, opUpdate, limitResize)
	if err != nil {
		return engine.Sandbox{}, public(err)
	}
	defer end()
	if !sb.State.Settled() {
		return engine.Sandbox{}, inProgress(sb.Name, string(sb.State))
	}
	ids, err := s.secretIDs(ctx, sb.OrganizationID, wanted)
	if err != nil {
		return engine.Sandbox{}, public(err)
	}
	if err := s.permitsAttached(ctx, sb, ids); err != nil {
		return engine.Sandbox{}, public(err)
	}
	old := sb.Secrets
	if err := s.write(ctx, sb, func(row *store.Sandbox) { row.Secrets = ids }); err != nil {
		return engine.Sandbox{}, public(err)
	}
	if running(sb) {
		err = s.tellSecrets(ctx, sb, old)
	}
	if err != nil {
		undo := context.WithoutCancel(ctx)
		if werr := s.write(undo, sb, func(row *store.Sandbox) { row.Secrets = old }); werr != nil {
			s.Log.Error("secrets not written back", "sandbox", sb.ID, "error", werr)
		}
		return engine.Sandbox{}, public(cause(ctx, err))
	}
	s.publish("sandbox.updated", sb, string(sb.State))
	return s.view(sb), nil
}

// permitsAttached asks the policy of a sandbox about the secrets it shall have.
func (s secrets) permitsAttached(ctx context.Context, sb *store.Sandbox, ids map[string]string) error {
	if sb.Policy == "" || len(ids) == 0 {
		return nil
	}
	p, err := s.document(ctx, sb.OrganizationID, sb.Policy)
	if err != nil {
		return err
	}
	row := *sb
	row.Secrets = ids
	return s.permitsSecrets(ctx, &row, p)
}

func checkAttached(wanted map[string]string) error {
	if len(wanted) > maxSecretsPerSandbox {
		return invalid("secrets has %d entries", len(wanted)).WithHint("use at most %d", maxSecretsPerSandbox)
	}
	for variable, name := range wanted {
		switch {
		case !envRule.MatchString(variable):
			return invalid("secrets: %s is not a variable name", quote(variable)).
				WithHint("use letters, digits and underscores, not beginning with a digit")
		case !secretRule.MatchString(name):
			return invalid("secrets: %s is not the name of a secret", quote(name))
		}
	}
	return nil
}

// secretIDs turns names or ids of secrets into ids.
func (c *Core) secretIDs(ctx context.Context, organizationID string, wanted map[string]string) (map[string]string, error) {
	var ids map[string]string
	for _, variable := range slices.Sorted(maps.Keys(wanted)) {
		row, err := c.secret(ctx, engine.SecretRef{OrganizationID: organizationID, IDOrName: wanted[variable]})
		if engine.KindOf(err) == engine.KindNotFound {
			return nil, invalid("secret %q does not exist", wanted[variable]).WithHint("create it first")
		}
		if err != nil {
			return nil, err
		}
		if ids == nil {
			ids = map[string]string{}
		}
		ids[variable] = row.ID
	}
	return ids, nil
}

// environment is what processes of the sandbox see: its variables, and the
// placeholders of its secrets.
func environment(sb *store.Sandbox) map[string]string {
	if len(sb.Secrets) == 0 {
		return sb.Env
	}
	env := make(map[string]string, len(sb.Env)+len(sb.Secrets))
	maps.Copy(env, sb.Env)
	for variable, id := range sb.Secrets {
		env[variable] = secret.Placeholder(id)
	}
	return env
}

// tellSecrets brings the environment of processes that start from now on in
// step with the row. A variable that a secret had covered comes back.
func (c *Core) tellSecrets(ctx context.Context, sb *store.Sandbox, old map[string]string) error {
	if c.Dialer == nil {
		return engine.Errorf(engine.KindUnsupported, "this server does not reach toolboxes")
	}
	if err := c.tellTravels(ctx, sb); err != nil {
		return err
	}
	update := wire.UpdateEnv{Set: map[string]string{}, UnsetValuePrefix: secret.PlaceholderPrefix}
	for variable, value := range environment(sb) {
		_, covered := old[variable]
		if covered || strings.HasPrefix(value, secret.PlaceholderPrefix) {
			update.Set[variable] = value
		}
	}
	ctx, cancel := context.WithTimeout(ctx, limitInspect)
	defer cancel()
	way := &toolbox{core: c, id: sb.ID, name: sb.Name, pool: c.pools.of(sb.ID, sb.Incarnation)}
	return toolboxclient.New(way).SetEnv(ctx, update)
}

// Resealed seals anew what was sealed with an older key, and returns how much
// it was. The server calls it after its start.
func (c *Core) Resealed(ctx context.Context) (int, error) {
	box, err := c.box()
	if err != nil {
		return 0, nil
	}
	n := 0
	for {
		old, err := c.Store.SealedBefore(ctx, box.CurrentKey())
		if err != nil {
			return n, public(err)
		}
		before := n
		for _, o := range old {
			value, err := c.unseal(o.Table, o.OrganizationID, o.ID, o.Sealed)
			if err != nil {
				c.Log.Error("sealed value not readable", "table", o.Table, "id", o.ID, "key", o.Sealed.KeyID, "error", err)
				continue
			}
			fresh, err := c.seal(o.Table, o.OrganizationID, o.ID, value.Reveal())
			if err == nil {
				err = c.Store.Reseal(ctx, o, fresh)
			}
			if err != nil {
				return n, public(err)
			}
			n++
		}
		if n == before {
			return n, nil
		}
	}
}

// SecretResolver is for what substitutes values in the traffic of sandboxes.
func (c *Core) SecretResolver() secret.Resolver { return resolver{c} }

type resolver struct{ *Core }

// Resolve returns the secrets of a running sandbox.
func (r resolver) Resolve(ctx context.Context, sandboxID string) ([]secret.Binding, error) {
	sb, err := r.Store.SandboxByID(ctx, sandboxID)
	if err != nil || !running(&sb) {
		return nil, public(err)
	}
	rows, err := r.allowedSecrets(ctx, &sb)
	if err != nil {
		return nil, public(err)
	}
	out := make([]secret.Binding, 0, len(rows))
	for _, row := range rows {
		value, err := r.unseal("secrets", row.OrganizationID, row.ID, row.Sealed)
		if err != nil {
			return nil, public(err)
		}
		out = append(out, secret.Binding{Name: row.Name, Placeholder: row.Placeholder, Value: value, Hosts: row.Hosts})
	}
	return out, nil
}
