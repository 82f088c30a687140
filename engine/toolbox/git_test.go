package toolbox

import (
	"context"
	"errors"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// repo makes a repository with one commit and returns its hash.
func (b *box) repo(path string) string {
	b.t.Helper()
	if err := b.GitInit(b.t.Context(), wire.GitInit{Path: path, InitialBranch: "main"}); err != nil {
		b.t.Fatal(err)
	}
	b.run("echo one > " + path + "/a.txt; echo two > " + path + "/b.txt")
	return b.commit(path, "first")
}

// commit stages all and commits.
func (b *box) commit(path, message string) string {
	b.t.Helper()
	ctx := b.t.Context()
	if err := b.GitAdd(ctx, wire.GitAdd{Path: path, Files: []string{"."}}); err != nil {
		b.t.Fatal(err)
	}
	hash, err := b.GitCommit(ctx, wire.GitCommit{Path: path, Message: message, Author: "Ann", Email: "ann@example.com"})
	if err != nil {
		b.t.Fatal(err)
	}
	return hash
}

func (b *box) status(path string) wire.GitStatus {
	b.t.Helper()
	s, err := b.GitStatus(b.t.Context(), path)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// must fails the test at the first error.
func must(t *testing.T, errs ...error) {
	t.Helper()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("step %d: %v", i+1, err)
		}
	}
}

func TestGitStatus(t *testing.T) {
	b := open(t)
	must(t, b.GitInit(t.Context(), wire.GitInit{Path: "r", InitialBranch: "trunk"}))
	if diff := cmp.Diff(wire.GitStatus{CurrentBranch: "trunk", FileStatus: []wire.GitFileStatus{}}, b.status("r")); diff != "" {
		t.Errorf("new repository: -want +got\n%s", diff)
	}
	b.run(`cd r && seq 30 > old && seq 9 > "m  é
n" && echo x > gone && git init -q -b main ../x`)
	hash := b.commit("r", "first")
	b.run(`cd r && git mv old new && echo y >> "m  é
n" && rm gone && echo n > dir-less && mkdir d && echo n > d/deep && git add dir-less`)
	want := wire.GitStatus{CurrentBranch: "trunk", FileStatus: []wire.GitFileStatus{
		{Name: "dir-less", Staging: "Added", Worktree: "Unmodified"},
		{Name: "gone", Staging: "Unmodified", Worktree: "Deleted"},
		{Name: "m  é\nn", Staging: "Unmodified", Worktree: "Modified"},
		{Name: "new", Staging: "Renamed", Worktree: "Unmodified", Extra: "old"},
		{Name: "d/deep", Staging: "Untracked", Worktree: "Untracked"},
	}}
	if diff := cmp.Diff(want, b.status("r")); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if owner := strings.TrimSpace(b.run("stat -c %u r/.git/index")); owner != "41234" {
		t.Errorf("git ran as user %s, want the sandbox's", owner)
	}
	must(t, b.GitReset(t.Context(), wire.GitReset{Path: "r", Mode: "hard"}), b.GitCheckout(t.Context(), "r", hash))
	if s := b.status("r"); !s.Detached || s.CurrentBranch != "HEAD" || s.BranchPublished {
		t.Errorf("detached: got %+v", s)
	}
}

