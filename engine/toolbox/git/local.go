package git

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// Init makes a repository and the directories above it.
func (g *Git) Init(ctx context.Context, q wire.GitInit) error {
	dir, err := g.repo(q.Path)
	if err != nil {
		return err
	}
	args := []string{"init", "--quiet"}
	if q.Bare {
		args = append(args, "--bare")
	}
	if q.InitialBranch != "" {
		if err := branchName("initial_branch", q.InitialBranch); err != nil {
			return err
		}
		args = append(args, "--initial-branch="+q.InitialBranch)
	}
	return g.do(ctx, command{args: append(args, "--", dir)})
}

// Add stages files, deleted ones too.
func (g *Git) Add(ctx context.Context, q wire.GitAdd) error {
	dir, err := g.repo(q.Path)
	if err != nil {
		return err
	}
	list, err := paths(q.Files)
	if err != nil {
		return err
	}
	return g.do(ctx, command{repo: dir, stdin: list, args: []string{"add", "--pathspec-from-file=-", "--pathspec-file-nul"}})
}

// Commit records what is staged and returns the commit's hash.
func (g *Git) Commit(ctx context.Context, q wire.GitCommit) (wire.GitCommitted, error) {
	dir, err := g.repo(q.Path)
	if err != nil {
		return wire.GitCommitted{}, err
	}
	for field, v := range map[string]string{"author": q.Author, "email": q.Email, "message": q.Message} {
		if strings.TrimSpace(v) == "" || strings.IndexByte(v, 0) >= 0 {
			return wire.GitCommitted{}, wire.BadRequest("%s: it is empty or holds a NUL byte", field)
		}
	}
	args := []string{"commit", "--quiet", "--cleanup=whitespace", "--file=-"}
	if q.AllowEmpty {
		args = append(args, "--allow-empty")
	}
	err = g.do(ctx, command{repo: dir, args: args, stdin: q.Message, env: map[string]string{
		"GIT_AUTHOR_NAME": q.Author, "GIT_AUTHOR_EMAIL": q.Email,
		"GIT_COMMITTER_NAME": q.Author, "GIT_COMMITTER_EMAIL": q.Email,
	}})
	if err != nil {
		return wire.GitCommitted{}, err
	}
	out, err := g.run(ctx, command{repo: dir, args: []string{"rev-parse", "--verify", "HEAD"}})
	return wire.GitCommitted{Hash: strings.TrimSpace(out.stdout)}, err
}

// Branches lists local branches.
func (g *Git) Branches(ctx context.Context, path string) (wire.GitBranches, error) {
	list := wire.GitBranches{Branches: []string{}}
	dir, err := g.repo(path)
	if err != nil {
		return list, err
	}
	out, err := g.run(ctx, command{repo: dir, args: []string{"for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads/"}})
	if err != nil {
		return list, err
	}
	list.Branches = append(list.Branches, strings.Fields(out.stdout)...)
	list.Current, err = g.current(ctx, dir)
	return list, err
}

// current returns the checked out branch, which need not have commits; it is
// empty when HEAD is detached.
func (g *Git) current(ctx context.Context, dir string) (string, error) {
	out, err := g.run(ctx, command{repo: dir, failing: true, args: []string{"symbolic-ref", "--quiet", "HEAD"}})
	return strings.TrimPrefix(strings.TrimSpace(out.stdout), "refs/heads/"), err
}

// CreateBranch makes a branch and switches to it, as published clients expect.
func (g *Git) CreateBranch(ctx context.Context, q wire.GitBranch) error {
	dir, err := g.branch(q)
	if err != nil {
		return err
	}
	return g.do(ctx, command{repo: dir, args: []string{"checkout", "--quiet", "-b", q.Name, "--"}})
}

// DeleteBranch deletes a branch, merged or not.
func (g *Git) DeleteBranch(ctx context.Context, q wire.GitBranch) error {
	dir, err := g.branch(q)
	if err != nil {
		return err
	}
	return g.do(ctx, command{repo: dir, args: []string{"branch", "--quiet", "-D", "--", q.Name}})
}

