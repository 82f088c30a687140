package core

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

// Ledger keeps what sandboxes did; engine/activity.
type Ledger interface {
	// Record never waits and never fails.
	Record(r engine.ActivityRecord)
	Query(ctx context.Context, sandbox string, q engine.ActivityQuery) (engine.ActivityPage, error)
	Verify(ctx context.Context, sandbox string, known *engine.ActivityHead) (engine.ActivityProof, error)
	// Owner is the organization of a sandbox that may be deleted; empty when
	// there is no ledger of it.
	Owner(sandbox string) string
}

type ledger struct{ *Core }

// Activity is what sandboxes did.
func (c *Core) Activity() engine.Activity { return ledger{c} }

// Records returns records of one sandbox.
func (l ledger) Records(ctx context.Context, ref engine.SandboxRef, q engine.ActivityQuery) (engine.ActivityPage, error) {
	id, err := l.whose(ctx, ref)
	if err != nil {
		return engine.ActivityPage{}, err
	}
	page, err := l.Ledger.Query(ctx, id, q)
	if engine.KindOf(err) == engine.KindNotFound { // it exists, and nothing was recorded yet
		return engine.ActivityPage{Items: []engine.ActivityRecord{}, Next: q.After}, nil
	}
	return page, public(err)
}

// Verify follows a sandbox's chain.
func (l ledger) Verify(ctx context.Context, ref engine.SandboxRef, known *engine.ActivityHead) (engine.ActivityProof, error) {
	id, err := l.whose(ctx, ref)
	if err != nil {
		return engine.ActivityProof{}, err
	}
	proof, err := l.Ledger.Verify(ctx, id, known)
	return proof, public(err)
}

// whose finds a sandbox. One that is deleted is found by its id, by the
// organization that it belonged to.
func (l ledger) whose(ctx context.Context, ref engine.SandboxRef) (string, error) {
	if l.Ledger == nil {
		return "", engine.Errorf(engine.KindUnsupported, "this server keeps no ledger")
	}
	sb, err := l.find(ctx, ref)
	if err == nil {
		return sb.ID, nil
	}
	// Nobody knows the labels of one that is gone.
	whole := len(engine.ScopeOf(ctx).Labels) == 0
	if whole && engine.KindOf(err) == engine.KindNotFound && ref.OrganizationID != "" && l.Ledger.Owner(ref.IDOrName) == ref.OrganizationID {
		return ref.IDOrName, nil
	}
	return "", public(err)
}

// lived records a step in a sandbox's life. A change of its settings is none.
func (c *Core) lived(kind string, sb *store.Sandbox) {
	if c.Ledger == nil || kind == "sandbox.updated" {
		return
	}
	r := engine.ActivityRecord{
		Sandbox: sb.ID, Incarnation: sb.Incarnation, Kind: engine.ActivityLifecycle, Organization: sb.OrganizationID,
		Operation: string(sb.State), Reason: sb.Error,
	}
	switch {
	case kind == "sandbox.created":
		r.Operation = "created"
		if sb.Parent != "" {
			r.Detail = "forked from " + sb.Parent
		}
	case kind == "sandbox.removed":
		r.Operation = "deleted"
	case sb.State == engine.StateStarted, sb.State == engine.StateStopped, sb.State == engine.StatePaused, sb.State == engine.StateArchived, sb.State == engine.StateError:
	default:
		return // on the way to another
	}
	c.Ledger.Record(r)
}

// recorded notes a call in the ledger and hands its id on to the toolbox. What
// only looks is not noted.
func (t *toolbox) recorded(req *http.Request) *http.Request {
	if t.core.Ledger == nil {
		return req
	}
	what, ok := operation(req)
	inner := req.WithContext(req.Context())
	inner.Header = req.Header.Clone()
	inner.Header.Del(engine.CallHeader) // of the caller's own making
	if !ok {
		return inner
	}
	what.Call, what.Sandbox, what.Incarnation, what.Kind = ulid.Make().String(), t.id, t.pool.incarnation, engine.ActivityCall
	by(req.Context(), &what)
	inner.Header.Set(engine.CallHeader, what.Call)
	if what.Detail == "" && inner.Body != nil && inner.Body != http.NoBody {
		what.Detail = t.peek(inner)
	}
	t.core.Ledger.Record(what)
	return inner
}

