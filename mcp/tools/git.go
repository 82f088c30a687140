package tools

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

func (k *kit) gitTools() []Tool {
	return []Tool{{
		Name: "sandbox_git", Set: SetGit, Title: "Git",
		Description: "Git in a sandbox. ref: branch, commit or log range. credential: the variable of a secret attached to the sandbox, never a password.",
		Schema:      `{"type":"object","properties":{"id":{"type":"string"},"op":{"type":"string","enum":["clone","status","diff","log","branch","checkout","commit","pull","push"]},"path":{"type":"string"},"url":{"type":"string"},"ref":{"type":"string"},"message":{"type":"string"},"credential":{"type":"string"}},"required":["id","op"],"additionalProperties":false}`,
		Hints:       Hints{Destructive: true, OpenWorld: true}, Handler: k.git,
	}}
}

// gitNeeds lists what an operation cannot do without.
var gitNeeds = map[string][]string{ // constant
	"clone": {"url"}, "branch": {}, "checkout": {"ref"}, "commit": {"message"},
}

func (k *kit) git(ctx context.Context, a Args) (Result, error) {
	op := a.Str("op")
	for _, name := range gitNeeds[op] {
		if strings.TrimSpace(a.Str(name)) == "" {
			return Result{}, invalid(fmt.Sprintf("Add it, as %q:%q", name, map[string]string{
				"url": "https://example.com/team/repo.git", "ref": "main", "message": "what changed",
			}[name]), "%q is missing for op %s", name, op)
		}
	}
	for _, name := range []string{"ref", "url"} {
		if strings.HasPrefix(a.Str(name), "-") {
			return Result{}, invalid("Name a branch, a commit or an address", "%q must not begin with a dash: %s", name, quote(a.Str(name)))
		}
	}
	if u, err := url.Parse(a.Str("url")); err == nil && u.User != nil {
		if _, has := u.User.Password(); has {
			return Result{}, invalid(`Attach a secret to the sandbox and name its variable as "credential"`, `"url" holds a password`)
		}
	}
	b, err := k.box(ctx, a)
	if err != nil {
		return Result{}, err
	}
	repo, err := b.path(ctx, a.Str("path"))
	if err != nil {
		return Result{}, err
	}
	user, password, err := b.credential(ctx, a)
	if err != nil {
		return Result{}, err
	}
	r, err := b.git(ctx, a, op, repo, user, password)
	return r, gitError(err, a)
}

// credential returns what git is to send. The password is the placeholder of
// an attached secret: only the server puts the secret itself into requests,
// and only into those to the secret's hosts.
func (b *box) credential(ctx context.Context, a Args) (user, password string, err error) {
	name := a.Str("credential")
	if name == "" {
		return "", "", nil
	}
	if !envName.MatchString(name) {
		return "", "", invalid("Name the variable that the secret was attached as, as GIT_TOKEN", `"credential" is not the name of a variable: %s`, quote(name))
	}
	out, err := b.execute(ctx, fmt.Sprintf(`printf %%s "$%s"`, name), 10)
	if err != nil {
		return "", "", err
	}
	if out.Result == "" {
		return "", "", invalid("Have your user attach the secret to the sandbox, or leave credential out for public repositories", `the sandbox has no variable %s, which "credential" names`, name)
	}
	return "x-access-token", out.Result, nil
}

func (b *box) git(ctx context.Context, a Args, op, repo, user, password string) (Result, error) {
	ref := a.Str("ref")
	sync := wire.GitSync{Path: here(repo), Branch: ref, Username: user, Password: password, SetUpstream: op == "push"}
	switch op {
	case "clone":
		return b.clone(ctx, a, wire.GitClone{URL: a.Str("url"), Path: repo, Branch: ref, Username: user, Password: password})
	case "status":
		s, err := b.GitStatus(ctx, here(repo))
		if err != nil {
			return Result{}, err
		}
		return gitStatus(s), nil
	case "diff":
		return b.gitText(ctx, repo, "diff --stat --patch "+optional(ref), "Nothing differs.")
	case "log":
		return b.gitText(ctx, repo, "log -n 30 --format='%h %ad %an: %s' --date=short "+optional(ref), "No commits.")
	case "branch":
		if ref != "" {
			return Text("Created branch %s.", ref), b.GitCreateBranch(ctx, here(repo), ref)
		}
		all, err := b.GitBranches(ctx, here(repo))
		return Text("On %s.\n%s", all.Current, clip(strings.Join(all.Branches, "\n"), maxText-200, "there are too many to show")), err
	case "checkout":
		return Text("On %s.", ref), b.GitCheckout(ctx, here(repo), ref)
	case "commit":
		return b.commit(ctx, here(repo), a.Str("message"))
	case "pull":
		a.Progress("pulling")
		return Text("Pulled."), b.GitPull(ctx, sync)
	}
	a.Progress("pushing")
	return Text("Pushed."), b.GitPush(ctx, sync)
}

