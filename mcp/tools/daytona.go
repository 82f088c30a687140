package tools

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// daytonaTools take over from Daytona's MCP server without a change of prompts
// or settings: its names, arguments and defaults. What happens is what the
// tools of the other sets do. Hints are the tools' own.
func (k *kit) daytonaTools() []Tool {
	return append(k.daytonaSandboxTools(), k.daytonaDesktopTools()...)
}

func (k *kit) daytonaSandboxTools() []Tool {
	return []Tool{
		{
			Name: "create_sandbox", Set: SetDaytona, Title: "Create sandbox",
			Description: "Create a sandbox and return its id, or take the running one that id names.",
			Schema: `{"type":"object","properties":{"id":{"type":"string","description":"An existing sandbox to use; leave out for a new one"},"name":{"type":"string"},"target":{"type":"string","default":"us","description":"Region"},"snapshot":{"type":"string"},"user":{"type":"string"},` +
				`"env":{"type":"object","properties":{},"additionalProperties":{"type":"string"}},"labels":{"type":"object","properties":{},"additionalProperties":{"type":"string"}},"public":{"type":"boolean","description":"Open previews to everybody"},` +
				`"cpu":{"type":"number","maximum":4},"gpu":{"type":"number","maximum":1},"memory":{"type":"number","maximum":8,"description":"GB"},"disk":{"type":"number","maximum":10,"description":"GB"},` +
				`"autoStopInterval":{"type":"number","minimum":0,"default":15,"description":"Idle minutes; 0 never"},"autoPauseInterval":{"type":"number","minimum":0},"autoArchiveInterval":{"type":"number","minimum":0,"default":10080,"description":"Minutes stopped; 0 the longest"},"autoDeleteInterval":{"type":"number","default":-1,"description":"Minutes stopped; negative never, 0 at once"},"ttlMinutes":{"type":"number","minimum":0,"description":"Delete after"},` +
				`"volumes":{"type":"array","items":{"type":"object","properties":{"volumeId":{"type":"string"},"mountPath":{"type":"string"}}}},"buildInfo":{"type":"object","properties":{"dockerfileContent":{"type":"string"},"contextHashes":{"type":"array","items":{"type":"string"}}}},` +
				`"networkBlockAll":{"type":"boolean"},"networkAllowList":{"type":"string","description":"Domains or networks, separated by commas"}}}`,
			Hints: Hints{OpenWorld: true}, Handler: k.daytonaCreate,
		},
		{
			Name: "destroy_sandbox", Set: SetDaytona, Title: "Destroy sandbox",
			Description: "Delete a sandbox and its files permanently.",
			Schema:      `{"type":"object","properties":{"id":{"type":"string"}},"required":["id"]}`,
			Hints:       Hints{Destructive: true, Idempotent: true}, Permission: engine.DeleteSandboxes, Handler: k.delete,
		},
		{
			Name: "execute_command", Set: SetDaytona, Title: "Execute command",
			Description: "Run a shell command. Returns exit code and output; long output keeps head and tail.",
			Schema:      `{"type":"object","properties":{"command":{"type":"string"},"id":{"type":"string"}},"required":["command","id"]}`,
			Hints:       Hints{Destructive: true, OpenWorld: true}, Handler: k.daytonaExec,
		},
		{
			Name: "file_upload", Set: SetDaytona, Title: "Upload file",
			Description: "Write a file, creating parent directories.",
			Schema:      `{"type":"object","properties":{"filePath":{"type":"string"},"content":{"type":"string"},"encoding":{"type":"string","description":"base64, or text"},"overwrite":{"type":"boolean"},"id":{"type":"string"}},"required":["filePath","content","encoding","overwrite","id"]}`,
			Hints:       Hints{Destructive: true, Idempotent: true}, Handler: k.daytonaUpload,
		},
		{
			Name: "file_download", Set: SetDaytona, Title: "Download file",
			Description: "Read a text file or view an image; a long text keeps head and tail.",
			Schema:      `{"type":"object","properties":{"filePath":{"type":"string"},"id":{"type":"string"}},"required":["filePath","id"]}`,
			Hints:       Hints{ReadOnly: true, Idempotent: true}, Handler: k.daytonaDownload,
		},
		{
			Name: "get_file_info", Set: SetDaytona, Title: "File info",
			Description: "Show kind, size, mode, owner and time of a file.",
			Schema:      `{"type":"object","properties":{"filePath":{"type":"string"},"id":{"type":"string"}},"required":["filePath","id"]}`,
			Hints:       Hints{ReadOnly: true, Idempotent: true}, Handler: k.daytonaInfo,
		},
		{
			Name: "list_files", Set: SetDaytona, Title: "List files",
			Description: "List a directory; without path, the working directory.",
			Schema:      `{"type":"object","properties":{"path":{"type":"string"},"id":{"type":"string"}},"required":["id"]}`,
			Hints:       Hints{ReadOnly: true, Idempotent: true}, Handler: k.daytonaList,
		},
		{
			Name: "move_file", Set: SetDaytona, Title: "Move file",
			Description: "Move or rename a file.",
			Schema:      `{"type":"object","properties":{"sourcePath":{"type":"string"},"destPath":{"type":"string"},"id":{"type":"string"}},"required":["sourcePath","destPath","id"]}`,
			Hints:       Hints{Destructive: true}, Handler: k.daytonaFS("move", "sourcePath"),
		},
		{
			Name: "delete_file", Set: SetDaytona, Title: "Delete file",
			Description: "Delete a file or directory.",
			Schema:      `{"type":"object","properties":{"filePath":{"type":"string"},"id":{"type":"string"}},"required":["filePath","id"]}`,
			Hints:       Hints{Destructive: true}, Handler: k.daytonaFS("delete", "filePath"),
		},
		{
			Name: "create_folder", Set: SetDaytona, Title: "Create folder",
			Description: "Make a directory, with those above it.",
			Schema:      `{"type":"object","properties":{"folderPath":{"type":"string"},"mode":{"type":"string","description":"default 0755"},"id":{"type":"string"}},"required":["folderPath","id"]}`,
			Hints:       Hints{Idempotent: true}, Handler: k.daytonaFS("mkdir", "folderPath"),
		},
		{
			Name: "git_clone", Set: SetDaytona, Title: "Clone repository",
			Description: "Clone a Git repository; without path, into a directory of its name.",
			Schema:      `{"type":"object","properties":{"url":{"type":"string"},"path":{"type":"string"},"branch":{"type":"string"},"commitId":{"type":"string"},"username":{"type":"string"},"password":{"type":"string"},"id":{"type":"string"}},"required":["url","id"]}`,
			Hints:       Hints{Destructive: true, OpenWorld: true}, Handler: k.daytonaClone,
		},
		{
			Name: "preview_link", Set: SetDaytona, Title: "Preview link",
			Description: "Get a URL for a port. checkServer: only if something listens on it.",
			Schema:      `{"type":"object","properties":{"port":{"type":"number"},"description":{"type":"string"},"checkServer":{"type":"boolean"},"id":{"type":"string"}},"required":["port","description","checkServer","id"]}`,
			Hints:       Hints{Idempotent: true, OpenWorld: true}, Handler: k.daytonaPreview,
		},
	}
}

