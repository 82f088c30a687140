package acceptance

import (
	"encoding/json"
	"testing"

	"github.com/atoll-sh/atoll/gateway/gatewaytest"
)

// Two hundred calls, four at a time, without a single error.
func TestInspectorLoad(t *testing.T) {
	w := newWorld(t)
	for _, era := range []string{"legacy", "modern"} {
		t.Run(era, func(t *testing.T) {
			w := *w
			w.t = t
			out, all, code := w.inspector(w.url+"/mcp", "--transport", "http", "--protocol-era", era,
				"--header", "Authorization: Bearer "+gatewaytest.AdminKey, "--stored-auth-only",
				"--method", "tools/call", "--tool-name", "sandbox_list", "--load", "--load-requests", "200", "--load-concurrency", "4", "--format", "json")
			if code != 0 {
				t.Fatalf("exit %d\n%s", code, all)
			}
			var got struct {
				Result struct{ Requests, OK, ToolErrors, Errors int }
			}
			if err := json.Unmarshal([]byte(out), &got); err != nil || got.Result.Requests != 200 || got.Result.OK != 200 || got.Result.ToolErrors != 0 || got.Result.Errors != 0 {
				t.Errorf("want 200 calls and no error: %v\n%s", err, out)
			}
			t.Logf("%s", out)
		})
	}
}