func here(repo string) string {
	if repo == "" {
		return "."
	}
	return repo
}

func optional(ref string) string {
	if ref == "" {
		return ""
	}
	return shellQuote(ref) + " --"
}

// clone copies a repository into path, or into a directory of its name.
func (b *box) clone(ctx context.Context, a Args, q wire.GitClone) (Result, error) {
	if q.Path == "" {
		q.Path = strings.TrimSuffix(path.Base(strings.TrimRight(q.URL, "/")), ".git")
	}
	a.Progress("cloning")
	if err := b.GitClone(ctx, q); err != nil {
		return Result{}, err
	}
	text := fmt.Sprintf("Cloned %s into %s", q.URL, q.Path)
	if s, err := b.GitStatus(ctx, q.Path); err == nil {
		text += ", on " + s.CurrentBranch
	}
	return Text("%s.", text), nil
}

func gitStatus(s wire.GitStatus) Result {
	head := "On " + s.CurrentBranch
	if s.Detached {
		head = "HEAD is detached"
	}
	if s.Upstream != "" {
		head += fmt.Sprintf(", %d ahead and %d behind %s", s.Ahead, s.Behind, s.Upstream)
	}
	if len(s.FileStatus) == 0 {
		return Text("%s; nothing to commit.", head)
	}
	head += fmt.Sprintf("; %d files differ\n", len(s.FileStatus))
	var lines []string
	for _, f := range s.FileStatus {
		line := fmt.Sprintf("%s (staged: %s, not staged: %s)", f.Name, f.Staging, f.Worktree)
		if f.Staging == wire.GitUntracked || f.Worktree == wire.GitUntracked {
			line = f.Name + " (new)"
		}
		lines = append(lines, line)
	}
	return Text("%s%s", head, clip(strings.Join(lines, "\n"), maxText-len(head), "see git status with sandbox_exec"))
}

// gitText runs a git command that only reads, and shows what it prints.
func (b *box) gitText(ctx context.Context, repo, command, empty string) (Result, error) {
	out, err := b.execute(ctx, fmt.Sprintf("git -C %s --no-pager %s", shellQuote(here(repo)), command), 60)
	text := strings.TrimRight(printable([]byte(out.Result)), "\n")
	switch {
	case err != nil:
		return Result{}, err
	case out.ExitCode != 0:
		return Result{}, invalid(`Check "path" and "ref"; op status tells what is there`, "git failed: %s", firstLine(text))
	case text == "":
		return Text("%s", empty), nil
	}
	return Text("%s", clip(text, maxText, "see the rest with sandbox_exec and git")), nil
}

// commit records all changes, by the user that git knows there.
func (b *box) commit(ctx context.Context, repo, message string) (Result, error) {
	if err := b.GitAdd(ctx, wire.GitAdd{Path: repo, Files: []string{"."}}); err != nil {
		return Result{}, err
	}
	name, email := b.gitUser(ctx, repo)
	hash, err := b.GitCommit(ctx, wire.GitCommit{Path: repo, Message: message, Author: name, Email: email})
	if err != nil {
		return Result{}, err
	}
	r := Text("Committed %.12s.", hash)
	r.Meta = map[string]any{metaGit: map[string]any{"commit": hash}}
	return r, nil
}

func (b *box) gitUser(ctx context.Context, repo string) (name, email string) {
	name, email = "Atoll", "agent@atoll.invalid"
	for key, to := range map[string]*string{"user.name": &name, "user.email": &email} {
		for _, scope := range []string{"global", "local"} { // the later one wins, as in git
			if v, err := b.GitConfig(ctx, key, scope, repo); err == nil && v != nil && *v != "" {
				*to = *v
			}
		}
	}
	return name, email
}

// gitError adds the way out that models need.
func gitError(err error, a Args) error {
	var e *wire.Error
	if !errors.As(err, &e) {
		return err
	}
	hint := map[wire.Code]string{
		wire.CodeGitAuthFailed:     `Name an attached secret's variable as "credential"; without one, ask your user for it`,
		wire.CodeGitRepoNotFound:   `Check "path" and "url"`,
		wire.CodeGitBranchNotFound: `Op branch lists what "ref" can be`,
		wire.CodeGitBranchExists:   `Use op checkout with it as "ref"`,
		wire.CodeGitPushRejected:   "Use op pull first",
		wire.CodeGitDirtyWorktree:  "Use op commit first",
		wire.CodeGitMergeConflict:  "Edit the files that op status names, then use op commit",
		wire.CodeGitTransport:      `Check "url" and what the sandbox may reach`,
		wire.CodeFileNotFound:      `Check "path"; sandbox_find lists directories`,
	}[codeOf(err)]
	if hint == "" {
		return err
	}
	return invalid(hint, "%s", firstLine(strings.TrimSuffix(e.Message, ".")))
}