func (g *Git) branch(q wire.GitBranch) (string, error) {
	if err := branchName("name", q.Name); err != nil {
		return "", err
	}
	return g.repo(q.Path)
}

// Checkout switches to a branch, one of a remote's included, or to a commit.
func (g *Git) Checkout(ctx context.Context, q wire.GitCheckout) error {
	dir, err := g.repo(q.Path)
	if err != nil {
		return err
	}
	if err := text("branch", q.Branch); err != nil {
		return err
	}
	return g.do(ctx, command{repo: dir, args: []string{"checkout", "--quiet", q.Branch, "--"}})
}

// Reset moves HEAD to a target, or takes files out of the index.
func (g *Git) Reset(ctx context.Context, q wire.GitReset) error {
	dir, err := g.repo(q.Path)
	if err != nil {
		return err
	}
	if q.Mode == "" {
		q.Mode = "mixed"
	}
	if !slices.Contains([]string{"soft", "mixed", "hard", "merge", "keep"}, q.Mode) {
		return wire.BadRequest("mode: %.40q is not known; use soft, mixed, hard, merge or keep", q.Mode)
	}
	if q.Target == "" {
		q.Target = "HEAD"
	}
	if err := text("target", q.Target); err != nil {
		return err
	}
	if len(q.Files) == 0 {
		return g.do(ctx, command{repo: dir, args: []string{"reset", "--quiet", "--" + q.Mode, q.Target, "--"}})
	}
	if q.Mode != "mixed" {
		return wire.BadRequest("mode: files can be reset with mixed only; to change their content, restore them")
	}
	list, err := paths(q.Files)
	if err != nil {
		return err
	}
	return g.do(ctx, command{repo: dir, stdin: list, args: []string{"reset", "--quiet", "--pathspec-from-file=-", "--pathspec-file-nul", q.Target}})
}

// Restore brings files back from the index or a revision.
func (g *Git) Restore(ctx context.Context, q wire.GitRestore) error {
	dir, err := g.repo(q.Path)
	if err != nil {
		return err
	}
	list, err := paths(q.Files)
	if err != nil {
		return err
	}
	args := []string{"restore", "--quiet", "--pathspec-from-file=-", "--pathspec-file-nul"}
	if q.Source != "" {
		if err := text("source", q.Source); err != nil {
			return err
		}
		args = append(args, "--source="+q.Source)
	}
	if q.Staged {
		args = append(args, "--staged")
	}
	if q.Worktree {
		args = append(args, "--worktree")
	}
	return g.do(ctx, command{repo: dir, stdin: list, args: args})
}

// maxHistory is how many commits a history holds at most.
const maxHistory = 5000

// History lists the commits before HEAD, newest first; none in a new
// repository.
func (g *Git) History(ctx context.Context, path string) ([]wire.GitCommitInfo, error) {
	list := []wire.GitCommitInfo{}
	dir, err := g.repo(path)
	if err != nil {
		return nil, err
	}
	head, err := g.run(ctx, command{repo: dir, failing: true, args: []string{"rev-parse", "--quiet", "--verify", "HEAD"}})
	if err != nil || head.code != 0 {
		return list, err
	}
	args := []string{"log", "-z", "--no-show-signature", "--max-count=" + strconv.Itoa(maxHistory), "--format=%H%n%an%n%ae%n%aI%n%B", "HEAD", "--"}
	out, err := g.run(ctx, command{repo: dir, args: args})
	if err != nil {
		return nil, err
	}
	for entry := range strings.SplitSeq(out.stdout, "\x00") {
		f := strings.SplitN(entry, "\n", 5)
		if len(f) == 5 {
			list = append(list, wire.GitCommitInfo{Hash: f[0], Author: f[1], Email: f[2], Timestamp: f[3], Message: strings.TrimRight(f[4], "\n")})
		}
	}
	return list, nil
}
