package auth

import (
	"net/http/httptest"
	"slices"
	"testing"
)

func TestToolboxTool(t *testing.T) {
	for _, tt := range []struct {
		method, path, tool, also string
		changes                  bool
	}{
		{"POST", "/toolbox/box/process/execute", "POST /toolbox/process/execute", "sandbox_exec", true},
		{"POST", "/api/toolbox/box/toolbox/process/execute", "POST /toolbox/process/execute", "sandbox_exec", true},
		{"GET", "/toolbox/box/files/download", "GET /toolbox/files/download", "sandbox_read", false},
		{"POST", "/toolbox/box/files/upload", "POST /toolbox/files/upload", "sandbox_write", true},
		{"DELETE", "/toolbox/box/files", "DELETE /toolbox/files", "sandbox_fs", true},
		{"POST", "/toolbox/box/git/clone", "POST /toolbox/git/clone", "sandbox_exec", true},
		{"GET", "/toolbox/box/port/3000/in-use", "GET /toolbox/port/3000/in-use", "sandbox_expose", false},
		{"GET", "/toolbox/box/proxy/3000/", "GET /toolbox/proxy/3000", "sandbox_expose", false},
		// Roundabout ways are judged by where they lead.
		{"POST", "/toolbox/box/files/../process/execute", "POST /toolbox/process/execute", "sandbox_exec", true},
		{"POST", "/toolbox/box//process/execute", "POST /toolbox/process/execute", "sandbox_exec", true},
		{"POST", "/toolbox/box/filesystem", "POST /toolbox/filesystem", "sandbox_exec", true},
	} {
		r := httptest.NewRequest(tt.method, "http://x/", nil)
		r.URL.Path = tt.path
		got := toolboxTool(r)
		if got.Tool != tt.tool || got.Changes != tt.changes || !slices.Contains(got.Also, tt.also) {
			t.Errorf("%s %s: got %+v", tt.method, tt.path, got)
		}
	}
}