// daytonaNames are the words of this set for what other sets name otherwise.
var daytonaNames = strings.NewReplacer( // constant
	"call sandbox_list to see what exists, or sandbox_create", "call create_sandbox for a new one",
	"sandbox_list shows ids.", "create_sandbox returns ids.",
	"sandbox_process", "sandbox_process (toolset core)", "sandbox_control", "sandbox_control (toolset core)",
	"sandbox_list", "sandbox_list (toolset core)",
	"sandbox_create", "create_sandbox", "sandbox_delete", "destroy_sandbox", "sandbox_exec", "execute_command",
	"sandbox_find", "list_files", "sandbox_read", "file_download", "sandbox_write", "file_upload",
	`sandbox_ui {"id"`, `computer_use_start {"id"`, `,"op":"start"}`, `}`,
)

// daytonaWords returns the text of a result with the next call named as in
// this set. What a sandbox printed stays as it is: only errors, whose words
// are ours, and the first line are changed.
func daytonaWords(r Result) string {
	first, rest, more := strings.Cut(r.Text, "\n")
	first = daytonaNames.Replace(first)
	if !more {
		return first
	}
	return first + "\n" + rest
}

func (k *kit) daytonaCreate(ctx context.Context, a Args) (Result, error) {
	if a.Str("id") != "" {
		sb, err := k.Sandboxes.Sandbox(ctx, a.ref())
		if err != nil {
			return Result{}, err
		}
		if sb.State == engine.StateStarted {
			return Result{Text: fmt.Sprintf("Using sandbox %s: running, %s. %s", sb.ID, resources(sb.Resources), lifetime(sb)), Meta: sandboxMeta(sb), Sandbox: sb.ID}, nil
		}
		return Result{}, invalid(`Leave "id" out for a new one`, `the sandbox that "id" names is %s, not running`, stateWord(sb.State))
	}
	return k.createAs(ctx, a, daytonaRequest, func(sb engine.Sandbox) string { return sb.ID })
}

