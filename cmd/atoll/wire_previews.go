package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway"
)

// previewURLs makes URLs of previews for MCP's tools, which exist before the
// gateway does that serves them.
type previewURLs struct {
	engine.Previews
	front atomic.Pointer[gateway.Server]
}

// PreviewURL returns the address of a port and the sandbox's token.
func (p *previewURLs) PreviewURL(ctx context.Context, ref engine.SandboxRef, port int) (engine.PreviewURL, error) {
	access, err := p.Access(ctx, ref)
	if err != nil {
		return engine.PreviewURL{}, err
	}
	return p.at(access.Sandbox.ID, port, access.Sandbox.ID, access.Token)
}

// SignedPreviewURL returns an address that opens the port for some time.
func (p *previewURLs) SignedPreviewURL(ctx context.Context, ref engine.SandboxRef, port int, lifetime time.Duration) (engine.PreviewURL, error) {
	token, link, err := p.CreateLink(ctx, ref, port, lifetime)
	if err != nil {
		return engine.PreviewURL{}, err
	}
	return p.at(link.SandboxID, port, token, token)
}

func (p *previewURLs) at(sandbox string, port int, label, token string) (engine.PreviewURL, error) {
	front := p.front.Load()
	if front == nil {
		return engine.PreviewURL{}, engine.Errorf(engine.KindUnavailable, "the server is still starting")
	}
	return engine.PreviewURL{SandboxID: sandbox, URL: front.PreviewURL(port, label), Token: token}, nil
}
