// Package tools holds the tools that agents call: what each is named, takes,
// promises and does. It knows nothing of MCP libraries or transports.
//
// A tool is one value in the list of its noun's file. Its result is text
// shaped for models: the outcome on the first line, at most 9,000 bytes, and
// where the rest is. Machine data goes to Meta, which models do not see.
package tools

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// Backend is what the tools work on. All but the first three may be nil; what
// needs one of those then says that the server lacks it.
type Backend struct {
	Sandboxes engine.Sandboxes
	Snapshots engine.Snapshots
	Toolboxes engine.Toolboxes
	Inspector engine.Inspector
	Previews  Previews
	Activity  engine.Activity
	Keys      Keys
	Usage     Usage
	Audit     Audit
	Policy    Policy
	Denials   Denials
}

// Previews makes URLs of ports. A signed one opens its port to whoever has it.
type Previews interface {
	PreviewURL(ctx context.Context, ref engine.SandboxRef, port int) (engine.PreviewURL, error)
	SignedPreviewURL(ctx context.Context, ref engine.SandboxRef, port int, lifetime time.Duration) (engine.PreviewURL, error)
}

// Options tune the tools.
type Options struct {
	Foreground time.Duration // how long sandbox_exec waits; 0: 45 s
	// LocalDirs are the directories of this computer whose files sandbox_transfer
	// may copy. Empty: there is no such tool, as on a server for others.
	LocalDirs []string
	// Ask lets the agent's user decide about what a command was denied, and
	// returns what became of the request. nil: nobody is asked.
	Ask func(ctx context.Context, r engine.AccessRequest) engine.AccessState
}

// Tool is one thing an agent can ask for.
type Tool struct {
	Name        string
	Set         string
	Title       string
	Description string
	Schema      string // JSON Schema of the arguments, an object
	Hints       Hints
	// Permission is what the caller's key needs. Empty: write:sandboxes, or
	// nothing for a tool that is read-only.
	Permission string
	Handler    func(ctx context.Context, a Args) (Result, error)
}

// Needs returns the permission that a call takes; empty: none in particular.
func (t Tool) Needs() string {
	if t.Permission == "" && !t.Hints.ReadOnly {
		return engine.WriteSandboxes
	}
	return t.Permission
}

// Hints are promises about a tool, for clients that ask their user first.
type Hints struct {
	ReadOnly    bool // changes nothing
	Destructive bool // may undo or overwrite what exists
	Idempotent  bool // repeating it changes nothing more
	OpenWorld   bool // reaches beyond the sandbox server
}

// Args are the checked arguments of one call. Values is what the client sent.
type Args struct {
	Organization string
	Principal    engine.Principal
	Progress     func(message string) // never nil inside a handler
	Values       any

	m map[string]any
}

// Result is what the agent gets back.
type Result struct {
	Text    string
	Images  []Image
	Meta    map[string]any
	IsError bool
	Sandbox string // which one the call was about, for the log
}

// Image is a picture for the model.
type Image struct{ MIME, Base64 string }

// Text makes a result.
func Text(format string, args ...any) Result {
	return Result{Text: fmt.Sprintf(format, args...)}
}

// Fail makes a result that tells what went wrong and what to do about it.
func Fail(format string, args ...any) Result {
	return Result{Text: fmt.Sprintf(format, args...), IsError: true}
}

// Kit is the set of all tools over one backend, with what they share.
type Kit struct{ kit *kit }

// New returns the tools. Close the kit when done.
func New(b Backend, opt Options) *Kit {
	if opt.Foreground == 0 {
		opt.Foreground = 45 * time.Second
	}
	return &Kit{&kit{Backend: b, opt: opt, shells: newShells()}}
}

