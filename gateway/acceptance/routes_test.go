package acceptance

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// presence is what a test expects of an operation.
type presence int

const (
	built presence = iota
	soon           // may answer 501 yet: then it is reported as missing
	later          // answers 501, on purpose
)

// route is one operation that published clients call.
type route struct {
	method, path string
	presence     presence
}

// controlRoutes are the operations of the control API that an SDK, the command
// line or the MCP server of the contract calls, deprecated ones included.
func controlRoutes() []route {
	return []route{
		{"GET", "/config", built},
		{"GET", "/sandbox", built},
		{"POST", "/sandbox", built},
		{"GET", "/sandbox/{sandboxIdOrName}", built},
		{"DELETE", "/sandbox/{sandboxIdOrName}", built},
		{"POST", "/sandbox/{sandboxIdOrName}/recover", built},
		{"POST", "/sandbox/{sandboxIdOrName}/start", built},
		{"POST", "/sandbox/{sandboxIdOrName}/stop", built},
		{"POST", "/sandbox/{sandboxIdOrName}/pause", later},
		{"POST", "/sandbox/{sandboxIdOrName}/resize", built},
		{"PUT", "/sandbox/{sandboxIdOrName}/labels", built},
		{"POST", "/sandbox/{sandboxIdOrName}/snapshot", built},
		{"POST", "/sandbox/{sandboxIdOrName}/fork", built},
		{"GET", "/sandbox/{sandboxId}/signing-key", soon},
		{"POST", "/sandbox/{sandboxId}/signing-key/rotate", soon},
		{"POST", "/sandbox/{sandboxId}/last-activity", built},
		{"POST", "/sandbox/{sandboxIdOrName}/autostop/{interval}", built},
		{"POST", "/sandbox/{sandboxIdOrName}/autopause/{interval}", built},
		{"POST", "/sandbox/{sandboxIdOrName}/ttl/{ttlMinutes}", built},
		{"POST", "/sandbox/{sandboxIdOrName}/autoarchive/{interval}", built},
		{"POST", "/sandbox/{sandboxIdOrName}/autodelete/{interval}", built},
		{"POST", "/sandbox/{sandboxIdOrName}/network-settings", built},
		{"PUT", "/sandbox/{sandboxIdOrName}/secrets", soon},
		{"POST", "/sandbox/{sandboxIdOrName}/archive", later},
		{"GET", "/sandbox/{sandboxIdOrName}/ports/{port}/preview-url", soon},
		{"GET", "/sandbox/{sandboxIdOrName}/ports/{port}/signed-preview-url", soon},
		{"POST", "/sandbox/{sandboxIdOrName}/ports/{port}/signed-preview-url/{token}/expire", soon},
		{"GET", "/sandbox/{sandboxIdOrName}/build-logs", built},
		{"GET", "/sandbox/{sandboxIdOrName}/build-logs-url", built},
		{"POST", "/sandbox/{sandboxIdOrName}/ssh-access", soon},
		{"DELETE", "/sandbox/{sandboxIdOrName}/ssh-access", soon},
		{"GET", "/sandbox/ssh-access/validate", soon},
		{"GET", "/sandbox/{sandboxId}/toolbox-proxy-url", built},
		{"GET", "/sandbox/{sandboxId}/telemetry/metrics", soon},
		{"POST", "/snapshots", built},
		{"GET", "/snapshots", built},
		{"GET", "/snapshots/{id}", built},
		{"DELETE", "/snapshots/{id}", built},
		{"GET", "/snapshots/{id}/build-logs", built},
		{"GET", "/snapshots/{id}/build-logs-url", built},
		{"POST", "/snapshots/{id}/activate", soon},
		{"GET", "/volumes", built},
		{"POST", "/volumes", later},
		{"GET", "/volumes/{volumeId}", built},
		{"DELETE", "/volumes/{volumeId}", later},
		{"GET", "/volumes/by-name/{name}", built},
		{"GET", "/object-storage/push-access", later},
		{"GET", "/docker-registry/registry-push-access", later},
		{"GET", "/warm-pools", soon},
		{"POST", "/warm-pools", soon},
		{"PATCH", "/warm-pools/{id}", soon},
		{"DELETE", "/warm-pools/{id}", soon},
		{"POST", "/secret", soon},
		{"GET", "/secret/paginated", soon},
		{"GET", "/secret/{secretId}", soon},
		{"PATCH", "/secret/{secretId}", soon},
		{"DELETE", "/secret/{secretId}", soon},
		{"POST", "/organizations", soon},
		{"GET", "/organizations", built},
		{"GET", "/organizations/{organizationId}", built},
		{"DELETE", "/organizations/{organizationId}", soon},
		{"GET", "/organizations/{organizationId}/users", soon},
		{"GET", "/shared-regions", built},

		// Called by older SDKs and by the suite of the reference.
		{"GET", "/sandbox/paginated", built},
	}
}

