package api

import (
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// boxOperation is one row of the toolbox's document.
type boxOperation struct {
	method, path, summary string
	query                 string       // names, the required ones with a *
	in                    reflect.Type // nil: no JSON body
	out                   any          // of the answer: nil for none, a media type, or a reflect.Type
	status                int          // 0: 200
	also                  int          // a second status of the same answer; 0: none
}

// body is the type of a JSON body.
func body[T any]() reflect.Type { return reflect.TypeFor[T]() }

// said is the type of an answer that is a message for people.
type said = map[string]string

// binary is the media type of files.
const binary = "application/octet-stream"

func boxOperations() []boxOperation {
	return slices.Concat(baseOperations(), lspOperations(), desktopOperations())
}

func baseOperations() []boxOperation {
	return []boxOperation{
		{method: "GET", path: "/version", summary: "The toolbox's version", out: body[said]()},
		{method: "GET", path: "/user-home-dir", summary: "The home of the user that commands run as", out: body[wire.Dir]()},
		{method: "GET", path: "/work-dir", summary: "Where relative paths begin", out: body[wire.Dir]()},
		{method: "POST", path: "/env", summary: "Change the environment of later processes", in: body[wire.UpdateEnv](), out: body[said]()},
		{method: "GET", path: "/system/metrics", summary: "A sample of what the sandbox uses", out: body[wire.SystemMetrics]()},
		{method: "GET", path: "/port", summary: "Ports that something listens on", out: body[wire.Ports]()},
		{method: "GET", path: "/port/{port}/in-use", summary: "Whether something listens on a port", out: body[wire.PortInUse]()},

		{method: "POST", path: "/process/execute", summary: "Run a shell command line", in: body[wire.ExecuteRequest](), out: body[wire.ExecuteResponse]()},
		{method: "POST", path: "/process/code-run", summary: "Run code in a new process", in: body[wire.CodeRunRequest](), out: body[wire.CodeRunResponse]()},
		{method: "GET", path: "/process/session", summary: "List sessions", out: body[[]wire.Session]()},
		{method: "POST", path: "/process/session", summary: "Begin a session: a shell that keeps its state", in: body[wire.CreateSession](), status: 201},
		{method: "GET", path: "/process/session/{sessionId}", summary: "A session and its commands", out: body[wire.Session]()},
		{method: "DELETE", path: "/process/session/{sessionId}", summary: "End a session and all it runs", status: 204},
		{method: "POST", path: "/process/session/{sessionId}/exec", summary: "Run a command in a session; 202 when it runs on", in: body[wire.SessionExecute](), out: body[wire.SessionExecuted](), also: 202},
		{method: "GET", path: "/process/session/entrypoint", summary: "The image's own process, as a session", out: body[wire.Session]()},
		{method: "GET", path: "/process/session/entrypoint/logs", summary: "What the entrypoint printed", query: "follow", out: body[wire.CommandLogs]()},
		{method: "GET", path: "/process/session/{sessionId}/command/{commandId}", summary: "A command of a session", out: body[wire.Command]()},
		{method: "GET", path: "/process/session/{sessionId}/command/{commandId}/logs", summary: "What a command printed; a WebSocket with follow", query: "follow", out: body[wire.CommandLogs]()},
		{method: "POST", path: "/process/session/{sessionId}/command/{commandId}/input", summary: "Write a line to a running command", in: body[wire.SessionInput](), status: 204},
		{method: "GET", path: "/process/pty", summary: "List terminals", out: body[wire.PTYList]()},
		{method: "POST", path: "/process/pty", summary: "Open a terminal", in: body[wire.PTYCreate](), out: body[wire.PTYCreated](), status: 201},
		{method: "GET", path: "/process/pty/create-connect", summary: "Open a terminal and connect, as a WebSocket", query: "id cols rows cwd", status: 101},
		{method: "GET", path: "/process/pty/{sessionId}", summary: "A terminal", out: body[wire.PTYInfo]()},
		{method: "DELETE", path: "/process/pty/{sessionId}", summary: "Close a terminal and end its shell", out: body[said]()},
		{method: "GET", path: "/process/pty/{sessionId}/connect", summary: "Connect to a terminal, as a WebSocket", status: 101},
		{method: "POST", path: "/process/pty/{sessionId}/resize", summary: "Change a terminal's size", in: body[wire.PTYResize](), out: body[wire.PTYInfo]()},
		{method: "GET", path: "/process/interpreter/execute", summary: "Run code in a context that keeps its state, as a WebSocket", status: 101},
		{method: "GET", path: "/process/interpreter/context", summary: "List contexts", out: body[wire.InterpreterContexts]()},
		{method: "POST", path: "/process/interpreter/context", summary: "Make a context", in: body[wire.CreateContext](), out: body[wire.InterpreterContext]()},
		{method: "DELETE", path: "/process/interpreter/context/{id}", summary: "End a context", out: body[said]()},

		{method: "GET", path: "/files", summary: "List a directory", query: "path depth", out: body[[]wire.FileInfo]()},
		{method: "DELETE", path: "/files", summary: "Delete a file or a directory", query: "path* recursive", status: 204},
		{method: "GET", path: "/files/info", summary: "What a path is", query: "path*", out: body[wire.FileInfo]()},
		{method: "GET", path: "/files/download", summary: "Read a file", query: "path*", out: binary},
		{method: "POST", path: "/files/bulk-download", summary: "Read files, as multipart/form-data", in: body[wire.FilesDownload](), out: "multipart/form-data"},
		{method: "POST", path: "/files/upload", summary: "Write a file, in the older form", query: "path*", out: body[wire.UploadedFile]()},
		{method: "POST", path: "/files/upload-v2", summary: "Write a file: multipart/form-data, or the bytes alone", query: "path*", out: body[wire.UploadedFile]()},
		{method: "POST", path: "/files/bulk-upload", summary: "Write files from multipart/form-data", out: body[wire.BulkUploaded]()},
		{method: "POST", path: "/files/folder", summary: "Make a directory and those above it", query: "path* mode*", status: 201},
		{method: "POST", path: "/files/move", summary: "Move or rename", query: "source* destination*"},
		{method: "POST", path: "/files/permissions", summary: "Change mode and owner", query: "path* owner group mode"},
		{method: "GET", path: "/files/find", summary: "Find lines with a text", query: "path* pattern*", out: body[[]wire.Match]()},
		{method: "GET", path: "/files/search", summary: "Find files by name", query: "path* pattern*", out: body[wire.FileList]()},
		{method: "POST", path: "/files/replace", summary: "Replace a text in files", in: body[wire.ReplaceRequest](), out: body[[]wire.ReplaceResult]()},

		{method: "POST", path: "/git/init", summary: "Make a repository", in: body[wire.GitInit](), status: 201},
		{method: "POST", path: "/git/clone", summary: "Clone a repository", in: body[wire.GitClone]()},
		{method: "GET", path: "/git/status", summary: "Branch and changed files", query: "path*", out: body[wire.GitStatus]()},
		{method: "GET", path: "/git/history", summary: "Commits, newest first", query: "path*", out: body[[]wire.GitCommitInfo]()},
		{method: "POST", path: "/git/add", summary: "Stage files", in: body[wire.GitAdd]()},
		{method: "POST", path: "/git/commit", summary: "Commit what is staged", in: body[wire.GitCommit](), out: body[wire.GitCommitted]()},
		{method: "GET", path: "/git/branches", summary: "List branches", query: "path*", out: body[wire.GitBranches]()},
		{method: "POST", path: "/git/branches", summary: "Make a branch", in: body[wire.GitBranch](), status: 201},
		{method: "DELETE", path: "/git/branches", summary: "Delete a branch", in: body[wire.GitBranch](), status: 204},
		{method: "POST", path: "/git/checkout", summary: "Switch to a branch", in: body[wire.GitCheckout]()},
		{method: "POST", path: "/git/pull", summary: "Pull", in: body[wire.GitSync]()},
		{method: "POST", path: "/git/push", summary: "Push", in: body[wire.GitSync]()},
		{method: "POST", path: "/git/reset", summary: "Reset", in: body[wire.GitReset]()},
		{method: "POST", path: "/git/restore", summary: "Restore files", in: body[wire.GitRestore]()},
		{method: "GET", path: "/git/remotes", summary: "List remotes", query: "path*", out: body[wire.GitRemotes]()},
		{method: "POST", path: "/git/remotes", summary: "Add a remote", in: body[wire.GitAddRemote](), status: 201},
		{method: "GET", path: "/git/config", summary: "Read a setting", query: "key* path scope", out: body[wire.GitConfigValue]()},
		{method: "POST", path: "/git/config", summary: "Change a setting", in: body[wire.GitSetConfig]()},
		{method: "POST", path: "/git/config/user", summary: "Set name and address of commits", in: body[wire.GitUser]()},
		{method: "POST", path: "/git/credentials", summary: "Keep a password for a host", in: body[wire.GitCredentials]()},
	}
}

func lspOperations() []boxOperation {
	return []boxOperation{
		{method: "POST", path: "/lsp/start", summary: "Start a language server for a project", in: body[wire.LspServer]()},
		{method: "POST", path: "/lsp/stop", summary: "Stop a language server", in: body[wire.LspServer]()},
		{method: "POST", path: "/lsp/did-open", summary: "Tell a language server of an opened file", in: body[wire.LspDocument]()},
		{method: "POST", path: "/lsp/did-close", summary: "Tell a language server of a closed file", in: body[wire.LspDocument]()},
		{method: "POST", path: "/lsp/completions", summary: "What may stand at a position", in: body[wire.LspCompletions](), out: body[wire.LspCompletionList]()},
		{method: "GET", path: "/lsp/document-symbols", summary: "Names that a file defines", query: "languageId* pathToProject* uri*", out: body[[]wire.LspSymbol]()},
		{method: "GET", path: "/lsp/workspacesymbols", summary: "Names of a project that match a query", query: "languageId* pathToProject* query*", out: body[[]wire.LspSymbol]()},
	}
}

const (
	partOfScreen = " x* y* width* height*"
	compression  = " format quality scale"
)

func desktopOperations() []boxOperation {
	shot := body[wire.ScreenshotResponse]()
	return []boxOperation{
		{method: "POST", path: "/computeruse/start", summary: "Start the desktop", out: body[wire.DesktopChange]()},
		{method: "POST", path: "/computeruse/stop", summary: "Stop the desktop", out: body[wire.DesktopChange]()},
		{method: "GET", path: "/computeruse/status", summary: "The desktop's state in one word", out: body[wire.DesktopStatus]()},
		{method: "GET", path: "/computeruse/process-status", summary: "The same, under its older name", out: body[wire.DesktopStatus]()},
		{method: "GET", path: "/computeruse/process/{processName}/status", summary: "Whether a process of the desktop runs", out: body[wire.DesktopProcessStatus]()},
		{method: "GET", path: "/computeruse/process/{processName}/logs", summary: "The end of what a process printed", out: body[wire.DesktopProcessLogs]()},
		{method: "GET", path: "/computeruse/process/{processName}/errors", summary: "The end of a process's error output", out: body[wire.DesktopProcessErrors]()},
		{method: "POST", path: "/computeruse/process/{processName}/restart", summary: "Restart a process of the desktop", out: body[wire.DesktopProcessRestart]()},

		{method: "GET", path: "/computeruse/screenshot", summary: "A picture of the screen, PNG in base64", query: "showCursor", out: shot},
		{method: "GET", path: "/computeruse/screenshot/compressed", summary: "A smaller picture of the screen", query: "showCursor" + compression, out: shot},
		{method: "GET", path: "/computeruse/screenshot/region", summary: "A picture of a part of the screen", query: "showCursor" + partOfScreen, out: shot},
		{method: "GET", path: "/computeruse/screenshot/region/compressed", summary: "A smaller picture of a part of the screen", query: "showCursor" + partOfScreen + compression, out: shot},
		{method: "GET", path: "/computeruse/display/info", summary: "The displays and their sizes", out: body[wire.DisplayInfo]()},
		{method: "GET", path: "/computeruse/display/windows", summary: "The open windows", out: body[wire.Windows]()},

		{method: "GET", path: "/computeruse/mouse/position", summary: "Where the pointer is", out: body[wire.Position]()},
		{method: "POST", path: "/computeruse/mouse/move", summary: "Move the pointer", in: body[wire.MouseMove](), out: body[wire.Position]()},
		{method: "POST", path: "/computeruse/mouse/click", summary: "Move the pointer and click", in: body[wire.MouseClick](), out: body[wire.Position]()},
		{method: "POST", path: "/computeruse/mouse/drag", summary: "Move the pointer with a button held", in: body[wire.MouseDrag](), out: body[wire.Position]()},
		{method: "POST", path: "/computeruse/mouse/scroll", summary: "Turn the wheel", in: body[wire.MouseScroll](), out: body[wire.Scrolled]()},
		{method: "POST", path: "/computeruse/keyboard/type", summary: "Type a text", in: body[wire.KeyboardType]()},
		{method: "POST", path: "/computeruse/keyboard/key", summary: "Press a key, with modifiers", in: body[wire.KeyboardPress]()},
		{method: "POST", path: "/computeruse/keyboard/hotkey", summary: "Press a chord, as ctrl+c", in: body[wire.KeyboardHotkey]()},

		{method: "GET", path: "/computeruse/recordings", summary: "List recordings", out: body[wire.Recordings]()},
		{method: "POST", path: "/computeruse/recordings/start", summary: "Begin to record the screen", in: body[wire.StartRecording](), out: body[wire.Recording](), status: 201},
		{method: "POST", path: "/computeruse/recordings/stop", summary: "End a recording", in: body[wire.StopRecording](), out: body[wire.Recording]()},
		{method: "GET", path: "/computeruse/recordings/{id}", summary: "A recording", out: body[wire.Recording]()},
		{method: "DELETE", path: "/computeruse/recordings/{id}", summary: "Delete a recording", status: 204},
		{method: "GET", path: "/computeruse/recordings/{id}/download", summary: "A recording's file", out: "video/mp4"},

		{method: "GET", path: "/computeruse/a11y/tree", summary: "What programs show, as assistive technology sees it", query: "scope pid maxDepth", out: body[wire.A11yTree]()},
		{method: "POST", path: "/computeruse/a11y/find", summary: "Find nodes of the tree", in: body[wire.A11yFind](), out: body[wire.A11yMatches]()},
		{method: "POST", path: "/computeruse/a11y/node/focus", summary: "Give a node the focus", in: body[wire.A11yTarget]()},
		{method: "POST", path: "/computeruse/a11y/node/invoke", summary: "Call an action of a node", in: body[wire.A11yInvoke]()},
		{method: "POST", path: "/computeruse/a11y/node/value", summary: "Write a node's value", in: body[wire.A11ySetValue]()},
	}
}

// toolboxDocument describes the toolbox of every sandbox.
func (a *API) toolboxDocument() *huma.OpenAPI {
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "Atoll toolbox API", Version: a.Version,
			Description: "What the toolbox in a sandbox answers, through the server. Relative paths begin at the work directory.",
		},
		Servers: []*huma.Server{{URL: "/toolbox/{sandbox}", Variables: map[string]*huma.ServerVariable{
			"sandbox": {Default: "my-sandbox", Description: "id or name"},
		}}},
		Components: &huma.Components{
			Schemas:         registry,
			SecuritySchemes: map[string]*huma.SecurityScheme{"bearer": {Type: "http", Scheme: "bearer"}},
		},
	}
	for _, row := range boxOperations() {
		doc.AddOperation(row.operation(registry))
	}
	for _, s := range registry.Map() {
		if s.Type == huma.TypeObject && s.AdditionalProperties == false {
			s.AdditionalProperties = true // the toolbox ignores what it does not know
		}
	}
	doc.Tags = tags(doc)
	return doc
}

