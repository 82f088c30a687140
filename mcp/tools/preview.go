package tools

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

func (k *kit) previewTools() []Tool {
	return []Tool{{
		Name: "sandbox_expose", Set: SetCore, Title: "Preview URL",
		Description: "Get a URL for a server listening on a port, and check that it answers. minutes: one that opens without a token; public: opens all ports.",
		Schema:      `{"type":"object","properties":{"id":{"type":"string"},"port":{"type":"integer","minimum":1,"maximum":65535},"public":{"type":"boolean"},"minutes":{"type":"integer","minimum":1,"maximum":1440}},"required":["id","port"],"additionalProperties":false}`,
		Hints:       Hints{Idempotent: true, OpenWorld: true}, Handler: k.expose,
	}}
}

// expose gives a URL of a port. Unless it is signed, its token opens all ports
// of the sandbox, which public does to everybody.
func (k *kit) expose(ctx context.Context, a Args) (Result, error) {
	port, minutes := a.Int("port", 0), a.Int("minutes", 0)
	if a.Bool("public") && minutes > 0 {
		return Result{}, invalid("Leave one out: a public URL does not end, and one with minutes opens this port alone",
			`"public" and "minutes" do not go together`)
	}
	sb, err := k.Sandboxes.Sandbox(ctx, a.ref())
	if err != nil {
		return Result{}, err
	}
	b, err := k.box(ctx, a)
	if err != nil {
		return Result{}, err
	}
	listens, err := b.Listens(ctx, port)
	if err != nil {
		return Result{}, err
	}
	if !listens {
		return Fail(`Nothing listens on port %d in %s. Start the server with sandbox_exec {"id":%q,"command":"…","background":true} and call again.`, port, sb.Name, a.Str("id")), nil
	}
	answer, err := b.knock(ctx, port)
	if err != nil {
		return Result{}, err
	}
	if a.Has("public") && a.Bool("public") != sb.Public {
		public := a.Bool("public")
		if sb, err = k.Sandboxes.Update(ctx, a.ref(), engine.UpdateSandbox{Public: &public}); err != nil {
			return Result{}, err
		}
	}
	where, how, err := k.link(ctx, sb, port, minutes)
	if err != nil {
		return Result{}, err
	}
	r := Text("Port %d %s.\nURL: %s\n%s", port, answer, where, how)
	r.Meta = map[string]any{metaPreview: map[string]any{"url": where, "port": port}}
	return r, nil
}

// link makes the URL and says how long, and to whom, it opens.
func (k *kit) link(ctx context.Context, sb engine.Sandbox, port, minutes int) (where, how string, err error) {
	if k.Previews == nil {
		return "", "", lacking("previews")
	}
	ref := engine.SandboxRef{OrganizationID: sb.OrganizationID, IDOrName: sb.ID}
	if minutes > 0 {
		p, err := k.Previews.SignedPreviewURL(ctx, ref, port, time.Duration(minutes)*time.Minute)
		return p.URL, fmt.Sprintf("It opens this port to whoever has it, for %d minutes.", minutes), err
	}
	p, err := k.Previews.PreviewURL(ctx, ref, port)
	switch {
	case err != nil:
		return "", "", err
	case sb.Public && !engine.ReservedPort(port):
		return p.URL, `The sandbox is public: anybody who can reach the server can open its ports; {"public":false} ends that.`, nil
	}
	u, err := url.Parse(p.URL)
	if err != nil {
		return "", "", fmt.Errorf("preview URL %q: %w", p.URL, err)
	}
	if u.Path == "" {
		u.Path = "/"
	}
	u.RawQuery = url.Values{"DAYTONA_SANDBOX_AUTH_KEY": {p.Token}}.Encode()
	return u.String(), "Keep it private: its token opens all ports of the sandbox. Programs may send it as the header X-Daytona-Preview-Token instead.", nil
}

// knock asks the port for its front page through the toolbox and says what
// came back.
func (b *box) knock(ctx context.Context, port int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	res, err := b.Proxy(ctx, port, "")
	if err == nil {
		return fmt.Sprintf("answers with HTTP %d", res.StatusCode), res.Body.Close()
	}
	var (
		known    *engine.Error
		answered *wire.Error
	)
	switch {
	case errors.As(err, &known):
		return "", err
	case !errors.As(err, &answered), answered.Code == wire.CodeBadGateway:
		return "is open but does not answer HTTP yet", nil
	case answered.Code == wire.CodeNotImplemented, answered.Code == wire.CodeNotFound:
		return "", unsupported("Fetch it inside the sandbox with sandbox_exec and curl", "previews of ports are not built yet")
	}
	return fmt.Sprintf("answers with HTTP %d", answered.Status), nil
}
