package acceptance

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// Who answers, as clients read it.
const (
	fromAPI     = "DAYTONA_API"
	fromProxy   = "DAYTONA_PROXY"
	fromToolbox = "DAYTONA_DAEMON"
)

// failure is a request that the contract wants refused, and how.
type failure struct {
	request string // METHOD /path; toolbox paths begin with /toolbox/SB
	body    string
	status  int
	code    string // empty: any
	says    string // a part of the message
	source  string // empty: the API's
}

// errors asks for every failure and checks the whole body of the answer.
func (s *server) errors(t *testing.T, sandbox string) {
	s.prepareFailures(t, sandbox)
	for _, f := range append(controlFailures(), toolboxFailures()...) {
		s.fails(t, f, strings.NewReplacer("SB", sandbox))
	}
	s.unauthenticated(t, sandbox)
	s.stopped(t)
}

func (s *server) fails(t *testing.T, f failure, names *strings.Replacer) {
	t.Helper()
	method, path, _ := strings.Cut(names.Replace(f.request), " ")
	s.checkFailure(t, f, s.call(t, method, path, names.Replace(f.body)), method, path)
}

func (s *server) checkFailure(t *testing.T, f failure, a answer, method, path string) {
	t.Helper()
	o, source := a.object(), f.source
	if source == "" {
		source = fromAPI
	}
	if a.status != f.status || int(number(o["statusCode"])) != f.status || o["source"] != source ||
		(f.code != "" && o["code"] != f.code) || !strings.Contains(a.message(), f.says) || a.message() == "" {
		t.Errorf("%s %s: got %d %s\nwant %d from %s, code %q, with %q", f.request, f.body, a.status, a.body, f.status, source, f.code, f.says)
		return
	}
	at, err := time.Parse(time.RFC3339Nano, a.text("timestamp"))
	if err != nil || time.Since(at) > time.Minute {
		t.Errorf("%s: timestamp %q", f.request, a.text("timestamp"))
	}
	route, _, _ := strings.Cut(path, "?")
	switch source {
	case fromToolbox: // knows the path below its own root
		if !strings.HasSuffix(route, a.text("path")) || o["method"] != method {
			t.Errorf("%s: path %v, method %v", f.request, o["path"], o["method"])
		}
	default:
		if o["path"] != route || o["error"] != http.StatusText(f.status) {
			t.Errorf("%s: path %v, error %v", f.request, o["path"], o["error"])
		}
	}
	if a.header.Get("Content-Type") == "" || !strings.HasPrefix(a.header.Get("Content-Type"), "application/json") {
		t.Errorf("%s: content type %q", f.request, a.header.Get("Content-Type"))
	}
}

func number(v any) float64 {
	n, _ := v.(float64)
	return n
}