func daytonaRequest(a Args) (engine.CreateSandbox, error) {
	req := engine.CreateSandbox{
		OrganizationID: a.Organization, Name: a.Str("name"), Snapshot: a.Str("snapshot"), User: a.Str("user"),
		Env: a.Map("env"), Labels: a.Map("labels"), Public: a.Bool("public"),
		Resources: engine.Resources{CPU: a.Num("cpu"), MemoryMiB: int64(a.Num("memory") * 1024), DiskMiB: int64(a.Num("disk") * 1024)},
		Network:   engine.NetworkPolicy{BlockAll: a.Bool("networkBlockAll")},
	}
	if a.Str("target") != "us" { // the default of the tool, which stands for the server's own
		req.Target = a.Str("target")
	}
	for _, name := range []string{"cpu", "memory", "disk", "gpu"} {
		switch {
		case a.Num(name) < 0:
			return req, invalid("Leave it out for the default", "%q must not be negative", name)
		case a.Num(name) > 0 && req.Snapshot != "":
			return req, invalid("Leave one out: a snapshot has its own size", `%q and "snapshot" exclude each other`, name)
		}
	}
	if err := daytonaUnbuilt(a); err != nil {
		return req, err
	}
	if build, ok := a.m["buildInfo"].(map[string]any); ok {
		var err error
		if req.Image, err = fromImage(build); err != nil {
			return req, err
		}
		if req.Snapshot != "" {
			return req, invalid("Give one of them", `"buildInfo" and "snapshot" exclude each other`)
		}
	}
	if list := strings.TrimSpace(a.Str("networkAllowList")); list != "" {
		if req.Network.BlockAll {
			return req, invalid("Give one of them", `"networkBlockAll" and "networkAllowList" exclude each other`)
		}
		allowHosts(&req.Network, strings.Split(list, ","))
	}
	l := engine.Lifecycle{
		AutoStop:    minutes(a, "autoStopInterval", 15),
		AutoArchive: cmp.Or(minutes(a, "autoArchiveInterval", 10080), 30*24*time.Hour),
		AutoDelete:  minutes(a, "autoDeleteInterval", -1),
		TTL:         minutes(a, "ttlMinutes", 0),
	}
	if l.AutoDelete < 0 {
		l.AutoDelete = -1
	}
	req.Lifecycle = &l
	return req, nil
}

func minutes(a Args, name string, otherwise float64) time.Duration {
	if a.Has(name) {
		otherwise = a.Num(name)
	}
	return time.Duration(otherwise * float64(time.Minute))
}

func daytonaUnbuilt(a Args) error {
	if a.Num("autoPauseInterval") > 0 {
		return unsupported(`Use "autoStopInterval"; files are kept`, `"autoPauseInterval" is not built yet`)
	}
	return notBuilt(a)
}

var fromLine = regexp.MustCompile(`(?i)^FROM\s+(\S+)$`)

// fromImage reads a build that is nothing but an image.
func fromImage(build map[string]any) (string, error) {
	text, _ := build["dockerfileContent"].(string)
	hashes, _ := build["contextHashes"].([]any)
	m := fromLine.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil || len(hashes) > 0 {
		return "", unsupported(`Name a ready image as {"dockerfileContent":"FROM python:3.13"}, or set up a sandbox and save it as a snapshot`, `"buildInfo" with more than a FROM line is not built yet`)
	}
	return m[1], nil
}

// daytonaPatience is how long execute_command waits: this set has nothing to
// follow a background process with. Progress keeps the client awake.
const daytonaPatience = 10 * time.Minute

func (k *kit) daytonaExec(ctx context.Context, a Args) (Result, error) {
	patient := *k
	patient.opt.Foreground = max(k.opt.Foreground, daytonaPatience)
	return patient.exec(ctx, a)
}

// renamed calls a handler with an argument under its other name, and has its
// errors say the name that the caller knows.
func renamed(ctx context.Context, a Args, h func(context.Context, Args) (Result, error), args map[string]any, names ...string) (Result, error) {
	args["id"] = a.m["id"]
	r, err := h(ctx, a.with(args))
	if err != nil {
		r = explain(err, a.with(args))
	}
	if r.IsError {
		r.Text = strings.NewReplacer(names...).Replace(r.Text)
	}
	return r, nil
}

func (k *kit) daytonaUpload(ctx context.Context, a Args) (Result, error) {
	encoding := ""
	switch e := strings.ToLower(a.Str("encoding")); e {
	case "base64":
		encoding = e
	case "", "text", "utf8", "utf-8", "plain":
	default:
		return Result{}, invalid(`Use base64, or text`, `"encoding" is not known: %s`, quote(a.Str("encoding")))
	}
	args := map[string]any{"path": a.m["filePath"], "content": a.m["content"]}
	if encoding != "" {
		args["encoding"] = encoding
	}
	return renamed(ctx, a, func(ctx context.Context, c Args) (Result, error) {
		if !a.Bool("overwrite") {
			b, path, err := k.target(ctx, c)
			if err != nil {
				return Result{}, err
			}
			if _, err := b.Info(ctx, path); err == nil {
				return Result{}, invalid(`Set "overwrite":true, or choose another "filePath"`, "%s exists already", path)
			} else if codeOf(err) != wire.CodeFileNotFound && !absent(err) {
				return Result{}, err
			}
		}
		return k.write(ctx, c)
	}, args, `"path"`, `"filePath"`)
}

