// Package wire holds the request and response bodies of the toolbox, shared by
// the daemon and its client. Field names are those of the public contract;
// fields marked "addition" are ours and ignored by other clients.
package wire

import (
	"net/url"
	"strings"
	"time"
)

// Dir is the answer of /user-home-dir and /work-dir.
type Dir struct {
	Dir string `json:"dir"`
}

// ExecuteRequest runs one shell command line.
type ExecuteRequest struct {
	Command string            `json:"command"`
	Cwd     string            `json:"cwd,omitempty"`
	Envs    map[string]string `json:"envs,omitempty"`
	Timeout int               `json:"timeout,omitempty"` // seconds; 0 is none
	Stdin   string            `json:"stdin,omitempty"`   // addition
	User    string            `json:"user,omitempty"`    // addition: name or uid[:gid]
	Split   bool              `json:"split,omitempty"`   // addition: also return stdout and stderr apart
}

// ExecuteResponse is the outcome of a command. All but the first two fields
// are additions.
type ExecuteResponse struct {
	ExitCode   int    `json:"exitCode"`
	Result     string `json:"result"`
	Stdout     string `json:"stdout,omitempty"` // with split only
	Stderr     string `json:"stderr,omitempty"` // with split only
	DurationMs int64  `json:"durationMs"`
	TimedOut   bool   `json:"timedOut,omitempty"`
	OOMKilled  bool   `json:"oomKilled,omitempty"`
	Truncated  bool   `json:"truncated,omitempty"` // the middle of the output was dropped
}

// CodeRunRequest runs a program in an interpreter.
type CodeRunRequest struct {
	Code     string            `json:"code"`
	Language string            `json:"language"`
	Argv     []string          `json:"argv,omitempty"`
	Envs     map[string]string `json:"envs,omitempty"`
	Timeout  int               `json:"timeout,omitempty"`
}

// CodeRunResponse is the outcome of a CodeRunRequest.
type CodeRunResponse struct {
	ExitCode  int       `json:"exitCode"`
	Result    string    `json:"result"`
	Artifacts Artifacts `json:"artifacts"`
}

// Artifacts holds what a program produced besides text. Charts is never nil.
type Artifacts struct {
	Charts []Chart `json:"charts"`
}

// Chart is a figure that a program showed. Type is line, scatter, bar, pie,
// box_and_whisker, unknown, or composite_chart, whose elements are charts.
type Chart struct {
	Type        string           `json:"type"`
	Title       string           `json:"title"`
	Elements    []map[string]any `json:"elements"`
	PNG         string           `json:"png,omitempty"` // base64
	XLabel      string           `json:"x_label,omitempty"`
	XScale      string           `json:"x_scale,omitempty"`
	XTicks      []float64        `json:"x_ticks,omitempty"`
	XTickLabels []string         `json:"x_tick_labels,omitempty"`
	YLabel      string           `json:"y_label,omitempty"`
	YScale      string           `json:"y_scale,omitempty"`
	YTicks      []float64        `json:"y_ticks,omitempty"`
	YTickLabels []string         `json:"y_tick_labels,omitempty"`
}

// CreateSession names a new session.
type CreateSession struct {
	SessionID string `json:"sessionId"`
}

// Session is a session with its commands, oldest first.
type Session struct {
	SessionID string    `json:"sessionId"`
	Commands  []Command `json:"commands"`
}

// Command is one command of a session. ExitCode is absent while it runs.
type Command struct {
	ID       string `json:"id"`
	Command  string `json:"command"`
	ExitCode *int   `json:"exitCode,omitempty"`
}

// SessionExecute runs a command in a session. Async is the old name of RunAsync.
type SessionExecute struct {
	Command           string `json:"command"`
	RunAsync          bool   `json:"runAsync,omitempty"`
	Async             bool   `json:"async,omitempty"`
	SuppressInputEcho bool   `json:"suppressInputEcho,omitempty"`
}

// SessionExecuted is the answer to SessionExecute; for an asynchronous command
// only CmdID is set.
type SessionExecuted struct {
	CmdID    string  `json:"cmdId"`
	ExitCode *int    `json:"exitCode,omitempty"`
	Output   *string `json:"output,omitempty"` // with channel markers
	Stdout   *string `json:"stdout,omitempty"`
	Stderr   *string `json:"stderr,omitempty"`
}

// SessionInput is a line for the stdin of a running command.
type SessionInput struct {
	Data string `json:"data"`
}

// CommandLogs is what a command printed. Output holds the channel markers.
type CommandLogs struct {
	Output string `json:"output"`
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
}