func controlFailures() []failure {
	const id = "00000000-0000-4000-8000-00000000dead"
	return []failure{
		{request: "GET /api/sandbox/" + id, status: 404, says: "not found"},
		{request: "GET /api/sandbox/no-such-name", status: 404, says: "not found"},
		{request: "DELETE /api/sandbox/" + id, status: 404, says: "not found"},
		{request: "GET /api/sandbox/" + id + "/toolbox-proxy-url", status: 404, says: "not found"},
		{request: "GET /api/snapshots/" + id, status: 404, says: "not found"},
		{request: "DELETE /api/snapshots/" + id, status: 404, says: "not found"},
		{request: "GET /api/volumes/by-name/no-such-volume", status: 404, says: "not found"},
		{request: "GET /api/no-such-route", status: 404, says: "Cannot GET"},
		{request: "PATCH /api/sandbox", status: 405, says: "Cannot PATCH"},

		{request: "POST /api/sandbox", body: `{"name":"contract"}`, status: 409, says: "contract"},
		{request: "POST /api/sandbox", body: `{`, status: 400},
		{request: "POST /api/sandbox", body: `[]`, status: 400},
		{request: "POST /api/sandbox", body: `{"cpu":"two"}`, status: 400, says: "cpu"},
		{request: "POST /api/sandbox", body: `{"snapshot":"atoll-small","cpu":2}`, status: 400, says: "snapshot"},
		{request: "POST /api/sandbox", body: `{"snapshot":"atoll-small","buildInfo":{"dockerfileContent":"FROM x\n"}}`, status: 400, says: "snapshot"},
		{request: "POST /api/sandbox", body: `{"autoStopInterval":5,"autoPauseInterval":5}`, status: 400, says: "auto"},
		{request: "POST /api/sandbox", body: `{"snapshot":"no-such-snapshot"}`, status: 404, says: "no-such-snapshot"},
		{request: "POST /api/sandbox", body: `{"networkAllowList":"not-a-network"}`, status: 400, says: "networkAllowList"},
		{request: "POST /api/sandbox", body: `{"env":{"1BAD":"x"}}`, status: 400, says: "1BAD"},
		{request: "POST /api/sandbox", body: `{"name":"a/b"}`, status: 400, says: "name"},

		{request: "GET /api/sandbox?limit=0", status: 400, says: "limit"},
		{request: "GET /api/sandbox?limit=201", status: 400, says: "limit"},
		{request: "GET /api/sandbox?labels=nojson", status: 400, says: "labels"},
		{request: "GET /api/sandbox?cursor=x", status: 400, says: "cursor"},
		{request: "GET /api/sandbox?states=nosuchstate", status: 400, says: "states"},
		{request: "GET /api/snapshots?page=0", status: 400, says: "page"},

		{request: "POST /api/sandbox/SB/recover", status: 400},
		{request: "POST /api/sandbox/SB/resize", body: `{}`, status: 400},
		{request: "POST /api/sandbox/SB/resize", body: `{"cpu":0.1}`, status: 400},
		{request: "POST /api/sandbox/SB/autostop/-1", status: 400},
		{request: "POST /api/sandbox/SB/autostop/soon", status: 400, says: "interval"},
		{request: "PUT /api/sandbox/SB/labels", body: `{}`, status: 400, says: "labels"},
		{request: "POST /api/sandbox/SB/network-settings", body: `{"networkAllowList":"300.0.0.0/8"}`, status: 400, says: "networkAllowList"},

		{request: "DELETE /api/snapshots/atoll-small", status: 403},
		{request: "POST /api/snapshots", body: `{"name":"x"}`, status: 400},
		{request: "POST /api/snapshots", body: `{"name":"atoll-small","imageName":"busybox:1.0"}`, status: 409, says: "atoll-small"},
		{request: "POST /api/snapshots", body: `{"name":"a b","imageName":"busybox:1.0"}`, status: 400, says: "name"},
		{request: "POST /api/snapshots", body: `{"name":"x","imageName":"busybox"}`, status: 400, says: "tag"},
		{request: "POST /api/snapshots", body: `{"name":"x","imageName":"busybox:latest"}`, status: 400, says: "latest"},

		{request: "GET /toolbox/no-such-sandbox/work-dir", status: 404, says: "not found", source: fromProxy},
		{request: "GET /toolbox/SB/internal/anything", status: 403, source: fromProxy},
		{request: "GET /toolbox/SB/files/../x", status: 400, source: fromProxy},
	}
}

// prepareFailures makes what toolboxFailures need in the sandbox.
func (s *server) prepareFailures(t *testing.T, sandbox string) {
	t.Helper()
	box := "/toolbox/" + sandbox
	s.execute(t, sandbox, "mkdir -p full/dir && echo a > full/a && echo b > full/b && mkdir -p secret && chmod 700 secret && "+
		"git init -q -b main r && cd r && echo 1 > f && git add f && git -c user.name=a -c user.email=a@b commit -qm one && "+
		"git checkout -qb side && echo 2 > f && git -c user.name=a -c user.email=a@b commit -qam two && git checkout -q main && echo 3 > f")
	for _, r := range []struct {
		path, body string
		status     int
	}{
		{"/process/session", `{"sessionId":"held"}`, 201},
		{"/process/pty", `{"id":"held"}`, 201},
	} {
		if a := s.call(t, http.MethodPost, box+r.path, r.body); a.status != r.status {
			t.Fatalf("POST %s: %d %s", r.path, a.status, a.body)
		}
	}
}

