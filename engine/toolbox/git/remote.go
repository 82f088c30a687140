package git

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// Clone copies a repository. After a failure the target is as it was before.
// A password within the URL is used, but not kept.
func (g *Git) Clone(ctx context.Context, q wire.GitClone) error {
	dir, err := g.repo(q.Path)
	if err != nil {
		return err
	}
	if err := checkClone(&q); err != nil {
		return err
	}
	env, err := g.access(ctx, "", q.URL, login{q.Username, q.Password})
	if err != nil {
		return err
	}
	if q.InsecureSkipTLS {
		env["GIT_SSL_NO_VERIFY"] = "1"
	}
	args := []string{"clone", "--quiet"}
	if q.Branch != "" {
		args = append(args, "--branch="+q.Branch)
	}
	if q.Depth > 0 {
		args = append(args, "--depth="+strconv.Itoa(q.Depth))
	}
	_, before := os.Lstat(dir)
	c := command{args: append(args, "--", q.URL, dir), env: env, remote: true, secret: q.Password}
	if err := g.do(ctx, c); err != nil || q.CommitID == "" {
		return err
	}
	if err = g.checkoutCommit(ctx, dir, q, env); err != nil {
		g.empty(ctx, dir, errors.Is(before, os.ErrNotExist))
	}
	return err
}

func checkClone(q *wire.GitClone) error {
	if err := text("url", q.URL); err != nil {
		return err
	}
	if q.Branch != "" {
		if err := branchName("branch", q.Branch); err != nil {
			return err
		}
	}
	if q.CommitID != "" {
		if err := text("commit_id", q.CommitID); err != nil {
			return err
		}
	}
	if q.Depth < 0 {
		return wire.BadRequest("depth: %d is not possible; use 1 or more, or 0 for all history", q.Depth)
	}
	u, err := url.Parse(q.URL)
	if err != nil || u.User == nil {
		return nil //nolint:nilerr // git knows more kinds of addresses
	}
	if password, ok := u.User.Password(); ok {
		if q.Password == "" {
			q.Username, q.Password = u.User.Username(), password
		}
		u.User = nil
		q.URL = u.String()
	}
	return nil
}

// checkoutCommit goes to a commit, which a shallow clone may lack.
func (g *Git) checkoutCommit(ctx context.Context, dir string, q wire.GitClone, env map[string]string) error {
	has, err := g.run(ctx, command{repo: dir, failing: true, args: []string{"rev-parse", "--quiet", "--verify", q.CommitID + "^{commit}"}})
	if err != nil {
		return err
	}
	if has.code != 0 {
		args := []string{"fetch", "--quiet"}
		if q.Depth > 0 {
			args = append(args, "--depth="+strconv.Itoa(q.Depth))
		}
		if err := g.do(ctx, command{repo: dir, args: append(args, "--", "origin", q.CommitID), env: env, remote: true, secret: q.Password}); err != nil {
			return wire.Errorf(http.StatusNotFound, wire.CodeNotFound, "commit_id: the repository has no commit %.80q (%v)", q.CommitID, err)
		}
	}
	return g.do(ctx, command{repo: dir, args: []string{"checkout", "--quiet", "--detach", q.CommitID, "--"}})
}

// empty removes what a clone left, as the user.
func (g *Git) empty(ctx context.Context, dir string, itself bool) {
	argv := []string{"find", dir, "-mindepth", "1", "-delete"}
	if itself {
		argv = []string{"rm", "-rf", "--", dir}
	}
	_, _ = g.runner.Run(context.WithoutCancel(ctx), process.Command{Argv: argv, Cwd: "/"}, process.Input{Timeout: localTimeout})
}

// access returns the environment for calls to a remote, which is a name or an
// address. Git may be configured to reach it elsewhere.
func (g *Git) access(ctx context.Context, dir, remote string, l login) (map[string]string, error) {
	if l == (login{}) {
		return map[string]string{}, nil
	}
	out, err := g.run(ctx, command{repo: dir, args: []string{"ls-remote", "--get-url", "--", remote}, secret: l.password})
	if err != nil {
		return nil, err
	}
	return l.environ(strings.TrimSpace(out.stdout))
}

// sync checks what pull and push share and fills in the remote and the branch.
func (g *Git) sync(ctx context.Context, q *wire.GitSync) (dir string, env map[string]string, err error) {
	if dir, err = g.repo(q.Path); err != nil {
		return "", nil, err
	}
	if q.Remote == "" {
		q.Remote = "origin"
	}
	if err := text("remote", q.Remote); err != nil {
		return "", nil, err
	}
	current, err := g.current(ctx, dir)
	if err != nil {
		return "", nil, err
	}
	if q.Branch == "" && current == "" {
		return "", nil, wire.BadRequest("branch: it is missing, and no branch is checked out")
	}
	if q.Branch != "" {
		if err := branchName("branch", q.Branch); err != nil {
			return "", nil, err
		}
	} else {
		q.Branch = current
	}
	env, err = g.access(ctx, dir, q.Remote, login{q.Username, q.Password})
	return dir, env, err
}