func TestGitLocal(t *testing.T) {
	b := open(t)
	ctx := t.Context()
	first := b.repo("r")
	must(t, b.GitCreateBranch(ctx, "r", "topic/a"))
	b.run("echo more >> r/a.txt; rm r/b.txt")
	second := b.commit("r", "second\n\nwith a body")

	got, err := b.GitHistory(ctx, "r")
	must(t, err)
	for i := range got {
		if got[i].Timestamp == "" {
			t.Error("a commit without a time")
		}
		got[i].Timestamp = ""
	}
	want := []wire.GitCommitInfo{
		{Hash: second, Author: "Ann", Email: "ann@example.com", Message: "second\n\nwith a body"},
		{Hash: first, Author: "Ann", Email: "ann@example.com", Message: "first"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("history: -want +got\n%s", diff)
	}
	branches := func(want wire.GitBranches) {
		t.Helper()
		got, err := b.GitBranches(ctx, "r")
		must(t, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("branches: -want +got\n%s", diff)
		}
	}
	branches(wire.GitBranches{Branches: []string{"main", "topic/a"}, Current: "topic/a"})
	wantError(t, b.GitDeleteBranch(ctx, "r", "topic/a"), 400, wire.CodeBadRequest, "check out another branch")
	must(t, b.GitCheckout(ctx, "r", "main"), b.GitDeleteBranch(ctx, "r", "topic/a"))
	branches(wire.GitBranches{Branches: []string{"main"}, Current: "main"})

	// Restore and reset.
	b.run("cd r && echo x > a.txt && echo x > b.txt && git add a.txt b.txt")
	must(t, b.GitRestore(ctx, wire.GitRestore{Path: "r", Files: []string{"a.txt"}, Staged: true, Worktree: true}))
	must(t, b.GitReset(ctx, wire.GitReset{Path: "r", Files: []string{"b.txt"}}))
	files := []wire.GitFileStatus{{Name: "b.txt", Staging: "Unmodified", Worktree: "Modified"}}
	if diff := cmp.Diff(files, b.status("r").FileStatus); diff != "" {
		t.Errorf("after restore and reset: -want +got\n%s", diff)
	}
	must(t, b.GitRestore(ctx, wire.GitRestore{Path: "r", Files: []string{"b.txt"}}), b.GitReset(ctx, wire.GitReset{Path: "r", Mode: "hard", Target: second}))
	if got := read(t, b.dir+"/r/a.txt"); got != "one\nmore\n" {
		t.Errorf("after the reset a.txt is %q", got)
	}
	_, err = b.GitCommit(ctx, wire.GitCommit{Path: "r", Message: "m", Author: "A", Email: "e"})
	wantError(t, err, 400, wire.CodeBadRequest, "nothing to commit")
	_, err = b.GitCommit(ctx, wire.GitCommit{Path: "r", Message: "m", Author: "A", Email: "e", AllowEmpty: true})
	must(t, err)
}

func TestGitConfig(t *testing.T) {
	b := open(t)
	ctx := t.Context()
	b.repo("r")
	value := func(key, scope, path, want string) {
		t.Helper()
		v, err := b.GitConfig(ctx, key, scope, path)
		must(t, err)
		got := "(none)"
		if v != nil {
			got = *v
		}
		if got != want {
			t.Errorf("%s %s: got %q, want %q", scope, key, got, want)
		}
	}
	value("user.name", "", "", "(none)")
	must(t, b.GitSetUser(ctx, wire.GitUser{Name: "Ann", Email: "ann@example.com"}),
		b.GitSetConfig(ctx, wire.GitSetConfig{Key: "user.name", Value: "--unset\nBob", Scope: "local", Path: "r"}),
		b.GitSetConfig(ctx, wire.GitSetConfig{Key: "url.https://a.example/.insteadOf", Value: "x:"}))
	value("user.name", "global", "", "Ann")
	value("user.email", "", "", "ann@example.com")
	value("user.name", "local", "r", "--unset\nBob")
	value("url.https://a.example/.insteadOf", "", "", "x:")
	_, body, text := b.send("GET", "/git/config?key=a.b", nil)
	if text != `{"value":null}` {
		t.Errorf("got %v %s, want a null value", body, text)
	}
	wantError(t, b.GitSetConfig(ctx, wire.GitSetConfig{Key: "a.b", Value: "x", Scope: "local"}), 400, wire.CodeBadRequest, "path: it is missing")
	wantError(t, b.GitSetConfig(ctx, wire.GitSetConfig{Key: "--a.b", Value: "x"}), 400, wire.CodeBadRequest, "key:")
	wantError(t, b.GitSetConfig(ctx, wire.GitSetConfig{Key: "a.b", Scope: "moon"}), 400, wire.CodeBadRequest, "scope:")
	wantError(t, b.GitSetConfig(ctx, wire.GitSetConfig{Key: "a.b", Value: "x", Scope: "system"}), 403, wire.CodeFileDenied, "")

	must(t, b.GitKeep(ctx, wire.GitCredentials{Username: "u", Password: "p@:/ss"}), b.GitKeep(ctx, wire.GitCredentials{Username: "u", Password: "q", Host: "h.example:8443"}))
	if got, want := read(t, b.dir+"/.git-credentials"), "https://u:q@h.example%3a8443\nhttps://u:p%40%3a%2fss@github.com\n"; got != want {
		t.Errorf("stored %q, want %q", got, want)
	}
	value("credential.helper", "", "", "store")
	wantError(t, b.GitKeep(ctx, wire.GitCredentials{Username: "u", Password: "p\nhost=evil"}), 400, wire.CodeBadRequest, "password:")
}

func TestGitRemotes(t *testing.T) {
	b := open(t)
	ctx := t.Context()
	first := b.repo("r")
	b.run("git clone -q --bare r hub.git")
	hub := b.dir + "/hub.git"
	must(t, b.GitClone(ctx, wire.GitClone{URL: hub, Path: "ann"}), b.GitClone(ctx, wire.GitClone{URL: hub, Path: b.dir + "/bob", Branch: "main", Depth: 1}))
	if s := b.status("ann"); s.Upstream != "origin/main" || !s.BranchPublished || s.Ahead != 0 {
		t.Errorf("after the clone: got %+v", s)
	}
	remotes, err := b.GitRemotes(ctx, "ann")
	must(t, err)
	if diff := cmp.Diff([]wire.GitRemote{{Name: "origin", URL: hub}}, remotes); diff != "" {
		t.Errorf("remotes: -want +got\n%s", diff)
	}

	// A new branch is pushed, and pulled elsewhere.
	must(t, b.GitCreateBranch(ctx, "ann", "topic"))
	b.run("echo 3 > ann/c.txt")
	b.commit("ann", "third")
	if b.status("ann").BranchPublished {
		t.Error("an unpushed branch counts as published")
	}
	must(t, b.GitPush(ctx, wire.GitSync{Path: "ann"}))
	if s := b.status("ann"); !s.BranchPublished || s.Upstream != "" {
		t.Errorf("after the push: got %+v", s)
	}
	must(t, b.GitPush(ctx, wire.GitSync{Path: "ann", SetUpstream: true}), b.GitPull(ctx, wire.GitSync{Path: "ann"}))
	if s := b.status("ann"); s.Upstream != "origin/topic" {
		t.Errorf("after set_upstream: got %+v", s)
	}
	must(t, b.GitPull(ctx, wire.GitSync{Path: "bob", Branch: "topic"}))
	read(t, b.dir+"/bob/c.txt")
	wantError(t, b.GitPull(ctx, wire.GitSync{Path: "bob", Branch: "none"}), 404, wire.CodeGitBranchNotFound, "none")
	wantError(t, b.GitPush(ctx, wire.GitSync{Path: "bob", Branch: "none"}), 404, wire.CodeGitBranchNotFound, "none")

	// Both change the same line.
	must(t, b.GitCheckout(ctx, "ann", "main"), b.GitSetUser(ctx, wire.GitUser{Name: "A", Email: "a@example.com"}))
	b.run("echo ann > ann/a.txt; echo bob > bob/a.txt")
	b.commit("ann", "ann's")
	b.commit("bob", "bob's")
	must(t, b.GitPush(ctx, wire.GitSync{Path: "ann"}))
	wantError(t, b.GitPush(ctx, wire.GitSync{Path: "bob"}), 409, wire.CodeGitPushRejected, "rejected")
	wantError(t, b.GitPull(ctx, wire.GitSync{Path: "bob"}), 409, wire.CodeGitMergeConflict, "a.txt")
	if got := b.status("bob").FileStatus; len(got) != 1 || got[0].Staging != wire.GitUnmerged {
		t.Errorf("in the conflict: got %+v", got)
	}
	_, err = b.GitCommit(ctx, wire.GitCommit{Path: "bob", Message: "m", Author: "A", Email: "e"})
	wantError(t, err, 409, wire.CodeGitMergeConflict, "")
	must(t, b.GitReset(ctx, wire.GitReset{Path: "bob", Mode: "hard"}))

	// More remotes.
	must(t, b.GitAddRemote(ctx, wire.GitAddRemote{Path: "r", Name: "hub", URL: hub, Fetch: true}))
	must(t, b.GitCheckout(ctx, "r", "topic")) // follows hub/topic
	wantError(t, b.GitAddRemote(ctx, wire.GitAddRemote{Path: "r", Name: "hub", URL: "x"}), 409, wire.CodeConflict, "overwrite")
	must(t, b.GitAddRemote(ctx, wire.GitAddRemote{Path: "r", Name: "hub", URL: b.dir + "/r", Overwrite: true}))
	wantError(t, b.GitAddRemote(ctx, wire.GitAddRemote{Path: "r", Name: "bad", URL: "/nowhere", Fetch: true}), 404, wire.CodeGitRepoNotFound, "nowhere")
	if remotes, err = b.GitRemotes(ctx, "r"); err != nil || len(remotes) != 1 || remotes[0].URL != b.dir+"/r" {
		t.Errorf("got %v, %v, want one remote", remotes, err)
	}

	// A commit instead of a branch; a failure leaves nothing.
	must(t, b.GitClone(ctx, wire.GitClone{URL: "file://" + hub, Path: "old", CommitID: first[:10]}))
	if s := b.status("old"); !s.Detached {
		t.Errorf("at a commit: got %+v", s)
	}
	wantError(t, b.GitClone(ctx, wire.GitClone{URL: hub, Path: "lost", CommitID: strings.Repeat("1", 40)}), 404, wire.CodeNotFound, "no commit")
	b.run("mkdir empty")
	wantError(t, b.GitClone(ctx, wire.GitClone{URL: hub, Path: "empty", CommitID: "nope"}), 404, wire.CodeNotFound, "no commit")
	b.run("test ! -e lost && rmdir empty")
}

func TestGitRefuses(t *testing.T) {
	b := open(t)
	ctx := t.Context()
	b.repo("r")
	commit := func(q wire.GitCommit) error { _, err := b.GitCommit(ctx, q); return err }
	status := func(path string) error { _, err := b.GitStatus(ctx, path); return err }
	marker := b.dir + "/injected"
	dirty := func() error {
		b.run("cd r && git checkout -q -b other && echo z > a.txt && git -c user.name=a -c user.email=b commit -qam z && git checkout -q main && echo w > a.txt")
		return b.GitCheckout(ctx, "r", "other")
	}
	locked := func() error {
		b.run("touch r/.git/index.lock")
		defer b.run("rm r/.git/index.lock")
		return b.GitAdd(ctx, wire.GitAdd{Path: "r", Files: []string{"."}})
	}
	for name, tt := range map[string]struct {
		err    error
		status int
		code   wire.Code
		part   string
	}{
		"no path":         {status(""), 400, wire.CodeBadRequest, "path: it is missing"},
		"no repository":   {status("/"), 404, wire.CodeGitRepoNotFound, "not a git repository"},
		"no directory":    {status("nowhere"), 404, wire.CodeGitRepoNotFound, "nowhere"},
		"root's":          {func() error { must(t, os.MkdirAll(b.dir+"/x/.git", 0o700)); return status("x") }(), 404, wire.CodeGitRepoNotFound, ""},
		"clone nothing":   {b.GitClone(ctx, wire.GitClone{URL: "/nowhere.git", Path: "c"}), 404, wire.CodeGitRepoNotFound, "nowhere"},
		"clone onto":      {b.GitClone(ctx, wire.GitClone{URL: b.dir + "/r", Path: "r"}), 409, wire.CodeConflict, "not an empty directory"},
		"clone no branch": {b.GitClone(ctx, wire.GitClone{URL: b.dir + "/r", Path: "c", Branch: "zz"}), 404, wire.CodeGitBranchNotFound, "zz"},
		"clone forbidden": {b.GitClone(ctx, wire.GitClone{URL: b.dir + "/r", Path: "/root/c"}), 403, wire.CodeFileDenied, ""},
		"clone no host":   {b.GitClone(ctx, wire.GitClone{URL: "http://127.0.0.1:1/x", Path: "c"}), 500, wire.CodeGitTransport, ""},
		"option as url":   {b.GitClone(ctx, wire.GitClone{URL: "--upload-pack=touch " + marker, Path: "c"}), 400, wire.CodeBadRequest, "url:"},
		"command as url":  {b.GitClone(ctx, wire.GitClone{URL: "ext::touch " + marker, Path: "c"}), 400, wire.CodeBadRequest, "ext"},
		"option as rev":   {b.GitCheckout(ctx, "r", "--orphan=x"), 400, wire.CodeBadRequest, "branch:"},
		"no revision":     {b.GitCheckout(ctx, "r", "zz"), 404, wire.CodeGitBranchNotFound, "zz"},
		"a file as rev":   {b.GitCheckout(ctx, "r", "a.txt"), 404, wire.CodeGitBranchNotFound, "a.txt"},
		"dirty":           {dirty(), 409, wire.CodeGitDirtyWorktree, "a.txt"},
		"locked":          {locked(), 409, wire.CodeConflict, "index.lock"},
		"force push":      {b.GitPush(ctx, wire.GitSync{Path: "r", Branch: "+main"}), 400, wire.CodeBadRequest, "branch:"},
		"push to nowhere": {b.GitPush(ctx, wire.GitSync{Path: "r"}), 404, wire.CodeGitRepoNotFound, "origin"},
		"remote option":   {b.GitPush(ctx, wire.GitSync{Path: "r", Remote: "--exec=touch " + marker}), 400, wire.CodeBadRequest, "remote:"},
		"branch exists":   {b.GitCreateBranch(ctx, "r", "main"), 409, wire.CodeGitBranchExists, "main"},
		"branch name":     {b.GitCreateBranch(ctx, "r", "a..b"), 400, wire.CodeBadRequest, "name:"},
		"no branch":       {b.GitDeleteBranch(ctx, "r", "zz"), 404, wire.CodeGitBranchNotFound, "zz"},
		"add nothing":     {b.GitAdd(ctx, wire.GitAdd{Path: "r"}), 400, wire.CodeBadRequest, "files:"},
		"add missing":     {b.GitAdd(ctx, wire.GitAdd{Path: "r", Files: []string{"--all"}}), 400, wire.CodeBadRequest, "did not match"},
		"no message":      {commit(wire.GitCommit{Path: "r", Author: "a", Email: "b"}), 400, wire.CodeBadRequest, "message:"},
		"reset mode":      {b.GitReset(ctx, wire.GitReset{Path: "r", Mode: "x"}), 400, wire.CodeBadRequest, "mode:"},
		"reset target":    {b.GitReset(ctx, wire.GitReset{Path: "r", Target: "zz"}), 404, wire.CodeNotFound, "zz"},
		"reset files":     {b.GitReset(ctx, wire.GitReset{Path: "r", Mode: "hard", Files: []string{"a.txt"}}), 400, wire.CodeBadRequest, "mixed"},
		"restore source":  {b.GitRestore(ctx, wire.GitRestore{Path: "r", Files: []string{"a.txt"}, Source: "zz"}), 404, wire.CodeGitBranchNotFound, "zz"},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, tt.err, tt.status, tt.code, tt.part) })
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("a command was injected")
	}
	none := open(t, func(c *Config) { c.Env["PATH"] = "/nowhere" })
	_, err := none.GitStatus(ctx, ".")
	wantError(t, err, 501, wire.CodeNotImplemented, "not installed")
}

