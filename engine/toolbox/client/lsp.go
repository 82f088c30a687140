package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// StartLsp starts a language server. Other calls need it.
func (c *Client) StartLsp(ctx context.Context, q wire.LspServer) error {
	_, err := c.call(ctx, http.MethodPost, "/lsp/start", nil, q, nil)
	return err
}

// StopLsp ends a language server.
func (c *Client) StopLsp(ctx context.Context, q wire.LspServer) error {
	_, err := c.call(ctx, http.MethodPost, "/lsp/stop", nil, q, nil)
	return err
}

// OpenLspDocument tells a language server that a file is being edited.
func (c *Client) OpenLspDocument(ctx context.Context, q wire.LspDocument) error {
	_, err := c.call(ctx, http.MethodPost, "/lsp/did-open", nil, q, nil)
	return err
}

// CloseLspDocument tells a language server that a file is not edited any more.
func (c *Client) CloseLspDocument(ctx context.Context, q wire.LspDocument) error {
	_, err := c.call(ctx, http.MethodPost, "/lsp/did-close", nil, q, nil)
	return err
}

// LspCompletions lists what may stand at a position.
func (c *Client) LspCompletions(ctx context.Context, q wire.LspCompletions) (wire.LspCompletionList, error) {
	var out wire.LspCompletionList
	_, err := c.call(ctx, http.MethodPost, "/lsp/completions", nil, q, &out)
	return out, err
}

// LspDocumentSymbols lists what a file defines.
func (c *Client) LspDocumentSymbols(ctx context.Context, q wire.LspDocument) ([]wire.LspSymbol, error) {
	var out []wire.LspSymbol
	v := url.Values{"languageId": {q.LanguageID}, "pathToProject": {q.PathToProject}, "uri": {q.URI}}
	_, err := c.call(ctx, http.MethodGet, "/lsp/document-symbols", v, nil, &out)
	return out, err
}

// LspWorkspaceSymbols lists what a project defines under names that hold query.
func (c *Client) LspWorkspaceSymbols(ctx context.Context, q wire.LspServer, query string) ([]wire.LspSymbol, error) {
	var out []wire.LspSymbol
	v := url.Values{"languageId": {q.LanguageID}, "pathToProject": {q.PathToProject}, "query": {query}}
	_, err := c.call(ctx, http.MethodGet, "/lsp/workspacesymbols", v, nil, &out)
	return out, err
}