// Pull fetches and merges. Where the user has configured no other way, branches
// that went apart are merged.
func (g *Git) Pull(ctx context.Context, q wire.GitSync) error {
	upstream := q.Branch == ""
	dir, env, err := g.sync(ctx, &q)
	if err != nil {
		return err
	}
	if upstream {
		if q.Branch, err = g.upstream(ctx, dir, q.Remote, q.Branch); err != nil {
			return err
		}
	}
	args := []string{"pull", "--quiet", "--no-edit"}
	ways, err := g.run(ctx, command{repo: dir, failing: true, args: []string{"config", "--get-regexp", `^pull\.(rebase|ff)$`}})
	if err != nil {
		return err
	}
	if ways.stdout == "" {
		args = append(args, "--no-rebase")
	}
	return g.do(ctx, command{repo: dir, args: append(args, "--", q.Remote, "refs/heads/"+q.Branch), env: env, remote: true, secret: q.Password})
}

// upstream returns the branch of remote that branch follows, by default the one
// of the same name.
func (g *Git) upstream(ctx context.Context, dir, remote, branch string) (string, error) {
	name, err := g.value(ctx, dir, "--local", "branch."+branch+".remote")
	if err != nil || name == nil || *name != remote {
		return branch, err
	}
	ref, err := g.value(ctx, dir, "--local", "branch."+branch+".merge")
	if err != nil || ref == nil {
		return branch, err
	}
	short, ok := strings.CutPrefix(*ref, "refs/heads/")
	if !ok {
		return branch, nil
	}
	return short, nil
}

// Push sends a branch to the one of the same name. It never forces.
func (g *Git) Push(ctx context.Context, q wire.GitSync) error {
	dir, _, err := g.sync(ctx, &q)
	if err != nil {
		return err
	}
	l := login{q.Username, q.Password}
	env := map[string]string{}
	if l != (login{}) {
		out, err := g.run(ctx, command{repo: dir, args: []string{"remote", "get-url", "--push", "--", q.Remote}})
		if err != nil { // an address
			env, err = g.access(ctx, dir, q.Remote, l)
		} else {
			env, err = l.environ(strings.TrimSpace(out.stdout))
		}
		if err != nil {
			return err
		}
	}
	args := []string{"push", "--quiet"}
	if q.SetUpstream {
		args = append(args, "--set-upstream")
	}
	ref := "refs/heads/" + q.Branch
	return g.do(ctx, command{repo: dir, args: append(args, "--", q.Remote, ref+":"+ref), env: env, remote: true, secret: q.Password})
}

// Remotes lists remotes by name.
func (g *Git) Remotes(ctx context.Context, path string) (wire.GitRemotes, error) {
	list := wire.GitRemotes{Remotes: []wire.GitRemote{}}
	dir, err := g.repo(path)
	if err != nil {
		return list, err
	}
	out, err := g.run(ctx, command{repo: dir, failing: true, args: []string{"config", "--local", "-z", "--get-regexp", `^remote\..*\.url$`}})
	if err != nil {
		return list, err
	}
	seen := map[string]bool{}
	for entry := range strings.SplitSeq(out.stdout, "\x00") {
		key, address, ok := strings.Cut(entry, "\n")
		name := strings.TrimSuffix(strings.TrimPrefix(key, "remote."), ".url")
		if ok && !seen[name] { // a remote may have more, for pushes
			seen[name] = true
			list.Remotes = append(list.Remotes, wire.GitRemote{Name: name, URL: address})
		}
	}
	return list, nil
}

// AddRemote names a remote. When it cannot be fetched from, a new one is taken
// back.
func (g *Git) AddRemote(ctx context.Context, q wire.GitAddRemote) error {
	dir, err := g.repo(q.Path)
	if err != nil {
		return err
	}
	if err := branchName("name", q.Name); err != nil {
		return err
	}
	if err := text("url", q.URL); err != nil {
		return err
	}
	remotes, err := g.Remotes(ctx, q.Path)
	if err != nil {
		return err
	}
	verb := "add"
	for _, r := range remotes.Remotes {
		if r.Name != q.Name {
			continue
		}
		if !q.Overwrite {
			return wire.Errorf(http.StatusConflict, wire.CodeConflict, "there is a remote %q already; set overwrite to replace it", q.Name)
		}
		verb = "set-url"
	}
	if err := g.do(ctx, command{repo: dir, args: []string{"remote", verb, "--", q.Name, q.URL}}); err != nil || !q.Fetch {
		return err
	}
	err = g.do(ctx, command{repo: dir, args: []string{"fetch", "--quiet", "--", q.Name}, remote: true})
	if err != nil && verb == "add" {
		_ = g.do(ctx, command{repo: dir, args: []string{"remote", "remove", "--", q.Name}})
	}
	return err
}
