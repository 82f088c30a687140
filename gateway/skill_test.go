package gateway_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/atoll-sh/atoll/gateway/gatewaytest"
)

// TestSkillReference keeps the list of operations in the skill about the API
// what the server's own documents say. -update writes it.
func TestSkillReference(t *testing.T) {
	s := gatewaytest.Serve(t, gatewaytest.New(t))
	var b strings.Builder
	b.WriteString("# Operations\n\nGenerated from the server's own documents. Paths in braces are parameters. " +
		"`GET /api/openapi.json` has every field.\n\n## Control, below `/api`\n\n")
	operations(t, &b, s.URL()+"/api/openapi.json", true)
	b.WriteString("\n## Inside a sandbox, below `/toolbox/{sandboxId}`\n\n")
	operations(t, &b, s.URL()+"/api/toolbox-openapi.json", false)
	golden(t, filepath.Join("..", "skills", "atoll-sdk", "references", "operations.md"), b.String())
}

// operations lists a document's operations that are not deprecated, by path.
func operations(t *testing.T, b *strings.Builder, url string, summaries bool) {
	t.Helper()
	_, body := request(t, "GET", url, gatewaytest.AdminKey, "")
	var doc struct {
		Paths map[string]map[string]struct {
			Summary    string
			Deprecated bool
		}
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	var lines []string
	for path, methods := range doc.Paths {
		for method, o := range methods {
			line := fmt.Sprintf("- `%s` %s", path, strings.ToUpper(method))
			if summaries && o.Summary != "" && !strings.Contains(o.Summary, "/") {
				line += ": " + o.Summary
			}
			if !o.Deprecated && !strings.Contains(path, "/admin/") {
				lines = append(lines, line)
			}
		}
	}
	slices.Sort(lines)
	b.WriteString(strings.Join(lines, "\n") + "\n")
}