// OffsetHeader names the response header of a log read that was asked for with
// the query parameters offset and limit. It holds the offset to go on from.
const OffsetHeader = "X-Atoll-Offset"

// PTYCreate describes a new terminal. Zero sizes mean 80 by 24.
type PTYCreate struct {
	ID        string            `json:"id,omitempty"`
	Cols      int               `json:"cols,omitempty"`
	Rows      int               `json:"rows,omitempty"`
	Cwd       string            `json:"cwd,omitempty"`
	Envs      map[string]string `json:"envs,omitempty"`
	LazyStart bool              `json:"lazyStart,omitempty"` // start the shell with the first client
}

// PTYCreated is the answer to PTYCreate.
type PTYCreated struct {
	SessionID string `json:"sessionId"`
}

// PTYInfo is a terminal as it is now.
type PTYInfo struct {
	ID        string            `json:"id"`
	Cols      int               `json:"cols"`
	Rows      int               `json:"rows"`
	Cwd       string            `json:"cwd"`
	Envs      map[string]string `json:"envs"`
	CreatedAt time.Time         `json:"createdAt"`
	Active    bool              `json:"active"`
	LazyStart bool              `json:"lazyStart"`
}

// PTYList lists terminals, oldest first.
type PTYList struct {
	Sessions []PTYInfo `json:"sessions"`
}

// PTYResize is a new size; both are 1 to 1000.
type PTYResize struct {
	Cols int `json:"cols"`
	Rows int `json:"rows"`
}

// PTYControl is a text message of the server on a terminal's WebSocket. The
// reason of the close frame is one without Type and Status.
type PTYControl struct {
	Type       string `json:"type,omitempty"`   // "control"
	Status     string `json:"status,omitempty"` // connected, exited, error
	ExitCode   *int   `json:"exitCode,omitempty"`
	ExitReason string `json:"exitReason,omitempty"`
	Error      string `json:"error,omitempty"`
}

// The sub-protocols of a terminal's WebSocket.
const (
	PTYEnvsProtocol = "X-Daytona-Pty-Envs~" // then base64url of a JSON object
	PTYExitProtocol = "X-Daytona-Pty-Exit-Control"
)

// FileInfo describes a file.
type FileInfo struct {
	Name        string    `json:"name"`
	Path        string    `json:"path,omitempty"`
	IsDir       bool      `json:"isDir"`
	Size        int64     `json:"size"`
	Mode        string    `json:"mode"`        // as -rw-r--r--
	Permissions string    `json:"permissions"` // octal
	Owner       string    `json:"owner"`
	Group       string    `json:"group"`
	ModTime     string    `json:"modTime"`
	ModifiedAt  time.Time `json:"modifiedAt"`
}

// UploadedFile is the answer to an upload.
type UploadedFile struct {
	Name string `json:"name"`
	Path string `json:"path"`
	Type string `json:"type"` // "file"
}

// BulkUploaded is the answer to a bulk upload. Errors is absent on success.
type BulkUploaded struct {
	Errors []string     `json:"errors,omitempty"`
	Files  []BulkUpload `json:"files"`
}

// BulkUpload is one file that arrived.
type BulkUpload struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
}

// FilesDownload asks for several files.
type FilesDownload struct {
	Paths []string `json:"paths"`
}

// DownloadBoundary separates the parts of a bulk download.
const DownloadBoundary = "DAYTONA-FILE-BOUNDARY"

// Match is one line that holds the pattern. Line counts from 1.
type Match struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Content string `json:"content"`
}

// FileList is the answer to a search by name.
type FileList struct {
	Files []string `json:"files"`
}

// ReplaceRequest replaces text in files.
type ReplaceRequest struct {
	Files    []string `json:"files"`
	Pattern  string   `json:"pattern"`
	NewValue string   `json:"newValue"`
}

// ReplaceResult is the outcome for one file.
type ReplaceResult struct {
	File    string `json:"file"`
	Success bool   `json:"success"`
	Error   string `json:"error,omitempty"`
}

// UpdateEnv changes the environment of processes started later.
type UpdateEnv struct {
	Set              map[string]string `json:"set,omitempty"`
	Unset            []string          `json:"unset,omitempty"`
	UnsetValuePrefix string            `json:"unsetValuePrefix,omitempty"` // unset all whose value starts so; applied before Set
}