// execute runs a command that has to succeed.
func (s *server) execute(t *testing.T, sandbox, command string) string {
	t.Helper()
	a := s.call(t, http.MethodPost, "/toolbox/"+sandbox+"/process/execute", `{"command":`+quote(command)+`}`)
	if a.status != http.StatusOK || number(a.object()["exitCode"]) != 0 {
		t.Fatalf("%s: %d %s", command, a.status, a.body)
	}
	return a.text("result")
}

func toolboxFailures() []failure {
	all := []failure{
		{request: "GET /no-such-operation", status: 404, code: "NOT_FOUND"},

		{request: "POST /process/execute", body: `{"command":""}`, status: 400, code: "BAD_REQUEST", says: "command"},
		{request: "POST /process/execute", body: `{"command":"true","envs":{"1BAD":"x"}}`, status: 400, code: "BAD_REQUEST", says: "1BAD"},
		{request: "POST /process/execute", body: `{"command":"sleep 9","timeout":1}`, status: 408, code: "PROCESS_EXECUTION_TIMEOUT"},
		{request: "POST /process/execute", body: `{"command":7}`, status: 400, code: "INVALID_REQUEST_BODY", says: "command"},
		{request: "POST /process/execute", body: `not json`, status: 400, code: "INVALID_REQUEST_BODY"},
		{request: "POST /process/execute", status: 400, code: "INVALID_REQUEST_BODY"},
		{request: "POST /process/code-run", body: `{"code":"","language":"python"}`, status: 400},
		{request: "POST /process/code-run", body: `{"code":"x","language":"cobol"}`, status: 400, says: "cobol"},
		{request: "POST /process/code-run", body: `{"code":"import time\ntime.sleep(9)","language":"python","timeout":1}`, status: 408, code: "PROCESS_EXECUTION_TIMEOUT"},

		{request: "POST /process/session", body: `{"sessionId":"held"}`, status: 409, code: "CONFLICT", says: "held"},
		{request: "POST /process/session", body: `{"sessionId":"entrypoint"}`, status: 400},
		{request: "POST /process/session", body: `{}`, status: 400, says: "sessionId"},
		{request: "GET /process/session/none", status: 404, code: "NOT_FOUND", says: "none"},
		{request: "DELETE /process/session/none", status: 404, code: "NOT_FOUND"},
		{request: "POST /process/session/none/exec", body: `{"command":"true"}`, status: 404},
		{request: "POST /process/session/held/exec", body: `{"command":""}`, status: 400},
		{request: "GET /process/session/held/command/none", status: 404},
		{request: "GET /process/session/held/command/none/logs", status: 404},
		{request: "POST /process/session/held/command/none/input", body: `{"data":"x"}`, status: 404},
		{request: "GET /process/session/entrypoint", status: 404},

		{request: "POST /process/pty", body: `{"id":"held"}`, status: 409, code: "CONFLICT", says: "held"},
		{request: "POST /process/pty", body: `{"id":"x","cols":1001}`, status: 400, says: "cols"},
		{request: "GET /process/pty/none", status: 404},
		{request: "DELETE /process/pty/none", status: 404},
		{request: "POST /process/pty/none/resize", body: `{"cols":10,"rows":10}`, status: 410},
		{request: "POST /process/pty/held/resize", body: `{"cols":0,"rows":10}`, status: 400, says: "cols"},
		{request: "GET /process/pty/create-connect?id=held", status: 400},
		{request: "GET /process/interpreter/execute", status: 400},
		{request: "DELETE /process/interpreter/context/default", status: 400},
		{request: "DELETE /process/interpreter/context/none", status: 404},

		{request: "GET /files?path=none", status: 404, code: "FILE_NOT_FOUND", says: "not found"},
		{request: "GET /files/info?path=none", status: 404, code: "FILE_NOT_FOUND", says: "not found"},
		{request: "GET /files/info", status: 400, says: "path"},
		{request: "GET /files/download?path=none", status: 404, code: "FILE_NOT_FOUND"},
		{request: "GET /files/download?path=full", status: 400},
		{request: "DELETE /files?path=full", status: 400},
		{request: "DELETE /files?path=none", status: 404, code: "FILE_NOT_FOUND"},
		{request: "POST /files/move?source=none&destination=x", status: 404, code: "FILE_NOT_FOUND"},
		{request: "POST /files/move?source=full/a&destination=full/b", status: 409, code: "CONFLICT"},
		{request: "POST /files/folder?path=full/a&mode=755", status: 400},
		{request: "POST /files/folder?path=x&mode=999", status: 400, says: "mode"},
		{request: "POST /files/permissions?path=none&mode=600", status: 404, code: "FILE_NOT_FOUND"},
		{request: "POST /files/permissions?path=full/a&owner=nobody-of-that-name", status: 400},
		{request: "POST /files/replace", body: `{"files":[],"pattern":"a","newValue":"b"}`, status: 400},
		{request: "POST /files/upload-v2?path=full", body: `x`, status: 400},
		{request: "POST /files/bulk-download", body: `{"paths":[]}`, status: 400},

		{request: "GET /git/status?path=full", status: 404, code: "GIT_REPO_NOT_FOUND"},
		{request: "GET /git/branches?path=none", status: 404, code: "GIT_REPO_NOT_FOUND"},
		{request: "POST /git/branches", body: `{"path":"r","name":"side"}`, status: 409, code: "GIT_BRANCH_EXISTS"},
		{request: "DELETE /git/branches", body: `{"path":"r","name":"none"}`, status: 404, code: "GIT_BRANCH_NOT_FOUND"},
		{request: "POST /git/checkout", body: `{"path":"r","branch":"none"}`, status: 404, code: "GIT_BRANCH_NOT_FOUND"},
		{request: "POST /git/checkout", body: `{"path":"r","branch":"side"}`, status: 409, code: "GIT_DIRTY_WORKTREE"},
		{request: "POST /git/clone", body: `{"url":"file:///no/such/repo.git","path":"c"}`, status: 404, code: "GIT_REPO_NOT_FOUND"},
		{request: "POST /git/clone", body: `{"url":"http://127.0.0.1:1/x.git","path":"c"}`, status: 500, code: "GIT_TRANSPORT_FAILED"},
		{request: "POST /git/commit", body: `{"path":"r"}`, status: 400},
		{request: "POST /git/add", body: `{"path":"r","files":["none"]}`, status: 400},
	}
	for i, f := range all {
		all[i].request = strings.Replace(f.request, " /", " /toolbox/SB/", 1)
		all[i].source = fromToolbox
	}
	return all
}

