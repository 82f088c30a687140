package toolbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// maxBody bounds a JSON body. A command of 1 MiB may be escaped sixfold, and
// stdin comes on top.
const maxBody = 32 << 20

// handler answers one call. An error becomes an ErrorResponse, unless the
// answer has begun already.
type handler func(w http.ResponseWriter, r *http.Request) error

// kind tells how a call counts as activity.
type kind int

const (
	quiet kind = iota // it does not: it only looks
	brief             // its begin and end count
	work              // the sandbox is busy while it lasts
)

// route is one operation.
type route struct {
	pattern string
	kind    kind
	handle  handler
}

// routes lists all operations.
func (t *Toolbox) routes() []route {
	return []route{
		{"GET /internal/status", quiet, t.status},
		{"POST /internal/identity", quiet, t.identity},
		{"POST /internal/trust", quiet, t.setTrust},
		{"POST /internal/rehearse", quiet, t.rehearse},
		{"GET /internal/exec", work, t.streamExec},
		{"GET /internal/tunnel", quiet, t.tunnel}, // counts by itself
		{"GET /version", quiet, t.version},
		{"GET /user-home-dir", quiet, t.homeDir},
		{"GET /work-dir", quiet, t.workDir},
		{"POST /env", brief, t.updateEnv},
		{"POST /init", quiet, t.initialize},
		{"GET /system/metrics", quiet, t.metrics},
		{"GET /port", quiet, t.ports},
		{"GET /port/{port}/in-use", quiet, t.portInUse},
		{"/proxy/{port}/{path...}", work, t.proxyPort},

		{"POST /process/execute", work, t.execute},
		{"POST /process/code-run", work, t.codeRun},
		{"GET /process/session", brief, t.listSessions},
		{"POST /process/session", brief, t.createSession},
		{"GET /process/session/{session}", brief, t.getSession},
		{"DELETE /process/session/{session}", brief, t.deleteSession},
		{"POST /process/session/{session}/exec", work, t.sessionExecute},
		{"GET /process/session/{session}/logs", work, t.entrypointLogs},
		{"GET /process/session/{session}/command/{command}", brief, t.getCommand},
		{"GET /process/session/{session}/command/{command}/logs", work, t.commandLogs},
		{"POST /process/session/{session}/command/{command}/input", brief, t.commandInput},
		{"GET /process/pty", brief, t.listPTYs},
		{"POST /process/pty", brief, t.createPTY},
		{"GET /process/pty/create-connect", work, t.createConnectPTY},
		{"GET /process/pty/{pty}", brief, t.getPTY},
		{"DELETE /process/pty/{pty}", brief, t.deletePTY},
		{"GET /process/pty/{pty}/connect", work, t.connectPTY},
		{"POST /process/pty/{pty}/resize", brief, t.resizePTY},

		{"GET /files", brief, t.listFiles},
		{"DELETE /files", brief, t.deleteFile},
		{"POST /files/bulk-download", work, t.bulkDownload},
		{"POST /files/bulk-upload", work, t.bulkUpload},
		{"GET /files/download", work, t.download},
		{"GET /files/find", work, t.findInFiles},
		{"POST /files/folder", brief, t.makeFolder},
		{"GET /files/info", brief, t.fileInfo},
		{"POST /files/move", brief, t.moveFile},
		{"POST /files/permissions", brief, t.setPermissions},
		{"POST /files/replace", work, t.replaceInFiles},
		{"GET /files/search", work, t.searchFiles},
		{"POST /files/upload", work, t.upload},
		{"POST /files/upload-v2", work, t.upload},

		{"/", quiet, unknown},
	}
}

// Handler serves the whole API.
func (t *Toolbox) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range slices.Concat(t.routes(), t.gitRoutes(), t.interpreterRoutes(), t.lspRoutes(), t.desktopRoutes()) {
		mux.Handle(r.pattern, t.wrap(r))
	}
	return mux
}

func (t *Toolbox) wrap(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if t.trimmer != nil {
			t.trimmer.begin()
			defer t.trimmer.end(rt.kind != quiet)
		}
		if rt.kind != quiet {
			defer t.activity.begin(rt.kind == work)()
		}
		if call := r.Header.Get(callHeader); call != "" {
			r = r.WithContext(process.WithCall(r.Context(), call))
		}
		w2 := &writer{ResponseWriter: w}
		defer t.recover(w2, r)
		if err := rt.handle(w2, r); err != nil {
			fail(t.log, w2, r, err)
		}
	})
}

