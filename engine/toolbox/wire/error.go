package wire

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// Source is the value of ErrorResponse.Source for every error of the toolbox.
// Published clients choose finer exception types only when they see it.
const Source = "DAYTONA_DAEMON"

// Code is the machine-readable kind of an error.
type Code string

// The codes that the toolbox answers with.
const (
	CodeBadRequest       Code = "BAD_REQUEST"
	CodeInvalidBody      Code = "INVALID_REQUEST_BODY"
	CodeForbidden        Code = "FORBIDDEN"
	CodeNotFound         Code = "NOT_FOUND"
	CodeConflict         Code = "CONFLICT"
	CodeGone             Code = "GONE"
	CodeInternal         Code = "INTERNAL_SERVER_ERROR"
	CodeExecTimeout      Code = "PROCESS_EXECUTION_TIMEOUT"
	CodeProcessNotFound  Code = "PROCESS_NOT_FOUND"
	CodeSessionEnded     Code = "SESSION_ENDED"
	CodeCommandCompleted Code = "COMMAND_ALREADY_COMPLETED"
	CodeFileNotFound     Code = "FILE_NOT_FOUND"
	CodeFileDenied       Code = "FILE_ACCESS_DENIED"
	CodeInvalidPath      Code = "INVALID_FILE_PATH"
	CodeFileReadFailed   Code = "FILE_READ_FAILED"
	CodeNotImplemented   Code = "NOT_IMPLEMENTED"
	CodeTooMany          Code = "TOO_MANY_REQUESTS"
	CodeLSPNotStarted    Code = "LSP_SERVER_NOT_INITIALIZED"
	CodeTimeout          Code = "REQUEST_TIMEOUT"
	CodeDiskFull         Code = "INSUFFICIENT_STORAGE"
	CodeBadGateway       Code = "BAD_GATEWAY"

	CodeNoDesktop       Code = "COMPUTER_USE_UNAVAILABLE"
	CodeA11yUnavailable Code = "A11Y_UNAVAILABLE"
	CodeRecordingActive Code = "RECORDING_STILL_ACTIVE"
	CodeNoFFmpeg        Code = "RECORDING_FFMPEG_NOT_FOUND"

	CodeGitAuthFailed     Code = "GIT_AUTH_FAILED"
	CodeGitRepoNotFound   Code = "GIT_REPO_NOT_FOUND"
	CodeGitBranchNotFound Code = "GIT_BRANCH_NOT_FOUND"
	CodeGitBranchExists   Code = "GIT_BRANCH_EXISTS"
	CodeGitPushRejected   Code = "GIT_PUSH_REJECTED"
	CodeGitDirtyWorktree  Code = "GIT_DIRTY_WORKTREE"
	CodeGitMergeConflict  Code = "GIT_MERGE_CONFLICT"
	CodeGitTransport      Code = "GIT_TRANSPORT_FAILED"
	CodeGitRemoteRejected Code = "GIT_REMOTE_REJECTED"
)

// ErrorResponse is the body of every failed call. The fields below Method are
// additions: they carry what a command had printed when its time ran out.
type ErrorResponse struct {
	StatusCode int       `json:"statusCode"`
	Message    string    `json:"message"`
	Code       Code      `json:"code,omitempty"`
	Source     string    `json:"source"`
	Timestamp  time.Time `json:"timestamp"`
	Path       string    `json:"path"`
	Method     string    `json:"method"`

	*Partial
}

// Partial is the output of a command that was stopped by its timeout.
type Partial struct {
	ExitCode   int    `json:"exitCode"`
	Result     string `json:"result"`
	Stdout     string `json:"stdout,omitempty"`
	Stderr     string `json:"stderr,omitempty"`
	DurationMs int64  `json:"durationMs"`
	TimedOut   bool   `json:"timedOut"`
	Truncated  bool   `json:"truncated,omitempty"`
}

// Error is a failure with its HTTP status. Every package below toolbox returns
// it for what the caller may see, and the client returns it for what it got.
type Error struct {
	Status  int
	Code    Code
	Message string
	Partial *Partial // set with CodeExecTimeout only
	Err     error    // the cause; not sent

	// Of an answer only. Source tells who made it: Source is the toolbox, all
	// else a server on the way, which may add a Kind and a Hint of its own.
	Source, Kind, Hint string
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error.
func Errorf(status int, code Code, format string, args ...any) *Error {
	return &Error{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// BadRequest makes an Error for input that is wrong. The text names the field
// and how to mend it.
func BadRequest(format string, args ...any) *Error {
	return Errorf(http.StatusBadRequest, CodeBadRequest, format, args...)
}

// ParseError makes an Error of a failed answer. A body that is not an
// ErrorResponse becomes the message.
func ParseError(status int, body []byte) *Error {
	var r struct {
		ErrorResponse
		Kind, Hint string
	}
	if err := json.Unmarshal(body, &r); err != nil || r.Message == "" {
		return Errorf(status, "", "toolbox answered %d: %.200s", status, body)
	}
	return &Error{Status: status, Code: r.Code, Message: r.Message, Partial: r.Partial, Source: r.Source, Kind: r.Kind, Hint: r.Hint}
}
