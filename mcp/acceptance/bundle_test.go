package acceptance

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/atoll-sh/atoll/engine/enginetest/published"
	"github.com/atoll-sh/atoll/skills"
)

// validators are the stores' own tools.
var validators = []string{"@anthropic-ai/mcpb@2.1.2", "skills-ref@0.1.5", "@google/gemini-cli@0.61.0"}

// TestBundles lets the vendors' tools judge what atoll-bundle writes.
func TestBundles(t *testing.T) {
	npm := published.NPM(t, validators...)
	claude := published.NPM(t, agents...)
	node := filepath.Dir(published.Node(t))
	out := filepath.Join(t.TempDir(), "bundles")
	atoll := build(t, "atoll")
	cmd := exec.CommandContext(t.Context(), build(t, "atoll-bundle"), "-out", out, "-binary", atoll, "-license", "../../LICENSE", "-version", "v1.2.3-4-gabc")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	known, err := skills.All()
	if err != nil {
		t.Fatal(err)
	}
	unpacked := t.TempDir()
	checks := map[string][]string{
		"claude marketplace": {claude, "claude", "plugin", "validate", out},
		"claude plugin":      {claude, "claude", "plugin", "validate", filepath.Join(out, "claude")},
		"gemini extension":   {npm, "gemini", "extensions", "validate", filepath.Join(out, "gemini")},
		"mcpb manifest":      {npm, "mcpb", "validate", filepath.Join(out, "mcpb", "manifest.json")},
		"mcpb bundle":        {npm, "mcpb", "unpack", filepath.Join(out, "atoll.mcpb"), unpacked},
	}
	for _, s := range known {
		checks["skill "+s.Name] = []string{npm, "skills-ref", "validate", filepath.Join(out, "claude", "skills", s.Name)}
	}
	for name, c := range checks {
		t.Run(name, func(t *testing.T) {
			tool := exec.CommandContext(t.Context(), filepath.Join(c[0], "node_modules", ".bin", c[1]), c[2:]...)
			tool.Dir = t.TempDir()
			tool.Env = []string{"HOME=" + tool.Dir, "PATH=" + node + ":" + os.Getenv("PATH"), "DISABLE_AUTOUPDATER=1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1"}
			text, err := tool.CombinedOutput()
			if err != nil || strings.Contains(string(text), "⚠") {
				t.Errorf("%v\n%s", err, text)
			}
		})
	}
	if text, err := exec.CommandContext(t.Context(), filepath.Join(unpacked, "server", "atoll"), "version").CombinedOutput(); err != nil {
		t.Errorf("the bundled program: %v\n%s", err, text)
	}
	var manifest map[string]any
	text, err := os.ReadFile(filepath.Join(out, "server.json"))
	if err != nil || json.Unmarshal(text, &manifest) != nil || manifest["version"] != "1.2.3" {
		t.Errorf("server.json: %v\n%s", err, text)
	}
	t.Run("registry manifest", func(t *testing.T) {
		if !*all {
			t.Skip("the registry takes a minute to build: -all")
		}
		validate := startRegistry(t)
		if valid, verdict := validate(manifest); !valid {
			t.Errorf("%s", verdict)
		}
		manifest["version"] = "^1.2"
		if valid, verdict := validate(manifest); valid {
			t.Errorf("a version that is a range is valid: %s", verdict)
		}
	})
	if !slices.ContainsFunc(known, func(s skills.Skill) bool { return s.Name == "atoll-sandbox" }) {
		t.Error("the bundles lack the main skill")
	}
}