// Tools returns every tool, sorted by name.
func (k *Kit) Tools() []Tool {
	all := slices.Concat(
		k.kit.sandboxTools(),
		k.kit.processTools(),
		k.kit.fileTools(),
		k.kit.previewTools(),
		k.kit.snapshotTools(),
		k.kit.localTools(),
		k.kit.codeTools(),
		k.kit.gitTools(),
		k.kit.adminTools(),
		k.kit.desktopTools(),
		k.kit.activityTools(),
		k.kit.egressTools(),
		k.kit.daytonaTools(),
	)
	slices.SortFunc(all, func(a, b Tool) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Close ends what the tools keep ready in sandboxes. No call may be under way.
func (k *Kit) Close(ctx context.Context) { k.kit.shells.close(ctx) }

// kit is what the handlers share.
type kit struct {
	Backend
	opt    Options
	shells *shells
}

// Call checks the arguments and runs the tool. It never fails: errors become
// results that a model can act on.
func (t Tool) Call(ctx context.Context, a Args) Result {
	if a.Progress == nil {
		a.Progress = func(string) {}
	}
	var fault string
	var res Result
	if a.m, fault = t.check(a.Values); fault != "" {
		res = Result{Text: fault, IsError: true}
	} else if r, err := t.Handler(ctx, a); err != nil {
		res = explain(err, a)
	} else {
		res = r
	}
	if t.Set == SetDaytona {
		res.Text = daytonaWords(res)
	}
	if res.Sandbox == "" {
		res.Sandbox = a.Str("id")
	}
	return res
}

// Str returns a text argument, or "" without one.
func (a Args) Str(name string) string { s, _ := a.m[name].(string); return s }

// Has tells whether the argument was given.
func (a Args) Has(name string) bool { _, ok := a.m[name]; return ok }

// Bool returns a yes-or-no argument.
func (a Args) Bool(name string) bool { b, _ := a.m[name].(bool); return b }

// Num returns a number argument, or 0.
func (a Args) Num(name string) float64 { f, _ := a.m[name].(float64); return f }

// Int returns a whole-number argument, or otherwise without one.
func (a Args) Int(name string, otherwise int) int {
	if f, ok := a.m[name].(float64); ok {
		return int(f)
	}
	return otherwise
}

// Map returns an argument of names and texts.
func (a Args) Map(name string) map[string]string {
	in, _ := a.m[name].(map[string]any)
	if len(in) == 0 {
		return nil
	}
	out := make(map[string]string, len(in))
	for k, v := range in {
		out[k], _ = v.(string)
	}
	return out
}

// List returns a list of texts.
func (a Args) List(name string) []string {
	in, _ := a.m[name].([]any)
	out := make([]string, 0, len(in))
	for _, v := range in {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// with returns a with other arguments, for a handler of another tool. Nil ones
// are left out.
func (a Args) with(args map[string]any) Args {
	a.m = map[string]any{}
	for name, v := range args {
		if v != nil {
			a.m[name] = v
		}
	}
	return a
}

// Nums returns a list of numbers.
func (a Args) Nums(name string) []float64 {
	in, _ := a.m[name].([]any)
	out := make([]float64, 0, len(in))
	for _, v := range in {
		if f, ok := v.(float64); ok {
			out = append(out, f)
		}
	}
	return out
}

// ref names the sandbox that the argument id names.
func (a Args) ref() engine.SandboxRef {
	return engine.SandboxRef{OrganizationID: a.Organization, IDOrName: a.Str("id")}
}

// schema is the part of JSON Schema that the tools use.
type schema struct {
	Type        string            `json:"type"`
	Description string            `json:"description"`
	Enum        []string          `json:"enum"`
	Minimum     *float64          `json:"minimum"`
	Maximum     *float64          `json:"maximum"`
	Items       *schema           `json:"items"`
	Properties  map[string]schema `json:"properties"`
	Required    []string          `json:"required"`
	Values      json.RawMessage   `json:"additionalProperties"`
}

func (t Tool) schema() (schema, error) {
	var s schema
	err := json.Unmarshal([]byte(t.Schema), &s)
	return s, err
}
