package core

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strings"

	"github.com/google/uuid"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

// RegistryStore keeps registries.
type RegistryStore interface {
	InsertRegistry(ctx context.Context, r store.Registry) error
	UpdateRegistry(ctx context.Context, r store.Registry) error
	DeleteRegistry(ctx context.Context, organizationID, id string) error
	Registry(ctx context.Context, organizationID, id string) (store.Registry, error)
	ListRegistries(ctx context.Context, organizationID string) ([]store.Registry, error)
}

const maxRegistries = 100 // of an organization

type registries struct{ *Core }

// Registries is the life of registries.
func (c *Core) Registries() engine.Registries { return registries{c} }

// Create stores an account at a registry, its password sealed.
func (r registries) Create(ctx context.Context, req engine.PutRegistry) (engine.Registry, error) {
	if err := firstError(ctx.Err(), checkOrganization(req.OrganizationID), checkRegistry(req), checkPassword(req.Password)); err != nil {
		return engine.Registry{}, public(err)
	}
	all, err := r.Store.ListRegistries(ctx, req.OrganizationID)
	if err != nil {
		return engine.Registry{}, public(err)
	}
	if len(all) >= maxRegistries {
		return engine.Registry{}, engine.Errorf(engine.KindExhausted, "the organization has %d registries", len(all)).WithHint("delete one")
	}
	id, now := uuid.NewString(), r.Now().UTC()
	row := store.Registry{Registry: engine.Registry{
		ID: id, OrganizationID: req.OrganizationID, Name: req.Name, URL: req.URL, Username: req.Username, Project: req.Project,
		CreatedAt: now, UpdatedAt: now,
	}}
	if row.Sealed, err = r.seal("registries", req.OrganizationID, id, req.Password); err != nil {
		return engine.Registry{}, public(err)
	}
	return row.Registry, public(r.Store.InsertRegistry(ctx, row))
}

var projectRule = regexp.MustCompile(`^[a-z0-9]+([._/-][a-z0-9]+)*$`)

func checkRegistry(req engine.PutRegistry) error {
	if req.Name == "" || req.Username == "" {
		return invalid("name and username are needed")
	}
	if _, _, err := registryHost(req.URL); err != nil {
		return err
	}
	if req.Project != "" && (len(req.Project) > 255 || !projectRule.MatchString(req.Project)) {
		return invalid("project %s is not the beginning of an image's path", quote(req.Project)).WithHint("use a form like team/app")
	}
	return firstError(checkText("name", req.Name, 128), checkText("url", req.URL, 512), checkText("username", req.Username, 255))
}

func checkPassword(password string) error {
	if password == "" {
		return invalid("password is empty")
	}
	return checkText("password", strings.Map(hide, password), 8192)
}

// hide keeps a password's text out of messages and its faults in.
func hide(r rune) rune {
	if r < ' ' || r == 0x7f {
		return r
	}
	return 'x'
}

// Registry returns one registry, without its password.
func (r registries) Registry(ctx context.Context, organizationID, id string) (engine.Registry, error) {
	row, err := r.Store.Registry(ctx, organizationID, id)
	return row.Registry, public(err)
}

// List returns an organization's registries.
func (r registries) List(ctx context.Context, organizationID string) ([]engine.Registry, error) {
	rows, err := r.Store.ListRegistries(ctx, organizationID)
	out := make([]engine.Registry, len(rows))
	for i := range rows {
		out[i] = rows[i].Registry
	}
	return out, public(err)
}

// Update changes a registry. A password is not sent to another host than it
// was given for: with a new host it has to be given again.
func (r registries) Update(ctx context.Context, id string, req engine.PutRegistry) (engine.Registry, error) {
	row, err := r.Store.Registry(ctx, req.OrganizationID, id)
	if err != nil {
		return engine.Registry{}, public(err)
	}
	if err := checkRegistry(req); err != nil {
		return engine.Registry{}, err
	}
	old, _, _ := registryHost(row.URL)
	now, _, _ := registryHost(req.URL)
	switch {
	case req.Password != "":
		if err := checkPassword(req.Password); err != nil {
			return engine.Registry{}, err
		}
		if row.Sealed, err = r.seal("registries", row.OrganizationID, row.ID, req.Password); err != nil {
			return engine.Registry{}, public(err)
		}
	case old != now:
		return engine.Registry{}, invalid("url names another host").WithHint("send the password for it too")
	}
	row.Name, row.URL, row.Username, row.Project, row.UpdatedAt = req.Name, req.URL, req.Username, req.Project, r.Now().UTC()
	return row.Registry, public(r.Store.UpdateRegistry(ctx, row))
}

// Delete forgets a registry. Images that were pulled stay.
func (r registries) Delete(ctx context.Context, organizationID, id string) error {
	return public(r.Store.DeleteRegistry(ctx, organizationID, id))
}

// registryHost returns the host that images of a registry name, and whether it
// is asked in the clear, which only this machine's own may be.
func registryHost(text string) (host string, plain bool, err error) {
	bad := invalid("url %s is not that of a registry", quote(text)).WithHint("use a form like registry.example.com:5000 or https://registry.example.com")
	full := text
	if !strings.Contains(full, "://") {
		full = "https://" + full
	}
	u, perr := url.Parse(full)
	if perr != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http" {
		return "", false, bad
	}
	host = dockerHost(strings.ToLower(u.Host))
	if u.Scheme == "http" {
		if !loopback(u.Hostname()) {
			return "", false, invalid("url %s is not encrypted", quote(text)).WithHint("use https")
		}
		plain = true
	}
	return host, plain, nil
}

// dockerHost gives the three names of one registry one.
func dockerHost(host string) string {
	switch host {
	case "index.docker.io", "registry-1.docker.io", "hub.docker.com":
		return "docker.io"
	}
	return host
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// splitImage returns the registry's host and the path of a reference as people
// write it, whose first part is a host when it looks like one.
func splitImage(ref string) (host, path string) {
	first, rest, more := strings.Cut(ref, "/")
	if more && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return dockerHost(strings.ToLower(first)), rest
	}
	if !more {
		ref = "library/" + ref
	}
	return "docker.io", ref
}

// withAccount adds the organization's account at the image's registry, when it
// has one and the request brings none. The one with the longest project wins.
func (c *Core) withAccount(ctx context.Context, organizationID string, req engine.EnsureImage) (engine.EnsureImage, error) {
	if req.Username != "" || req.Password != "" || organizationID == "" {
		return req, nil
	}
	rows, err := c.Store.ListRegistries(ctx, organizationID)
	if err != nil {
		return req, err
	}
	host, path := splitImage(req.Ref)
	best := -1
	for i, row := range rows {
		has, _, err := registryHost(row.URL)
		below := row.Project == "" || strings.HasPrefix(path, row.Project+"/")
		if err == nil && sameHost(has, host) && below && (best < 0 || len(row.Project) > len(rows[best].Project)) {
			best = i
		}
	}
	if best < 0 {
		return req, nil
	}
	row := rows[best]
	password, err := c.unseal("registries", row.OrganizationID, row.ID, row.Sealed)
	if err != nil {
		return req, err
	}
	_, plain, _ := registryHost(row.URL)
	req.Username, req.Password, req.PlainHTTP = row.Username, password.Reveal(), plain
	return req, nil
}

// sameHost compares hosts; the port of https may be left out.
func sameHost(a, b string) bool {
	short := func(s string) string {
		if h, p, err := net.SplitHostPort(s); err == nil && p == "443" {
			return h
		}
		return s
	}
	return short(a) == short(b)
}