// recover turns a panic into an answer; one bad request must not end PID 1.
func (t *Toolbox) recover(w *writer, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v)
	}
	t.log.Error("panic", "path", r.URL.Path, "value", v, "stack", string(debug.Stack()))
	fail(t.log, w, r, fmt.Errorf("panic: %v", v))
}

// writer remembers whether the answer has begun.
type writer struct {
	http.ResponseWriter
	begun bool
}

// WriteHeader sends the status.
func (w *writer) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

// Write sends a part of the body.
func (w *writer) Write(p []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(p)
}

// ReadFrom lets files be sent without copying them through us.
func (w *writer) ReadFrom(r io.Reader) (int64, error) {
	w.begun = true
	return io.Copy(w.ResponseWriter, r)
}

// Unwrap lets http.ResponseController and upgrades reach the connection.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// fail maps an error to its answer, the only place that does.
func fail(log *slog.Logger, w *writer, r *http.Request, err error) {
	if w.begun {
		log.Debug("an answer broke off", "path", r.URL.Path, "err", err)
		return
	}
	var e *wire.Error
	if !errors.As(err, &e) {
		log.Error("request", "path", r.URL.Path, "err", err)
		e = wire.Errorf(http.StatusInternalServerError, wire.CodeInternal, "%s", err.Error())
	}
	_ = writeJSON(w, e.Status, wire.ErrorResponse{
		StatusCode: e.Status, Message: e.Message, Code: e.Code, Source: wire.Source,
		Timestamp: time.Now().UTC(), Path: r.URL.Path, Method: r.Method, Partial: e.Partial,
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, err = w.Write(b)
	return err
}

// readJSON decodes the body. Unknown fields are ignored, as clients may be
// newer than we are.
func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return wire.Errorf(http.StatusBadRequest, wire.CodeInvalidBody, "the body is larger than %d MiB; upload large data as a file", maxBody>>20)
	case err != nil:
		return wire.Errorf(http.StatusBadRequest, wire.CodeInvalidBody, "the body broke off: %v", err)
	case len(strings.TrimSpace(string(b[:min(len(b), 64)]))) == 0:
		return wire.Errorf(http.StatusBadRequest, wire.CodeInvalidBody, "the body is empty; send a JSON object")
	}
	err = json.Unmarshal(b, v)
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong):
		return wire.Errorf(http.StatusBadRequest, wire.CodeInvalidBody, "%s: it must be %s, not %s", fieldName(wrong), typeName(wrong), wrong.Value)
	case err != nil:
		return wire.Errorf(http.StatusBadRequest, wire.CodeInvalidBody, "the body is not valid JSON: %v", err)
	}
	return nil
}

func fieldName(e *json.UnmarshalTypeError) string {
	if e.Field == "" {
		return "the body"
	}
	return e.Field
}

func typeName(e *json.UnmarshalTypeError) string {
	switch e.Type.Kind().String() {
	case "struct", "map":
		return "an object"
	case "slice", "array":
		return "a list"
	case "bool":
		return "true or false"
	case "string":
		return "a string"
	}
	return "a whole number"
}

func unknown(_ http.ResponseWriter, r *http.Request) error {
	return wire.Errorf(http.StatusNotFound, wire.CodeNotFound, "there is no operation %s %s", r.Method, r.URL.Path)
}

// upgrade makes a WebSocket. Browsers drop a connection whose server selects
// none of the sub-protocols they offered, so the first offered one is taken.
// The origin is the gateway's business.
func upgrade(w http.ResponseWriter, r *http.Request) (*websocket.Conn, error) {
	if !isUpgrade(r) { // Accept would answer in words of its own
		return nil, wire.BadRequest("this call needs a WebSocket: send the upgrade that goes with one")
	}
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: offered(r), InsecureSkipVerify: true})
	if err != nil {
		return nil, wire.BadRequest("this call needs a WebSocket: %v", err)
	}
	c.SetReadLimit(maxFrame)
	return c, nil
}

// maxFrame bounds one message of a client.
const maxFrame = 64 << 10

// offered lists the sub-protocols of a request.
func offered(r *http.Request) []string {
	var all []string
	for _, h := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(h, ",") {
			if p = strings.TrimSpace(p); p != "" {
				all = append(all, p)
			}
		}
	}
	return all
}

func isUpgrade(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// errorBody is the body of a 400 that says msg.
func (t *Toolbox) errorBody(r *http.Request, msg string) wire.ErrorResponse {
	return wire.ErrorResponse{
		StatusCode: http.StatusBadRequest, Message: msg, Code: wire.CodeBadRequest, Source: wire.Source,
		Timestamp: time.Now().UTC(), Path: r.URL.Path, Method: r.Method,
	}
}

func writePart(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}
