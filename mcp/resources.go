package mcp

import (
	"context"
	"encoding/base64"
	"strings"

	mcpgo "github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/mcp/tools"
)

// addResources offers the files and logs of sandboxes.
func (s *Server) addResources(kit *tools.Kit) {
	watches := newWatches(s, kit)
	hooks := &server.Hooks{}
	hooks.AddBeforeReadResource(func(ctx context.Context, _ any, req *mcpgo.ReadResourceRequest) { s.checkResource(ctx, kit, req) })
	hooks.AddAfterListResources(func(ctx context.Context, _ any, _ *mcpgo.ListResourcesRequest, res *mcpgo.ListResourcesResult) {
		res.Resources = append(res.Resources, s.listSandboxes(ctx, kit)...)
	})
	hooks.AddAfterSubscribe(func(ctx context.Context, _ any, req *mcpgo.SubscribeRequest, _ *mcpgo.EmptyResult) {
		watches.subscribe(ctx, req.Params.URI)
	})
	hooks.AddAfterUnsubscribe(func(ctx context.Context, _ any, req *mcpgo.UnsubscribeRequest, _ *mcpgo.EmptyResult) {
		watches.unsubscribe(ctx, req.Params.URI)
	})
	hooks.AddBeforeSubscriptionsListen(func(ctx context.Context, id any, req *mcpgo.SubscriptionsListenRequest) {
		watches.listen(ctx, id, req.Params.Notifications.ResourceSubscriptions)
	})
	for _, set := range []server.ServerOption{
		server.WithHooks(hooks),
		server.WithResourceCapabilities(true, true),
		server.WithCompletions(),
		server.WithResourceCompletionProvider(completer{s, kit}),
		// Files change, and so does the list of sandboxes.
		server.WithMethodCacheHints(mcpgo.MethodResourcesRead, 0, mcpgo.CacheScopePrivate),
		server.WithMethodCacheHints(mcpgo.MethodResourcesList, 0, mcpgo.CacheScopePrivate),
	} {
		set(s.inner)
	}
	read := func(ctx context.Context, req mcpgo.ReadResourceRequest) ([]mcpgo.ResourceContents, error) {
		if !s.begin() {
			return nil, tools.ErrShutdown
		}
		defer s.calls.Done()
		if err := s.mayShow(ctx); err != nil {
			return nil, publicError(err)
		}
		r, err := kit.ReadResource(withCaller(ctx), principalOf(ctx).OrganizationID, req.Params.URI)
		if err != nil {
			return nil, publicError(err)
		}
		if r.Blob != nil {
			return []mcpgo.ResourceContents{mcpgo.BlobResourceContents{URI: r.URI, MIMEType: r.MIME, Blob: base64.StdEncoding.EncodeToString(r.Blob)}}, nil
		}
		return []mcpgo.ResourceContents{mcpgo.TextResourceContents{URI: r.URI, MIMEType: r.MIME, Text: r.Text}}, nil
	}
	s.inner.AddResourceTemplate(mcpgo.NewResourceTemplate(tools.FileTemplate, "file",
		mcpgo.WithTemplateDescription("A file of a sandbox, by its path from the root, or the list of a directory")), read)
	s.inner.AddResourceTemplate(mcpgo.NewResourceTemplate(tools.LogTemplate, "log",
		mcpgo.WithTemplateDescription("The output of a background process of a sandbox"), mcpgo.WithTemplateMIMEType("text/plain")), read)
}

// withCaller says who is behind the calls, for the ledger.
func withCaller(ctx context.Context) context.Context {
	return engine.WithCaller(ctx, engine.Caller{Door: "mcp", Principal: principalOf(ctx)})
}

// publicError is what may be shown of an error, in one line.
func publicError(err error) error {
	e := engine.AsError(err)
	text := strings.TrimSuffix(e.Message, ".") + "."
	if e.Hint != "" {
		text += " " + strings.TrimSuffix(e.Hint, ".") + "."
	}
	return &engine.Error{Kind: e.Kind, Message: text}
}

