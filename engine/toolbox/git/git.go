// Package git answers the Git operations of the toolbox by running the
// sandbox's own git as the sandbox's user. Nothing that a caller sends can
// become an option, and credentials of a call travel in the environment of its
// process: they are in no argument list and in no file.
package git

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

const (
	localTimeout  = 5 * time.Minute
	remoteTimeout = 30 * time.Minute
	grace         = 3 * time.Second // for git to remove its locks and half-made clones
)

// Git runs operations.
type Git struct {
	runner *process.Runner
}

// New returns a Git.
func New(r *process.Runner) *Git { return &Git{runner: r} }

// command is one run of git.
type command struct {
	repo    string // absolute; empty: none
	args    []string
	stdin   string
	env     map[string]string
	remote  bool   // it talks to a remote: slow, and ends with its caller
	secret  string // never shown
	failing bool   // exit code 1 is an answer
}

// output is what a run printed.
type output struct {
	stdout string
	code   int
}

// run runs git. Local operations go on when their caller leaves, since one cut
// short would leave a locked repository; they are quick.
func (g *Git) run(ctx context.Context, c command) (output, error) {
	timeout := remoteTimeout
	if !c.remote {
		timeout = localTimeout
		ctx = context.WithoutCancel(ctx)
	}
	argv := []string{"git", "-c", "core.quotePath=false"}
	if c.repo != "" {
		argv = append(argv, "-C", c.repo)
	}
	env := map[string]string{"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": "", "GIT_EDITOR": ":", "GIT_PAGER": "cat", "LC_ALL": "C", "LANGUAGE": ""}
	for k, v := range c.env {
		env[k] = v
	}
	res, err := g.runner.Run(ctx,
		process.Command{Argv: append(argv, c.args...), Env: env},
		process.Input{Stdin: c.stdin, Timeout: timeout, Split: true, Grace: grace})
	switch {
	case ctx.Err() != nil:
		return output{}, wire.Errorf(499, wire.CodeBadRequest, "the caller went away; git was stopped")
	case err != nil:
		return output{}, err
	case res.TimedOut:
		return output{}, wire.Errorf(http.StatusRequestTimeout, wire.CodeExecTimeout, "git took longer than %s and was stopped", timeout)
	case res.ExitCode == 127 && res.Stderr == "" && strings.HasPrefix(res.Result, "git: "):
		return output{}, wire.Errorf(http.StatusNotImplemented, wire.CodeNotImplemented, "git is not installed in this sandbox; install it, or use an image that has it")
	case res.ExitCode == 0 || (c.failing && res.ExitCode == 1):
		if res.Truncated {
			return output{}, wire.BadRequest("the answer is larger than 8 MiB; ask for less")
		}
		return output{stdout: res.Stdout, code: res.ExitCode}, nil
	}
	text := res.Stderr
	if res.Stderr == "" || strings.Contains(res.Stdout, "CONFLICT") || strings.Contains(res.Stdout, "commit") {
		text = res.Stdout + res.Stderr
	}
	if text == "" {
		text = res.Result
	}
	return output{}, failure(text, c.secret)
}

// do runs git for its effect alone.
func (g *Git) do(ctx context.Context, c command) error {
	_, err := g.run(ctx, c)
	return err
}

// repo checks and resolves the path of a repository.
func (g *Git) repo(path string) (string, error) {
	switch {
	case path == "":
		return "", wire.BadRequest("path: it is missing; give the directory of a repository")
	case strings.IndexByte(path, 0) >= 0:
		return "", wire.Errorf(http.StatusBadRequest, wire.CodeInvalidPath, "path: it holds a NUL byte; remove it")
	}
	return g.runner.Resolve(path), nil
}

// text checks a value that is one argument and no option.
func text(field, v string) error {
	switch {
	case v == "":
		return wire.BadRequest("%s: it is missing", field)
	case strings.HasPrefix(v, "-"):
		return wire.BadRequest("%s: %.80q begins with a hyphen, which git would take for an option", field, v)
	case strings.ContainsAny(v, "\x00\n\r"):
		return wire.BadRequest("%s: it holds a line break or a NUL byte; remove it", field)
	case len(v) > 4096:
		return wire.BadRequest("%s: it is longer than 4096 bytes", field)
	}
	return nil
}

// branchName checks the name of a branch or a remote by git's own rules, so that it cannot
// be an option, a refspec or a pattern.
func branchName(field, v string) error {
	if err := text(field, v); err != nil {
		return err
	}
	bad := v == "@" || v == "HEAD" || strings.ContainsAny(v, " ~^:?*[\\\x7f") || strings.HasPrefix(v, "+") ||
		strings.Contains(v, "..") || strings.Contains(v, "@{") || strings.HasSuffix(v, ".") || strings.HasSuffix(v, "/")
	for part := range strings.SplitSeq(v, "/") {
		bad = bad || part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock")
	}
	for _, c := range []byte(v) {
		bad = bad || c < ' '
	}
	if bad {
		return wire.BadRequest("%s: %.80q is not a name that git allows", field, v)
	}
	return nil
}

// paths checks files of a repository and joins them for git's stdin.
func paths(files []string) (string, error) {
	if len(files) == 0 {
		return "", wire.BadRequest("files: it is empty; name files, or \".\" for all")
	}
	for i, f := range files {
		if f == "" || strings.IndexByte(f, 0) >= 0 {
			return "", wire.BadRequest("files[%d]: it is empty or holds a NUL byte", i)
		}
	}
	return strings.Join(files, "\x00") + "\x00", nil
}

// login is a user name and password for one call.
type login struct{ username, password string }

// helper is a credential helper that answers from its environment.
const helper = `!f() { test "$1" = get && printf 'username=%s\npassword=%s\n' "$ATOLL_GIT_USERNAME" "$ATOLL_GIT_PASSWORD"; }; f`

// environ makes git use the login for the server of address and for no other,
// so that neither a redirect nor a submodule carries it away. The user's own
// helpers are not asked, and not told.
func (l login) environ(address string) (map[string]string, error) {
	if l == (login{}) {
		return map[string]string{}, nil
	}
	if strings.ContainsAny(l.username+l.password, "\x00\n\r") {
		return nil, wire.BadRequest("username, password: they hold a line break or a NUL byte; remove it")
	}
	u, err := url.Parse(address)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") {
		return map[string]string{}, nil // ssh and local repositories know no passwords
	}
	if l.username == "" {
		l.username = "git" // servers that take tokens ignore it, but want one
	}
	key := "credential." + u.Scheme + "://" + u.Host + ".helper"
	return config(map[string]string{"ATOLL_GIT_USERNAME": l.username, "ATOLL_GIT_PASSWORD": l.password}, key, "", key, helper), nil
}

// config adds configuration, as pairs of key and value, to an environment.
func config(env map[string]string, pairs ...string) map[string]string {
	env["GIT_CONFIG_COUNT"] = strconv.Itoa(len(pairs) / 2)
	for i := 0; i+1 < len(pairs); i += 2 {
		n := strconv.Itoa(i / 2)
		env["GIT_CONFIG_KEY_"+n], env["GIT_CONFIG_VALUE_"+n] = pairs[i], pairs[i+1]
	}
	return env
}
