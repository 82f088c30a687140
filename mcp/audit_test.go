package mcp

import (
	"context"
	"strconv"
	"sync"
	"testing"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/mcp/mcptest"
	"github.com/atoll-sh/atoll/mcp/tools"
)

// Every call leaves one record of who, what, where, how it ended and how long
// it took; what was refused leaves one too.
func TestEveryCallIsAudited(t *testing.T) {
	var mu sync.Mutex
	var trail []engine.AuditEntry
	b := mcptest.New(t)
	_, web := open(t, tools.New(b.Services(), tools.Options{}).Tools(), Options{Audit: func(_ context.Context, e engine.AuditEntry) {
		mu.Lock()
		defer mu.Unlock()
		trail = append(trail, e)
	}})
	a := newAgent(t, web.URL+"/mcp", "org", modern)
	for _, c := range []struct {
		tool   string
		args   map[string]any
		action string
		status int
	}{
		{"sandbox_create", map[string]any{"name": "box"}, "create", 200},
		{"sandbox_exec", map[string]any{"id": "box", "command": "sleep 0.02"}, "update", 200},
		{"sandbox_write", map[string]any{"id": "box", "path": "x", "content": "y"}, "update", 200},
		{"sandbox_read", map[string]any{"id": "box", "path": "x"}, "read", 200},
		{"sandbox_read", map[string]any{"id": "box", "path": "absent"}, "read", 400},
		{"sandbox_read", map[string]any{"id": "box"}, "read", 400},
		{"sandbox_control", map[string]any{"id": "box", "action": "stop"}, "stop", 200},
		{"sandbox_delete", map[string]any{"id": "nowhere"}, "delete", 400},
		{"sandbox_delete", map[string]any{"id": "box"}, "delete", 200},
	} {
		got := a.call(c.tool, c.args, nil)
		mu.Lock()
		all := trail
		trail = nil
		mu.Unlock()
		if len(all) != 1 {
			t.Fatalf("%s: %d records: %+v (%s)", c.tool, len(all), all, got.text())
		}
		e := all[0]
		ms, err := strconv.Atoi(e.Metadata["ms"])
		if e.Action != c.action || e.Status != c.status || e.OrganizationID != "org" || e.Metadata["tool"] != c.tool || err != nil || ms < 0 || e.TargetType != "sandbox" {
			t.Errorf("%s %v: got %+v", c.tool, c.args, e)
		}
		if c.tool == "sandbox_exec" && ms < 20 {
			t.Errorf("a call of 20 ms is said to have taken %d", ms)
		}
		if e.TargetID == "" {
			t.Errorf("%s %v: the record is about nothing", c.tool, c.args)
		}
		if (c.status == 400) != (e.Error != "") {
			t.Errorf("%s: error %q with status %d", c.tool, e.Error, e.Status)
		}
	}
}