// by says in a record who is behind a call.
func by(ctx context.Context, r *engine.ActivityRecord) {
	c := engine.CallerOf(ctx)
	r.Door, r.Actor = cmp.Or(c.Door, "server"), c.Principal.UserID
	if c.Principal.KeyPrefix != "" {
		r.Key = c.Principal.KeyPrefix + "…" + c.Principal.KeySuffix
	}
}

// peeked bounds how much of a body is looked at.
const peeked = 16 << 10

// peek says what a small JSON body asks for, and leaves it to be read.
func (t *toolbox) peek(req *http.Request) string {
	if req.ContentLength <= 0 || req.ContentLength > peeked || strings.HasPrefix(req.Header.Get("Content-Type"), "multipart/") {
		return ""
	}
	text, err := io.ReadAll(io.LimitReader(req.Body, peeked))
	var rest io.Reader = req.Body
	if err != nil {
		rest = failing{err}
	}
	req.Body = &peekedBody{io.MultiReader(bytes.NewReader(text), rest), req.Body}
	var b struct{ Command, Code, Path, URL, Source, Destination, Message, Branch, Name string }
	if err != nil || json.Unmarshal(text, &b) != nil {
		return ""
	}
	if b.Source != "" && b.Destination != "" {
		return b.Source + " → " + b.Destination
	}
	return cmp.Or(b.Command, b.Code, withoutUser(b.URL), b.Path, b.Message, b.Branch, b.Name)
}

// withoutUser takes a password out of an address.
func withoutUser(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		return address
	}
	u.User = nil
	return u.String()
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

type peekedBody struct {
	io.Reader
	io.Closer
}

// operation names what a request asks of a toolbox.
func operation(req *http.Request) (r engine.ActivityRecord, ok bool) {
	part := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
	for len(part) < 4 {
		part = append(part, "")
	}
	get, q := req.Method == http.MethodGet || req.Method == http.MethodHead, req.URL.Query()
	switch part[0] {
	case "internal":
		r.Operation = map[string]string{"exec": "exec.stream", "tunnel": "port.connect"}[part[1]]
		r.Detail = cmp.Or(q.Get("port"), q.Get("command")) // as the caller says
		return r, r.Operation != ""
	case "process":
		return processOperation(req.Method, part, q)
	case "files":
		r.Detail = cmp.Or(q.Get("path"), q.Get("source"))
		if to := q.Get("destination"); to != "" {
			r.Detail += " → " + to
		}
		name := map[string]string{"upload": "write", "upload-v2": "write", "bulk-upload": "write", "download": "read", "bulk-download": "read"}[part[1]]
		if req.Method == http.MethodDelete {
			name = "delete"
		}
		r.Operation = "file." + cmp.Or(name, part[1])
		return r, !get || part[1] == "download"
	case "git":
		r.Operation = "git." + part[1]
		if req.Method == http.MethodDelete {
			r.Operation += ".delete"
		}
		return r, !get
	case "proxy":
		r.Operation, r.Detail = "port.request", req.Method+" "+part[1]+req.URL.Path[min(len(req.URL.Path), len("/proxy/"+part[1])):]
		return r, true
	case "computeruse":
		r.Operation, r.Detail = "desktop", strings.Trim(strings.Join(part[1:], "/"), "/")
		return r, !get
	}
	r.Operation = strings.Trim(part[0]+"."+part[1], ".")
	return r, !get && part[0] != "init"
}

func processOperation(method string, part []string, q url.Values) (r engine.ActivityRecord, ok bool) {
	post := method == http.MethodPost
	switch {
	case part[1] == "execute", part[1] == "session" && part[3] == "exec":
		r.Operation, ok = "exec", post
	case part[1] == "code-run":
		r.Operation, ok = "code.run", post
	case part[1] == "interpreter" && part[2] == "execute":
		r.Operation, ok = "code.run", true
	case part[1] == "pty" && (part[2] == "create-connect" || part[3] == "connect"):
		r.Operation, ok = "terminal.connect", true
	default:
		r.Operation, ok = part[1], method != http.MethodGet
		if method == http.MethodDelete {
			r.Operation += ".delete"
		} else if post {
			r.Operation += "." + cmp.Or(part[3], part[2], "create")
		}
	}
	r.Process = q.Get("id")
	if part[1] == "session" {
		r.Process = part[2]
	}
	return r, ok
}