// checkResource looks whether the resource is there. A handler cannot answer
// with the protocol's error for one that is not; for a URI that fits no
// template the library gives it. So such a request goes on with a URI that says
// what is wrong, and fits none, for it has blanks.
func (s *Server) checkResource(ctx context.Context, kit *tools.Kit, req *mcpgo.ReadResourceRequest) {
	if strings.HasPrefix(req.Params.URI, skillScheme) || !s.begin() {
		return
	}
	defer s.calls.Done()
	err := s.mayShow(ctx)
	if err == nil {
		_, err = kit.Look(withCaller(ctx), principalOf(ctx).OrganizationID, req.Params.URI)
	}
	switch engine.KindOf(err) {
	case engine.KindInvalid, engine.KindNotFound, engine.KindDenied:
		req.Params.URI += " : " + publicError(err).Error()
	}
}

// listSandboxes lists the root directories of the caller's sandboxes.
func (s *Server) listSandboxes(ctx context.Context, kit *tools.Kit) []mcpgo.Resource {
	if s.mayShow(ctx) != nil {
		return nil
	}
	uris, err := kit.Sandboxes(ctx, principalOf(ctx).OrganizationID)
	if err != nil {
		s.log.Warn("list sandboxes as resources", "error", err)
	}
	var all []mcpgo.Resource
	for _, uri := range uris {
		name := strings.TrimSuffix(strings.TrimPrefix(uri, "sandbox://"), "/")
		all = append(all, mcpgo.NewResource(uri, name, mcpgo.WithResourceDescription("Files of sandbox "+name), mcpgo.WithMIMEType("text/uri-list")))
	}
	return all
}

// completer offers values for what clients let their users fill in.
type completer struct {
	server *Server
	kit    *tools.Kit
}

// CompleteResourceArgument completes a variable of a template.
func (c completer) CompleteResourceArgument(ctx context.Context, _ string, arg mcpgo.CompleteArgument, known mcpgo.CompleteContext) (*mcpgo.Completion, error) {
	if c.server.mayShow(ctx) != nil {
		return completion(nil), nil
	}
	return completion(c.kit.CompleteResource(withCaller(ctx), principalOf(ctx).OrganizationID, arg.Name, arg.Value, known.Arguments)), nil
}

// CompletePromptArgument completes an argument of a prompt.
func (c completer) CompletePromptArgument(ctx context.Context, _ string, arg mcpgo.CompleteArgument, _ mcpgo.CompleteContext) (*mcpgo.Completion, error) {
	if arg.Name != "snapshot" || c.server.mayShow(ctx) != nil {
		return completion(nil), nil
	}
	return completion(c.kit.CompleteSnapshot(ctx, principalOf(ctx).OrganizationID, arg.Value)), nil
}

func completion(values []string) *mcpgo.Completion {
	return &mcpgo.Completion{Values: append([]string{}, values...), Total: len(values)}
}

// addPrompts offers the prompts.
func (s *Server) addPrompts(kit *tools.Kit) {
	server.WithPromptCapabilities(false)(s.inner)
	server.WithPromptCompletionProvider(completer{s, kit})(s.inner)
	for _, p := range tools.Prompts() {
		opts := []mcpgo.PromptOption{mcpgo.WithPromptDescription(p.Description)}
		for _, a := range p.Arguments {
			how := []mcpgo.ArgumentOption{mcpgo.ArgumentDescription(a.Description)}
			if a.Required {
				how = append(how, mcpgo.RequiredArgument())
			}
			opts = append(opts, mcpgo.WithArgument(a.Name, how...))
		}
		d := mcpgo.NewPrompt(p.Name, opts...)
		d.Title = p.Title
		s.inner.AddPrompt(d, func(_ context.Context, req mcpgo.GetPromptRequest) (*mcpgo.GetPromptResult, error) {
			return &mcpgo.GetPromptResult{Description: p.Description, Messages: []mcpgo.PromptMessage{
				mcpgo.NewPromptMessage(mcpgo.RoleUser, mcpgo.NewTextContent(p.Text(req.Params.Arguments))),
			}}, nil
		})
	}
}
