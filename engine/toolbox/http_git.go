package toolbox

import (
	"context"
	"net/http"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// gitRoutes lists the Git operations.
func (t *Toolbox) gitRoutes() []route {
	g := t.git
	return []route{
		{"POST /git/add", work, effect(http.StatusOK, g.Add)},
		{"GET /git/branches", brief, about(g.Branches)},
		{"POST /git/branches", brief, effect(http.StatusCreated, g.CreateBranch)},
		{"DELETE /git/branches", brief, effect(http.StatusNoContent, g.DeleteBranch)},
		{"POST /git/checkout", work, effect(http.StatusOK, g.Checkout)},
		{"POST /git/clone", work, effect(http.StatusOK, g.Clone)},
		{"POST /git/commit", work, t.gitCommit},
		{"GET /git/config", brief, t.gitConfig},
		{"POST /git/config", brief, effect(http.StatusOK, g.SetConfig)},
		{"POST /git/config/user", brief, effect(http.StatusOK, g.SetUser)},
		{"POST /git/credentials", brief, effect(http.StatusOK, g.Keep)},
		{"GET /git/history", brief, about(g.History)},
		{"POST /git/init", brief, effect(http.StatusCreated, g.Init)},
		{"POST /git/pull", work, effect(http.StatusOK, g.Pull)},
		{"POST /git/push", work, effect(http.StatusOK, g.Push)},
		{"GET /git/remotes", brief, about(g.Remotes)},
		{"POST /git/remotes", work, effect(http.StatusCreated, g.AddRemote)},
		{"POST /git/reset", work, effect(http.StatusOK, g.Reset)},
		{"POST /git/restore", work, effect(http.StatusOK, g.Restore)},
		{"GET /git/status", brief, about(g.Status)},
	}
}

// effect answers a call that has no result.
func effect[Q any](status int, do func(context.Context, Q) error) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		var q Q
		if err := readJSON(w, r, &q); err != nil {
			return err
		}
		if err := do(r.Context(), q); err != nil {
			return err
		}
		w.WriteHeader(status)
		return nil
	}
}

// about answers a question about the repository in the query.
func about[A any](ask func(context.Context, string) (A, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		a, err := ask(r.Context(), r.URL.Query().Get("path"))
		if err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, a)
	}
}

func (t *Toolbox) gitCommit(w http.ResponseWriter, r *http.Request) error {
	var q wire.GitCommit
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	c, err := t.git.Commit(r.Context(), q)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, c)
}

func (t *Toolbox) gitConfig(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	v, err := t.git.Config(r.Context(), q.Get("key"), q.Get("scope"), q.Get("path"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v)
}