// toolboxRoutes are all operations of the toolbox, below them those that no
// document names but clients use.
func toolboxRoutes() []route {
	return []route{
		{"GET", "/user-home-dir", built},
		{"GET", "/version", built},
		{"GET", "/work-dir", built},
		{"POST", "/env", built},
		{"POST", "/init", built},
		{"GET", "/system/metrics", built},
		{"POST", "/process/code-run", built},
		{"POST", "/process/execute", built},
		{"GET", "/process/pty", built},
		{"POST", "/process/pty", built},
		{"GET", "/process/pty/{sessionId}", built},
		{"DELETE", "/process/pty/{sessionId}", built},
		{"GET", "/process/pty/{sessionId}/connect", built},
		{"POST", "/process/pty/{sessionId}/resize", built},
		{"GET", "/process/session", built},
		{"POST", "/process/session", built},
		{"GET", "/process/session/entrypoint", built},
		{"GET", "/process/session/entrypoint/logs", built},
		{"GET", "/process/session/{sessionId}", built},
		{"DELETE", "/process/session/{sessionId}", built},
		{"GET", "/process/session/{sessionId}/command/{commandId}", built},
		{"POST", "/process/session/{sessionId}/command/{commandId}/input", built},
		{"GET", "/process/session/{sessionId}/command/{commandId}/logs", built},
		{"POST", "/process/session/{sessionId}/exec", built},
		{"GET", "/process/interpreter/context", built},
		{"POST", "/process/interpreter/context", built},
		{"DELETE", "/process/interpreter/context/{id}", built},
		{"GET", "/process/interpreter/execute", built},
		{"GET", "/files", built},
		{"DELETE", "/files", built},
		{"POST", "/files/bulk-download", built},
		{"POST", "/files/bulk-upload", built},
		{"GET", "/files/download", built},
		{"GET", "/files/find", built},
		{"POST", "/files/folder", built},
		{"GET", "/files/info", built},
		{"POST", "/files/move", built},
		{"POST", "/files/permissions", built},
		{"POST", "/files/replace", built},
		{"GET", "/files/search", built},
		{"POST", "/files/upload-v2", built},
		{"POST", "/git/add", built},
		{"GET", "/git/branches", built},
		{"POST", "/git/branches", built},
		{"DELETE", "/git/branches", built},
		{"POST", "/git/checkout", built},
		{"POST", "/git/clone", built},
		{"POST", "/git/commit", built},
		{"GET", "/git/config", built},
		{"POST", "/git/config", built},
		{"POST", "/git/config/user", built},
		{"POST", "/git/credentials", built},
		{"GET", "/git/history", built},
		{"POST", "/git/init", built},
		{"POST", "/git/pull", built},
		{"POST", "/git/push", built},
		{"GET", "/git/remotes", built},
		{"POST", "/git/remotes", built},
		{"POST", "/git/reset", built},
		{"POST", "/git/restore", built},
		{"GET", "/git/status", built},
		{"POST", "/lsp/completions", soon},
		{"POST", "/lsp/did-close", soon},
		{"POST", "/lsp/did-open", soon},
		{"GET", "/lsp/document-symbols", soon},
		{"POST", "/lsp/start", soon},
		{"POST", "/lsp/stop", soon},
		{"GET", "/lsp/workspacesymbols", soon},
		{"GET", "/port", built},
		{"GET", "/port/{port}/in-use", built},
		{"POST", "/computeruse/a11y/find", soon},
		{"POST", "/computeruse/a11y/node/focus", soon},
		{"POST", "/computeruse/a11y/node/invoke", soon},
		{"POST", "/computeruse/a11y/node/value", soon},
		{"GET", "/computeruse/a11y/tree", soon},
		{"GET", "/computeruse/display/info", soon},
		{"GET", "/computeruse/display/windows", soon},
		{"POST", "/computeruse/keyboard/hotkey", soon},
		{"POST", "/computeruse/keyboard/key", soon},
		{"POST", "/computeruse/keyboard/type", soon},
		{"POST", "/computeruse/mouse/click", soon},
		{"POST", "/computeruse/mouse/drag", soon},
		{"POST", "/computeruse/mouse/move", soon},
		{"GET", "/computeruse/mouse/position", soon},
		{"POST", "/computeruse/mouse/scroll", soon},
		{"GET", "/computeruse/process-status", soon},
		{"GET", "/computeruse/process/{processName}/errors", soon},
		{"GET", "/computeruse/process/{processName}/logs", soon},
		{"POST", "/computeruse/process/{processName}/restart", soon},
		{"GET", "/computeruse/process/{processName}/status", soon},
		{"GET", "/computeruse/recordings", soon},
		{"POST", "/computeruse/recordings/start", soon},
		{"POST", "/computeruse/recordings/stop", soon},
		{"GET", "/computeruse/recordings/{id}", soon},
		{"DELETE", "/computeruse/recordings/{id}", soon},
		{"GET", "/computeruse/recordings/{id}/download", soon},
		{"GET", "/computeruse/screenshot", soon},
		{"GET", "/computeruse/screenshot/compressed", soon},
		{"GET", "/computeruse/screenshot/region", soon},
		{"GET", "/computeruse/screenshot/region/compressed", soon},
		{"POST", "/computeruse/start", soon},
		{"GET", "/computeruse/status", soon},
		{"POST", "/computeruse/stop", soon},

		{"GET", "/process/pty/create-connect", built},
		{"POST", "/files/upload", built},
		{"GET", "/proxy/{port}/", built},
	}
}

