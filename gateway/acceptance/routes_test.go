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
		{"GET", "/sandbox/{sandboxId}/signing-key", built},
		{"POST", "/sandbox/{sandboxId}/signing-key/rotate", built},
		{"POST", "/sandbox/{sandboxId}/last-activity", built},
		{"POST", "/sandbox/{sandboxIdOrName}/autostop/{interval}", built},
		{"POST", "/sandbox/{sandboxIdOrName}/autopause/{interval}", built},
		{"POST", "/sandbox/{sandboxIdOrName}/ttl/{ttlMinutes}", built},
		{"POST", "/sandbox/{sandboxIdOrName}/autoarchive/{interval}", built},
		{"POST", "/sandbox/{sandboxIdOrName}/autodelete/{interval}", built},
		{"POST", "/sandbox/{sandboxIdOrName}/network-settings", built},
		{"PUT", "/sandbox/{sandboxIdOrName}/secrets", built},
		{"POST", "/sandbox/{sandboxIdOrName}/archive", later},
		{"GET", "/sandbox/{sandboxIdOrName}/ports/{port}/preview-url", built},
		{"GET", "/sandbox/{sandboxIdOrName}/ports/{port}/signed-preview-url", built},
		{"POST", "/sandbox/{sandboxIdOrName}/ports/{port}/signed-preview-url/{token}/expire", built},
		{"GET", "/sandbox/{sandboxIdOrName}/build-logs", built},
		{"GET", "/sandbox/{sandboxIdOrName}/build-logs-url", built},
		{"POST", "/sandbox/{sandboxIdOrName}/ssh-access", built},
		{"DELETE", "/sandbox/{sandboxIdOrName}/ssh-access", built},
		{"GET", "/sandbox/ssh-access/validate", built},
		{"GET", "/sandbox/{sandboxId}/toolbox-proxy-url", built},
		{"GET", "/sandbox/{sandboxId}/telemetry/metrics", built},
		{"POST", "/snapshots", built},
		{"GET", "/snapshots", built},
		{"GET", "/snapshots/{id}", built},
		{"DELETE", "/snapshots/{id}", built},
		{"GET", "/snapshots/{id}/build-logs", built},
		{"GET", "/snapshots/{id}/build-logs-url", built},
		{"POST", "/snapshots/{id}/activate", built},
		{"GET", "/volumes", built},
		{"POST", "/volumes", later},
		{"GET", "/volumes/{volumeId}", built},
		{"DELETE", "/volumes/{volumeId}", later},
		{"GET", "/volumes/by-name/{name}", built},
		{"GET", "/object-storage/push-access", later},
		{"GET", "/docker-registry/registry-push-access", later},
		{"GET", "/warm-pools", built},
		{"POST", "/warm-pools", built},
		{"PATCH", "/warm-pools/{id}", built},
		{"DELETE", "/warm-pools/{id}", built},
		{"POST", "/secret", built},
		{"GET", "/secret/paginated", built},
		{"GET", "/secret/{secretId}", built},
		{"PATCH", "/secret/{secretId}", built},
		{"DELETE", "/secret/{secretId}", built},
		{"POST", "/organizations", built},
		{"GET", "/organizations", built},
		{"GET", "/organizations/{organizationId}", built},
		{"DELETE", "/organizations/{organizationId}", built},
		{"GET", "/organizations/{organizationId}/users", built},
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
		{"POST", "/lsp/completions", built},
		{"POST", "/lsp/did-close", built},
		{"POST", "/lsp/did-open", built},
		{"GET", "/lsp/document-symbols", built},
		{"POST", "/lsp/start", built},
		{"POST", "/lsp/stop", built},
		{"GET", "/lsp/workspacesymbols", built},
		{"GET", "/port", built},
		{"GET", "/port/{port}/in-use", built},
		{"POST", "/computeruse/a11y/find", built},
		{"POST", "/computeruse/a11y/node/focus", built},
		{"POST", "/computeruse/a11y/node/invoke", built},
		{"POST", "/computeruse/a11y/node/value", built},
		{"GET", "/computeruse/a11y/tree", built},
		{"GET", "/computeruse/display/info", built},
		{"GET", "/computeruse/display/windows", built},
		{"POST", "/computeruse/keyboard/hotkey", built},
		{"POST", "/computeruse/keyboard/key", built},
		{"POST", "/computeruse/keyboard/type", built},
		{"POST", "/computeruse/mouse/click", built},
		{"POST", "/computeruse/mouse/drag", built},
		{"POST", "/computeruse/mouse/move", built},
		{"GET", "/computeruse/mouse/position", built},
		{"POST", "/computeruse/mouse/scroll", built},
		{"GET", "/computeruse/process-status", built},
		{"GET", "/computeruse/process/{processName}/errors", built},
		{"GET", "/computeruse/process/{processName}/logs", built},
		{"POST", "/computeruse/process/{processName}/restart", built},
		{"GET", "/computeruse/process/{processName}/status", built},
		{"GET", "/computeruse/recordings", built},
		{"POST", "/computeruse/recordings/start", built},
		{"POST", "/computeruse/recordings/stop", built},
		{"GET", "/computeruse/recordings/{id}", built},
		{"DELETE", "/computeruse/recordings/{id}", built},
		{"GET", "/computeruse/recordings/{id}/download", built},
		{"GET", "/computeruse/screenshot", built},
		{"GET", "/computeruse/screenshot/compressed", built},
		{"GET", "/computeruse/screenshot/region", built},
		{"GET", "/computeruse/screenshot/region/compressed", built},
		{"POST", "/computeruse/start", built},
		{"GET", "/computeruse/status", built},
		{"POST", "/computeruse/stop", built},

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
	case !missing && r.presence == later:
		t.Errorf("%s %s: answers %d %s: it is there now, so change its row", r.method, r.path, a.status, message)
	}
	if a.status >= 500 && !missing {
		t.Logf("%s %s: %d %s", r.method, r.path, a.status, message)
	}
}
