package tools

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

func (k *kit) previewTools() []Tool {
	return []Tool{{
		Name: "sandbox_expose", Set: SetCore, Title: "Preview URL",
		Description: "Get a URL for a server listening on a port, and check that it answers.",
		Schema:      `{"type":"object","properties":{"id":{"type":"string"},"port":{"type":"integer","minimum":1,"maximum":65535},"public":{"type":"boolean"},"minutes":{"type":"integer","minimum":1}},"required":["id","port"],"additionalProperties":false}`,
		Hints:       Hints{Idempotent: true, OpenWorld: true}, Handler: k.expose,
	}}
}

// expose gives the address at which the server forwards to a port. It needs
// the API key; links for others come with previews, which are not built.
func (k *kit) expose(ctx context.Context, a Args) (Result, error) {
	switch {
	case a.Bool("public"):
		return Result{}, unsupported("Leave it out to get a URL that needs the API key", `"public" links are not built yet`)
	case a.Has("minutes"):
		return Result{}, unsupported("Leave it out; the URL works as long as the sandbox runs", `"minutes" is not built yet`)
	}
	sb, err := k.Sandboxes.Sandbox(ctx, a.ref())
	if err != nil {
		return Result{}, err
	}
	b, err := k.box(ctx, a)
	if err != nil {
		return Result{}, err
	}
	port := a.Int("port", 0)
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
	path := fmt.Sprintf("/toolbox/%s/proxy/%d/", sb.ID, port)
	where := strings.TrimRight(k.opt.BaseURL, "/") + path
	r := Text("Port %d %s.\nURL: %s\nEvery request needs the header Authorization: Bearer with an API key of this server; links without a key are not built yet.", port, answer, where)
	r.Meta = map[string]any{metaPreview: map[string]any{"url": where, "port": port}}
	return r, nil
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