var param = regexp.MustCompile(`\{[^}]+\}`)

// routes asks for every operation with a body that none takes.
func (s *server) routes(t *testing.T, sandbox string) {
	if got := len(controlRoutes()); got != 64 {
		t.Errorf("%d control operations, want 64", got)
	}
	if got := len(toolboxRoutes()); got != 106 {
		t.Errorf("%d toolbox operations, want 106", got)
	}
	for _, r := range controlRoutes() {
		s.route(t, r, "/api"+param.ReplaceAllString(r.path, "00000000-0000-4000-8000-00000000dead"))
	}
	for _, r := range toolboxRoutes() {
		s.route(t, r, "/toolbox/"+sandbox+param.ReplaceAllString(r.path, "9"))
	}
	s.route(t, route{"GET", "/toolbox/{idOrName}/toolbox/work-dir", built}, "/api/toolbox/"+sandbox+"/toolbox/work-dir")
}

func (s *server) route(t *testing.T, r route, path string) {
	t.Helper()
	body := ""
	if r.method != http.MethodGet {
		body = "[]"
	}
	a := s.call(t, r.method, path, body)
	message := a.message()
	unknown := a.status == http.StatusNotFound && (strings.HasPrefix(message, "Cannot ") || strings.HasPrefix(message, "there is no operation"))
	if unknown || a.status == http.StatusMethodNotAllowed {
		t.Errorf("%s %s: no such route: %d %s", r.method, r.path, a.status, message)
		return
	}
	missing := a.status == http.StatusNotImplemented
	switch {
	case missing && r.presence == built:
		t.Errorf("%s %s: answers 501: %s", r.method, r.path, message)
	case missing && r.presence == soon:
		t.Logf("%s %s is missing", r.method, r.path)
	case !missing && r.presence == later:
		t.Errorf("%s %s: answers %d %s: it is there now, so change its row", r.method, r.path, a.status, message)
	}
	if a.status >= 500 && !missing {
		t.Logf("%s %s: %d %s", r.method, r.path, a.status, message)
	}
}
