package git

import (
	"net/http"
	"strings"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// symptom ties what git prints to what we answer.
type symptom struct {
	text   string // in lower case
	status int
	code   wire.Code
}

// symptoms is in order of precedence. Git has no codes for its failures; the
// texts are those of LC_ALL=C and have been the same for years.
var symptoms = [...]symptom{
	{"no space left on device", http.StatusInsufficientStorage, wire.CodeDiskFull},
	{"disk quota exceeded", http.StatusInsufficientStorage, wire.CodeDiskFull},
	{"permission denied (publickey", http.StatusUnauthorized, wire.CodeGitAuthFailed},
	{"authentication failed", http.StatusUnauthorized, wire.CodeGitAuthFailed},
	{"could not read username", http.StatusUnauthorized, wire.CodeGitAuthFailed},
	{"could not read password", http.StatusUnauthorized, wire.CodeGitAuthFailed},
	{"terminal prompts disabled", http.StatusUnauthorized, wire.CodeGitAuthFailed},
	{"access denied", http.StatusUnauthorized, wire.CodeGitAuthFailed},
	{"returned error: 401", http.StatusUnauthorized, wire.CodeGitAuthFailed},
	{"returned error: 403", http.StatusForbidden, wire.CodeGitAuthFailed},
	{"[remote rejected]", http.StatusConflict, wire.CodeGitRemoteRejected},
	{"[rejected]", http.StatusConflict, wire.CodeGitPushRejected},
	{"non-fast-forward", http.StatusConflict, wire.CodeGitPushRejected},
	{"dubious ownership", http.StatusForbidden, wire.CodeForbidden},
	{"would be overwritten by", http.StatusConflict, wire.CodeGitDirtyWorktree},
	{"not uptodate. cannot merge", http.StatusConflict, wire.CodeGitDirtyWorktree},
	{"cannot pull with rebase: you have unstaged changes", http.StatusConflict, wire.CodeGitDirtyWorktree},
	{"your index contains uncommitted changes", http.StatusConflict, wire.CodeGitDirtyWorktree},
	{"conflict (", http.StatusConflict, wire.CodeGitMergeConflict},
	{"fix conflicts", http.StatusConflict, wire.CodeGitMergeConflict},
	{"unmerged files", http.StatusConflict, wire.CodeGitMergeConflict},
	{"resolve your current index first", http.StatusConflict, wire.CodeGitMergeConflict},
	{"you have not concluded your merge", http.StatusConflict, wire.CodeGitMergeConflict},
	{"is unmerged", http.StatusConflict, wire.CodeGitMergeConflict},
	{"not possible to fast-forward", http.StatusConflict, wire.CodeGitMergeConflict},
	{"refusing to merge unrelated histories", http.StatusConflict, wire.CodeGitMergeConflict},
	{".lock': file exists", http.StatusConflict, wire.CodeConflict},
	{"already exists and is not an empty directory", http.StatusConflict, wire.CodeConflict},
	{"a branch named", http.StatusConflict, wire.CodeGitBranchExists},
	{"remote branch", http.StatusNotFound, wire.CodeGitBranchNotFound}, // "… not found in upstream"
	{"couldn't find remote ref", http.StatusNotFound, wire.CodeGitBranchNotFound},
	{"src refspec", http.StatusNotFound, wire.CodeGitBranchNotFound},
	{"invalid reference", http.StatusNotFound, wire.CodeGitBranchNotFound},
	{"unable to read tree", http.StatusNotFound, wire.CodeGitBranchNotFound},
	{"not a tree", http.StatusNotFound, wire.CodeGitBranchNotFound},
	{"not our ref", http.StatusNotFound, wire.CodeGitBranchNotFound},
	{"branch '", http.StatusNotFound, wire.CodeGitBranchNotFound}, // "branch 'x' not found."
	{"unknown revision", http.StatusNotFound, wire.CodeNotFound},
	{"as a valid revision", http.StatusNotFound, wire.CodeNotFound},
	{"could not resolve host", http.StatusInternalServerError, wire.CodeGitTransport},
	{"could not resolve proxy", http.StatusInternalServerError, wire.CodeGitTransport},
	{"could not resolve ", http.StatusNotFound, wire.CodeGitBranchNotFound}, // a revision
	{"not a git repository", http.StatusNotFound, wire.CodeGitRepoNotFound},
	{"can only be used inside a git repository", http.StatusNotFound, wire.CodeGitRepoNotFound},
	{"does not appear to be a git repository", http.StatusNotFound, wire.CodeGitRepoNotFound},
	{"repository not found", http.StatusNotFound, wire.CodeGitRepoNotFound},
	{"returned error: 404", http.StatusNotFound, wire.CodeGitRepoNotFound},
	{"cannot change to", http.StatusNotFound, wire.CodeGitRepoNotFound},
	{"no such remote", http.StatusNotFound, wire.CodeNotFound},
	{"redirection", http.StatusInternalServerError, wire.CodeGitTransport},
	{"unable to access '", http.StatusInternalServerError, wire.CodeGitTransport},
	{"unable to connect", http.StatusInternalServerError, wire.CodeGitTransport},
	{"connection ", http.StatusInternalServerError, wire.CodeGitTransport},
	{"host key verification failed", http.StatusInternalServerError, wire.CodeGitTransport},
	{"could not read from remote", http.StatusInternalServerError, wire.CodeGitTransport},
	{"early eof", http.StatusInternalServerError, wire.CodeGitTransport},
	{"hung up unexpectedly", http.StatusInternalServerError, wire.CodeGitTransport},
	{"permission denied", http.StatusForbidden, wire.CodeFileDenied},
	{"read-only file system", http.StatusForbidden, wire.CodeFileDenied},
}

// failure makes an error of what git printed. Faults that no symptom tells are
// taken for the caller's, as most are.
func failure(printed, secret string) error {
	msg := summary(printed, secret)
	low := strings.ToLower(printed)
	switch {
	case strings.Contains(low, "cannot delete branch"):
		return wire.BadRequest("%s; check out another branch first", msg)
	case strings.Contains(low, "repository '") && strings.Contains(low, "' not found"),
		strings.Contains(low, "repository '") && strings.Contains(low, "' does not exist"):
		return wire.Errorf(http.StatusNotFound, wire.CodeGitRepoNotFound, "%s", msg)
	}
	for _, s := range symptoms {
		if strings.Contains(low, s.text) {
			return wire.Errorf(s.status, s.code, "%s", msg)
		}
	}
	return wire.BadRequest("%s", msg)
}

// maxMessage bounds how much of what git printed goes into an error.
const maxMessage = 2000

// summary drops progress and advice.
func summary(printed, secret string) string {
	if secret != "" {
		printed = strings.ReplaceAll(printed, secret, "***")
	}
	var lines []string
	for line := range strings.Lines(printed) {
		if i := strings.LastIndexByte(strings.TrimRight(line, "\r\n"), '\r'); i >= 0 {
			line = line[i+1:] // progress overwrites itself
		}
		line = strings.TrimRight(line, " \r\n")
		if line != "" && !strings.HasPrefix(line, "hint:") && !strings.HasPrefix(line, "Cloning into ") {
			lines = append(lines, strings.TrimPrefix(line, "fatal: "))
		}
	}
	msg := strings.Join(lines, "\n")
	if len(msg) > maxMessage {
		msg = msg[:maxMessage/2] + "\n...\n" + msg[len(msg)-maxMessage/2:]
	}
	if msg == "" {
		msg = "it failed and printed nothing"
	}
	return "git: " + strings.ToValidUTF8(msg, "?")
}
