package tools

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
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
	var use wire.PortInUse
	if err := b.json(ctx, http.MethodGet, fmt.Sprintf("/port/%d/in-use", port), nil, nil, &use); err != nil {
		return Result{}, err
	}
	if !use.IsInUse {
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
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://toolbox/proxy/%d/", port), nil)
	if err != nil {
		return "", err
	}
	client := http.Client{Transport: b.http.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		var e *engine.Error
		if errors.As(err, &e) {
			return "", err
		}
		return "is open but does not answer HTTP yet", nil
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if resp.StatusCode >= 400 {
		te := wire.ParseError(resp.StatusCode, body)
		if te.Code == wire.CodeNotImplemented || te.Code == wire.CodeNotFound {
			return "", unsupported("Fetch it inside the sandbox with sandbox_exec and curl", "previews of ports are not built yet")
		}
		if te.Code == wire.CodeBadGateway {
			return "is open but does not answer HTTP yet", nil
		}
	}
	return fmt.Sprintf("answers with HTTP %d", resp.StatusCode), nil
}
