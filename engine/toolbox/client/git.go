package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// git calls a Git operation that has no result.
func (c *Client) git(ctx context.Context, method, path string, q any) error {
	_, err := c.call(ctx, method, "/git/"+path, nil, q, nil)
	return err
}

// gitAbout asks something about a repository.
func (c *Client) gitAbout(ctx context.Context, what, repo string, out any) error {
	_, err := c.call(ctx, http.MethodGet, "/git/"+what, url.Values{"path": {repo}}, nil, out)
	return err
}

// GitClone copies a repository.
func (c *Client) GitClone(ctx context.Context, q wire.GitClone) error {
	return c.git(ctx, http.MethodPost, "clone", q)
}

// GitInit makes a repository.
func (c *Client) GitInit(ctx context.Context, q wire.GitInit) error {
	return c.git(ctx, http.MethodPost, "init", q)
}

// GitAdd stages files.
func (c *Client) GitAdd(ctx context.Context, q wire.GitAdd) error {
	return c.git(ctx, http.MethodPost, "add", q)
}

// GitCommit records what is staged and returns the commit's hash.
func (c *Client) GitCommit(ctx context.Context, q wire.GitCommit) (string, error) {
	var out wire.GitCommitted
	_, err := c.call(ctx, http.MethodPost, "/git/commit", nil, q, &out)
	return out.Hash, err
}

// GitStatus describes a working tree.
func (c *Client) GitStatus(ctx context.Context, repo string) (wire.GitStatus, error) {
	var out wire.GitStatus
	err := c.gitAbout(ctx, "status", repo, &out)
	return out, err
}

// GitHistory lists commits, newest first.
func (c *Client) GitHistory(ctx context.Context, repo string) ([]wire.GitCommitInfo, error) {
	var out []wire.GitCommitInfo
	err := c.gitAbout(ctx, "history", repo, &out)
	return out, err
}

// GitBranches lists branches.
func (c *Client) GitBranches(ctx context.Context, repo string) (wire.GitBranches, error) {
	var out wire.GitBranches
	err := c.gitAbout(ctx, "branches", repo, &out)
	return out, err
}

// GitCreateBranch makes a branch and switches to it.
func (c *Client) GitCreateBranch(ctx context.Context, repo, name string) error {
	return c.git(ctx, http.MethodPost, "branches", wire.GitBranch{Path: repo, Name: name})
}

// GitDeleteBranch deletes a branch.
func (c *Client) GitDeleteBranch(ctx context.Context, repo, name string) error {
	return c.git(ctx, http.MethodDelete, "branches", wire.GitBranch{Path: repo, Name: name})
}

// GitCheckout switches to a branch or another revision.
func (c *Client) GitCheckout(ctx context.Context, repo, revision string) error {
	return c.git(ctx, http.MethodPost, "checkout", wire.GitCheckout{Path: repo, Branch: revision})
}

// GitPull fetches and merges.
func (c *Client) GitPull(ctx context.Context, q wire.GitSync) error {
	return c.git(ctx, http.MethodPost, "pull", q)
}

// GitPush sends a branch.
func (c *Client) GitPush(ctx context.Context, q wire.GitSync) error {
	return c.git(ctx, http.MethodPost, "push", q)
}

// GitReset moves HEAD, or takes files out of the index.
func (c *Client) GitReset(ctx context.Context, q wire.GitReset) error {
	return c.git(ctx, http.MethodPost, "reset", q)
}

// GitRestore brings files back.
func (c *Client) GitRestore(ctx context.Context, q wire.GitRestore) error {
	return c.git(ctx, http.MethodPost, "restore", q)
}

// GitRemotes lists remotes.
func (c *Client) GitRemotes(ctx context.Context, repo string) ([]wire.GitRemote, error) {
	var out wire.GitRemotes
	err := c.gitAbout(ctx, "remotes", repo, &out)
	return out.Remotes, err
}

// GitAddRemote names a remote.
func (c *Client) GitAddRemote(ctx context.Context, q wire.GitAddRemote) error {
	return c.git(ctx, http.MethodPost, "remotes", q)
}

// GitConfig reads a value; nil means that it is not set. The scope is global,
// local, which needs the repository, or system; empty is global.
func (c *Client) GitConfig(ctx context.Context, key, scope, repo string) (*string, error) {
	var out wire.GitConfigValue
	q := url.Values{"key": {key}, "scope": {scope}, "path": {repo}}
	_, err := c.call(ctx, http.MethodGet, "/git/config", q, nil, &out)
	return out.Value, err
}

// GitSetConfig sets a value.
func (c *Client) GitSetConfig(ctx context.Context, q wire.GitSetConfig) error {
	return c.git(ctx, http.MethodPost, "config", q)
}

// GitSetUser sets who commits.
func (c *Client) GitSetUser(ctx context.Context, q wire.GitUser) error {
	return c.git(ctx, http.MethodPost, "config/user", q)
}

// GitKeep stores credentials for later calls.
func (c *Client) GitKeep(ctx context.Context, q wire.GitCredentials) error {
	return c.git(ctx, http.MethodPost, "credentials", q)
}