func (s *server) unauthenticated(t *testing.T, sandbox string) {
	for _, path := range []string{"/api/sandbox", "/toolbox/" + sandbox + "/work-dir"} {
		source := fromAPI
		for _, key := range []string{"", "Bearer wrong"} {
			a := s.call(t, http.MethodGet, path, "", "Authorization", key)
			s.checkFailure(t, failure{request: "GET " + path + " with key " + key, status: 401, source: source}, a, http.MethodGet, path)
		}
	}
}

// stopped is about a sandbox that is not started, and one that is gone.
func (s *server) stopped(t *testing.T) {
	id := s.create(t, `{"name":"resting"}`)
	names := strings.NewReplacer("SB", id)
	if a := s.call(t, http.MethodPost, "/api/sandbox/"+id+"/stop", ""); a.status != http.StatusOK {
		t.Fatalf("stop: %d %s", a.status, a.body)
	}
	until(t, "the sandbox is stopped", func() bool { return s.call(t, http.MethodGet, "/api/sandbox/"+id, "").text("state") == "stopped" })
	for _, f := range []failure{
		{request: "POST /api/sandbox/SB/stop", status: 400, says: "stopped"},
		{request: "POST /toolbox/SB/process/execute", body: `{"command":"true"}`, status: 409, says: "stopped", source: fromProxy},
	} {
		s.fails(t, f, names)
	}
	if a := s.call(t, http.MethodDelete, "/api/sandbox/"+id, ""); a.status != http.StatusOK || a.text("id") != id {
		t.Fatalf("delete: %d %s", a.status, a.body)
	}
	until(t, "the sandbox is gone", func() bool { return s.call(t, http.MethodGet, "/api/sandbox/"+id, "").status == http.StatusNotFound })
	s.fails(t, failure{request: "GET /toolbox/SB/work-dir", status: 404, says: "not found", source: fromProxy}, names)
}