// SystemMetrics is a live sample. Sizes are bytes.
type SystemMetrics struct {
	CPUCount      int     `json:"cpuCount"`
	CPUUsedPct    float64 `json:"cpuUsedPct"`
	DiskFree      int64   `json:"diskFree"`
	DiskTotal     int64   `json:"diskTotal"`
	DiskUsed      int64   `json:"diskUsed"`
	MemCache      int64   `json:"memCache"`
	MemTotal      int64   `json:"memTotal"`
	MemUsed       int64   `json:"memUsed"`
	Timestamp     string  `json:"timestamp"`
	TimestampUnix int64   `json:"timestampUnix"`
}

// Ports lists ports in use, ascending.
type Ports struct {
	Ports []int `json:"ports"`
}

// PortInUse tells whether something listens on a port.
type PortInUse struct {
	IsInUse bool `json:"isInUse"`
}

// Status is the answer of /internal/status, for the runner only.
type Status struct {
	Version      string    `json:"version"`
	StartedAt    time.Time `json:"startedAt"`
	Busy         int       `json:"busy"` // foreground commands, open streams, terminals with a client
	LastActivity time.Time `json:"lastActivity"`
	Processes    int       `json:"processes"` // alive in the sandbox, the toolbox excluded
	User         string    `json:"user"`      // that commands run as
	Warnings     []string  `json:"warnings,omitempty"`
}

// Identity is the body of /internal/identity: what a pooled sandbox becomes.
type Identity struct {
	SandboxID  string            `json:"sandboxId"`
	Hostname   string            `json:"hostname"`
	Env        map[string]string `json:"env"`
	User       string            `json:"user"`       // empty: unchanged
	WorkDir    string            `json:"workDir"`    // empty: unchanged
	Entrypoint []string          `json:"entrypoint"` // empty: none
	Trust      Trust             `json:"trust"`
}

// Trust is the body of /internal/trust: the certificate, in PEM, that later
// processes trust beside what the image trusts; empty: none. Roots, in PEM,
// stand in for the image's where it has none.
type Trust struct {
	Certificate string `json:"certificate,omitempty"`
	Roots       string `json:"roots,omitempty"`
}

// TunnelProtocol is what a connection of /internal/tunnel?port=N is upgraded to:
// the raw bytes of a TCP connection to the port. With quiet=true it counts as no
// activity.
const TunnelProtocol = "atoll-tunnel"

// ExecStart is the first message, as text, on the WebSocket /internal/exec.
// Exactly one of Command, Argv and Subsystem is set.
type ExecStart struct {
	Command string            `json:"command,omitempty"` // a shell command line
	Argv    []string          `json:"argv,omitempty"`
	Cwd     string            `json:"cwd,omitempty"`
	Env     map[string]string `json:"env,omitempty"`
	User    string            `json:"user,omitempty"`
	TTY     bool              `json:"tty,omitempty"`
	Login   bool              `json:"login,omitempty"` // with neither Command nor Argv: an interactive login shell
	// Subsystem is a program of the toolbox itself: sftp, which serves the
	// user's files over its stdin and stdout.
	Subsystem string `json:"subsystem,omitempty"`
	Cols      int    `json:"cols,omitempty"`
	Rows      int    `json:"rows,omitempty"`
}

// maxSaid bounds what a path says of a command.
const maxSaid = 1 << 10

// Path is where the stream is opened. It says what will run, for the server's
// ledger, which sees no messages; the toolbox does not look at it.
func (q ExecStart) Path() string {
	said := q.Command
	switch {
	case said != "":
	case len(q.Argv) > 0:
		said = strings.Join(q.Argv, " ")
	case q.Subsystem != "":
		said = q.Subsystem
	default:
		said = "(login shell)"
	}
	return "/internal/exec?command=" + url.QueryEscape(strings.ToValidUTF8(said[:min(len(said), maxSaid)], ""))
}

// The channels of /internal/exec: the first byte of every binary message.
const (
	ChannelStdin   = 0
	ChannelStdout  = 1
	ChannelStderr  = 2
	ChannelControl = 3 // followed by an ExecControl
)

// ExecControl is a control message on /internal/exec. Clients send resize,
// signal and eof; the toolbox sends exit or error and then closes.
type ExecControl struct {
	Type      string `json:"type"`
	Cols      int    `json:"cols,omitempty"`
	Rows      int    `json:"rows,omitempty"`
	Signal    string `json:"signal,omitempty"` // as SIGINT
	ExitCode  int    `json:"exitCode"`
	OOMKilled bool   `json:"oomKilled,omitempty"`
	Status    int    `json:"status,omitempty"` // of an error, as HTTP
	Code      Code   `json:"code,omitempty"`
	Message   string `json:"message,omitempty"`
}
