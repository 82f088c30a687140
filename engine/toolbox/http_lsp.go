package toolbox

import (
	"net/http"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// lspRoutes lists the operations of language servers.
func (t *Toolbox) lspRoutes() []route {
	l := t.lsp
	return []route{
		{"POST /lsp/start", work, effect(http.StatusOK, l.Start)},
		{"POST /lsp/stop", work, effect(http.StatusOK, l.Stop)},
		{"POST /lsp/did-open", brief, effect(http.StatusOK, l.Open)},
		{"POST /lsp/did-close", brief, effect(http.StatusOK, l.CloseDocument)},
		{"POST /lsp/completions", work, t.lspCompletions},
		{"GET /lsp/document-symbols", work, t.lspDocumentSymbols},
		{"GET /lsp/workspacesymbols", work, t.lspWorkspaceSymbols},
	}
}

func (t *Toolbox) lspCompletions(w http.ResponseWriter, r *http.Request) error {
	var q wire.LspCompletions
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	list, err := t.lsp.Completions(r.Context(), q)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

func lspServer(r *http.Request) wire.LspServer {
	q := r.URL.Query()
	return wire.LspServer{LanguageID: q.Get("languageId"), PathToProject: q.Get("pathToProject")}
}

func (t *Toolbox) lspDocumentSymbols(w http.ResponseWriter, r *http.Request) error {
	all, err := t.lsp.DocumentSymbols(r.Context(), wire.LspDocument{LspServer: lspServer(r), URI: r.URL.Query().Get("uri")})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, all)
}

func (t *Toolbox) lspWorkspaceSymbols(w http.ResponseWriter, r *http.Request) error {
	all, err := t.lsp.WorkspaceSymbols(r.Context(), lspServer(r), r.URL.Query().Get("query"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, all)
}