// TestGitLogin talks to a real HTTP server with a password. What it sees of the
// call's processes shows that the password is in no argument list.
func TestGitLogin(t *testing.T) {
	b := open(t)
	ctx := t.Context()
	b.repo("r")
	b.run("git clone -q --bare r hub.git && git -C hub.git config http.receivepack true")
	backend := &cgi.Handler{
		Path: "/usr/lib/git-core/git-http-backend",
		Env:  []string{"GIT_PROJECT_ROOT=" + b.dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*", "REMOTE_USER=x"},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		all, _ := os.ReadDir("/proc")
		for _, p := range all {
			if line, _ := os.ReadFile("/proc/" + p.Name() + "/cmdline"); strings.Contains(string(line), "hunter2") {
				t.Errorf("the password is in an argument list: %q", line)
			}
		}
		user, password, _ := r.BasicAuth()
		switch {
		case user == "blocked":
			w.WriteHeader(http.StatusForbidden)
		case user != "ann" || password != "hunter2":
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			backend.ServeHTTP(w, r)
		}
	}))
	defer server.Close()
	url := server.URL + "/hub.git"
	clone := func(url, path, user, password string) error {
		return b.GitClone(ctx, wire.GitClone{URL: url, Path: path, Username: user, Password: password})
	}
	wantError(t, clone(url, "x", "", ""), 401, wire.CodeGitAuthFailed, "")
	wantError(t, clone(url, "x", "ann", "wrong"), 401, wire.CodeGitAuthFailed, "")
	wantError(t, clone(strings.Replace(url, "//", "//blocked:x@", 1), "x", "", ""), 403, wire.CodeGitAuthFailed, "")
	wantError(t, clone(server.URL+"/none.git", "x", "ann", "hunter2"), 404, wire.CodeGitRepoNotFound, "none.git")
	must(t, clone(url, "w", "ann", "hunter2"), clone(strings.Replace(url, "//", "//ann:hunter2@", 1), "v", "", ""))

	b.run("echo x > w/x")
	b.commit("w", "x")
	wantError(t, b.GitPush(ctx, wire.GitSync{Path: "w"}), 401, wire.CodeGitAuthFailed, "")
	must(t, b.GitPush(ctx, wire.GitSync{Path: "w", Username: "ann", Password: "hunter2"}),
		b.GitPull(ctx, wire.GitSync{Path: "v", Username: "ann", Password: "hunter2"}))
	read(t, b.dir+"/v/x")
	if got := b.run("grep -rl hunter2 . || true"); got != "" {
		t.Errorf("the password was left in %s", got)
	}

	// Kept on demand, and then used by all.
	host := strings.TrimPrefix(server.URL, "http://")
	must(t, b.GitKeep(ctx, wire.GitCredentials{Username: "ann", Password: "hunter2", Host: host, Protocol: "http"}))
	must(t, clone(url, "u", "", ""))
	b.run("git -C u fetch -q")

	// Nobody else gets them.
	b.run("rm .git-credentials")
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, server.URL+r.URL.RequestURI(), http.StatusFound)
	}))
	defer other.Close()
	wantError(t, clone(strings.Replace(other.URL, "127.0.0.1", "localhost", 1)+"/hub.git", "z", "ann", "hunter2"), 401, wire.CodeGitAuthFailed, "")
}

// TestGitCloneStops leaves while a server keeps a clone waiting.
func TestGitCloneStops(t *testing.T) {
	b := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}))
	defer server.Close()
	if err := b.GitClone(ctx, wire.GitClone{URL: server.URL + "/r.git", Path: "r"}); err == nil {
		t.Error("got no error")
	}
	eventually(t, "git to end and to clean up", func() bool {
		_, err := os.Stat(b.dir + "/r")
		return errors.Is(err, os.ErrNotExist) && b.tb.table.Len() == 0
	})
	b.repo("r")
	must(t, b.GitClone(t.Context(), wire.GitClone{URL: "./r", Path: "copy"})) // from the work directory
}