func (k *kit) daytonaDownload(ctx context.Context, a Args) (Result, error) {
	return renamed(ctx, a, func(ctx context.Context, c Args) (Result, error) {
		b, path, err := k.target(ctx, c)
		if err != nil {
			return Result{}, err
		}
		content, _, err := b.load(ctx, c, path)
		if err != nil {
			return Result{}, err
		}
		if r, shown := notText(path, content); shown {
			return r, nil
		}
		head := fmt.Sprintf("%s · %s\n", path, size(int64(len(content))))
		return Text("%s%s", head, clip(printable(content), maxText-len(head), fmt.Sprintf("read it with execute_command and sed -n 1,200p %s", shellQuote(path)))), nil
	}, map[string]any{"path": a.m["filePath"]}, `"path"`, `"filePath"`)
}

func (k *kit) daytonaInfo(ctx context.Context, a Args) (Result, error) {
	return renamed(ctx, a, func(ctx context.Context, c Args) (Result, error) {
		b, path, err := k.target(ctx, c)
		if err != nil {
			return Result{}, err
		}
		f, err := b.Info(ctx, path)
		if err != nil {
			return Result{}, noFile(err, c)
		}
		return fileInfo(path, f), nil
	}, map[string]any{"path": a.m["filePath"]}, `"path"`, `"filePath"`)
}

func fileInfo(path string, f wire.FileInfo) Result {
	kind := "file"
	if f.IsDir {
		kind = "directory"
	}
	r := Text("%s · %s · %s · mode %s · owner %s:%s · changed %s", path, kind, size(f.Size), f.Permissions, f.Owner, f.Group, f.ModTime)
	r.Meta = map[string]any{metaFile: f}
	return r
}

func (k *kit) daytonaList(ctx context.Context, a Args) (Result, error) {
	r, err := k.find(ctx, a.with(map[string]any{"id": a.m["id"], "path": a.m["path"]}))
	if err == nil {
		r.Text = pagedBy.ReplaceAllString(r.Text, "; see the rest with execute_command and ls")
	}
	return r, err
}

// pagedBy is how the core's listing offers its next page, which this set has
// no argument for.
var pagedBy = regexp.MustCompile(`; more with "cursor":"[^"]*"`)

// daytonaFS is one operation of sandbox_fs.
func (k *kit) daytonaFS(op, path string) func(context.Context, Args) (Result, error) {
	return func(ctx context.Context, a Args) (Result, error) {
		args := map[string]any{"op": op, "path": a.m[path], "mode": a.m["mode"], "to": a.m["destPath"]}
		return renamed(ctx, a, k.fs, args, `"path"`, `"`+path+`"`, `"to"`, `"destPath"`, " for op "+op, "")
	}
}

func (k *kit) daytonaClone(ctx context.Context, a Args) (Result, error) {
	for _, name := range []string{"url", "branch", "commitId"} {
		if strings.HasPrefix(a.Str(name), "-") {
			return Result{}, invalid("Name an address, a branch or a commit", "%q must not begin with a dash: %s", name, quote(a.Str(name)))
		}
	}
	if a.Str("url") == "" {
		return Result{}, invalid(`As "url":"https://example.com/team/repo.git"`, `"url" is empty`)
	}
	b, err := k.box(ctx, a)
	if err != nil {
		return Result{}, err
	}
	path, err := b.path(ctx, a.Str("path"))
	if err != nil {
		return Result{}, err
	}
	r, err := b.clone(ctx, a, wire.GitClone{
		URL: a.Str("url"), Path: path, Branch: a.Str("branch"), CommitID: a.Str("commitId"), Username: a.Str("username"), Password: a.Str("password"),
	})
	return r, gitError(err, a)
}

func (k *kit) daytonaPreview(ctx context.Context, a Args) (Result, error) {
	port := a.Num("port")
	if port != float64(int(port)) || port < 1 || port > 65535 {
		return Result{}, invalid(`As "port":3000`, `"port" must be a whole number from 1 to 65535`)
	}
	if a.Bool("checkServer") {
		return k.expose(ctx, a.with(map[string]any{"id": a.m["id"], "port": port}))
	}
	sb, err := k.Sandboxes.Sandbox(ctx, a.ref())
	if err != nil {
		return Result{}, err
	}
	where, how, err := k.link(ctx, sb, int(port), 0)
	if err != nil {
		return Result{}, err
	}
	return Result{Text: fmt.Sprintf("Port %d, not checked.\nURL: %s\n%s", int(port), where, how), Sandbox: sb.ID, Meta: map[string]any{metaPreview: map[string]any{"url": where}}}, nil
}