func (o boxOperation) operation(registry huma.Registry) *huma.Operation {
	failed := &huma.Response{Description: "Error", Content: jsonContent(registry, body[wire.ErrorResponse]())}
	op := &huma.Operation{
		OperationID: operationID(o.method, o.path), Method: o.method, Path: o.path, Summary: o.summary,
		Tags: []string{tagOf(o.path)}, Security: []map[string][]string{{"bearer": {}}},
		Responses: map[string]*huma.Response{"default": failed},
	}
	for _, m := range pathParam.FindAllStringSubmatch(o.path, -1) {
		op.Parameters = append(op.Parameters, textParam(m[1], "path", true))
	}
	for name := range strings.FieldsSeq(o.query) {
		name, required := strings.CutSuffix(name, "*")
		op.Parameters = append(op.Parameters, textParam(name, "query", required))
	}
	if o.in != nil {
		op.RequestBody = &huma.RequestBody{Required: true, Content: jsonContent(registry, o.in)}
	}
	status := o.status
	if status == 0 {
		status = http.StatusOK
	}
	answer := &huma.Response{Description: http.StatusText(status)}
	switch out := o.out.(type) {
	case string:
		answer.Content = map[string]*huma.MediaType{out: {}}
	case reflect.Type:
		answer.Content = jsonContent(registry, out)
	}
	op.Responses[strconv.Itoa(status)] = answer
	if o.also != 0 {
		op.Responses[strconv.Itoa(o.also)] = answer
	}
	return op
}

func textParam(name, in string, required bool) *huma.Param {
	return &huma.Param{Name: name, In: in, Required: required, Schema: &huma.Schema{Type: huma.TypeString}}
}

func jsonContent(registry huma.Registry, t reflect.Type) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{"application/json": {Schema: registry.Schema(t, true, t.Name())}}
}
