package api

import (
	"context"
	"math"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// SSHGateway is where clients find the SSH gateway, and the key by which they
// know it.
type SSHGateway struct {
	Host        string // empty: the host that they reach the API by
	Port        int
	HostKey     string // as lines of known_hosts have it, without the host
	Fingerprint string // as SHA256:…
}

func (a *API) registerSSH() {
	handle(a, "POST", "/sandbox/{sandboxIdOrName}/ssh-access", "Make a token for SSH, in place of the one before", a.grantSSH)
	handle(a, "DELETE", "/sandbox/{sandboxIdOrName}/ssh-access", "Revoke the token for SSH and end its connections", a.revokeSSH)
	handle(a, "GET", "/sandbox/ssh-access/validate", "Whether a token for SSH is good", a.validateSSH)
}

// sshConfiguration is what clients learn of the SSH gateway.
func (a *API) sshConfiguration(base string) wire.SSHConfiguration {
	g := a.SSHGateway
	if g == nil || a.SSH == nil {
		return wire.SSHConfiguration{}
	}
	return wire.SSHConfiguration{
		Command: g.command(base, "{{TOKEN}}"), PublicKey: g.HostKey, Host: g.host(base), Port: g.Port,
		HostKeys: []string{g.HostKey}, Fingerprints: []string{g.Fingerprint},
	}
}

// plainHost is what may stand in a command without quotes.
var plainHost = regexp.MustCompile(`^[A-Za-z0-9:]([A-Za-z0-9.:_-]{0,253})$`)

// host is the gateway's, else the API's as the caller reached it.
func (g *SSHGateway) host(base string) string {
	if g.Host != "" {
		return g.Host
	}
	if u, err := url.Parse(base); err == nil && plainHost.MatchString(u.Hostname()) {
		return u.Hostname()
	}
	return "localhost"
}

// command is what people type. Clients split it at spaces, so nothing in it
// is quoted.
func (g *SSHGateway) command(base, token string) string {
	at := token + "@" + g.host(base)
	if g.Port == 22 {
		return "ssh " + at
	}
	return "ssh -p " + strconv.Itoa(g.Port) + " " + at
}

// noSSH refuses where there is no SSH gateway.
func (a *API) noSSH() error {
	if a.SSH == nil || a.SSHGateway == nil {
		return engine.Errorf(engine.KindUnsupported, "this server has no SSH gateway").
			WithHint("start it with --ssh-listen and a free address")
	}
	return nil
}

type grantSSHInput struct {
	SandboxPath
	Minutes float64 `query:"expiresInMinutes" default:"60" doc:"for how long it is good"`
}

func (a *API) grantSSH(ctx context.Context, in *grantSSHInput) (wire.SSHAccess, error) {
	if err := a.noSSH(); err != nil {
		return wire.SSHAccess{}, err
	}
	if !(in.Minutes > 0) || in.Minutes > math.MaxInt32 {
		return wire.SSHAccess{}, engine.Errorf(engine.KindInvalid, "expiresInMinutes: %g is not possible", in.Minutes).WithHint("use 1 or more")
	}
	p, _ := auth.From(ctx)
	s, token, err := a.SSH.Grant(ctx, p, ref(ctx, in.Sandbox), time.Duration(in.Minutes*float64(time.Minute)))
	if err != nil {
		return wire.SSHAccess{}, err
	}
	return wire.SSHAccess{
		ID: s.ID, SandboxID: s.SandboxID, Token: token, ExpiresAt: wire.Time(s.ExpiresAt),
		CreatedAt: wire.Time(s.CreatedAt), UpdatedAt: wire.Time(s.CreatedAt), SSHCommand: a.SSHGateway.command(baseURL(ctx), token),
	}, nil
}

type revokeSSHInput struct {
	SandboxPath
	Token string `query:"token" maxLength:"1000" doc:"empty: whatever there is"`
}

func (a *API) revokeSSH(ctx context.Context, in *revokeSSHInput) (wire.Sandbox, error) {
	if err := a.noSSH(); err != nil {
		return wire.Sandbox{}, err
	}
	s, err := a.SSH.Revoke(ctx, ref(ctx, in.Sandbox), in.Token)
	return answer(ctx, s, err)
}

type validateSSHInput struct {
	Token string `query:"token" required:"true" maxLength:"1000"`
}

// validateSSH tells an organization of its own tokens only.
func (a *API) validateSSH(ctx context.Context, in *validateSSHInput) (wire.SSHValidation, error) {
	if err := a.noSSH(); err != nil {
		return wire.SSHValidation{}, err
	}
	s, err := a.SSH.Check(ctx, in.Token)
	if engine.KindOf(err) == engine.KindUnauthenticated {
		return wire.SSHValidation{}, nil
	}
	p, _ := auth.From(ctx)
	if err != nil || (s.OrganizationID != p.OrganizationID && !p.Admin) {
		return wire.SSHValidation{}, err
	}
	return wire.SSHValidation{Valid: true, SandboxID: s.SandboxID}, nil
}
