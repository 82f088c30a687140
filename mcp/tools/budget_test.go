package tools_test

import (
	"testing"

	"github.com/tiktoken-go/tokenizer"

	"github.com/atoll-sh/atoll/mcp/tools"
)

// tokens counts as models of the o200k vocabulary do.
func tokens(t *testing.T, text string) int {
	t.Helper()
	codec, err := tokenizer.Get(tokenizer.O200kBase)
	if err != nil {
		t.Fatal(err)
	}
	n, err := codec.Count(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestBudget keeps the tools cheap: every agent pays for them in every
// conversation. What counts is what models are shown: name, description and
// schema of the arguments.
func TestBudget(t *testing.T) {
	bySet, all := map[string]int{}, 0
	for _, tool := range allTools(t) {
		if tool.Title == "" || tool.Set == "" {
			t.Errorf("%s lacks title or set", tool.Name)
		}
		n := tokens(t, tool.Name+tool.Description+tool.Schema)
		bySet[tool.Set] += n
		if tool.In([]string{tools.SetAll}) {
			all += n
		}
		t.Logf("%-35s %4d %s", tool.Name, n, tool.Set)
	}
	t.Logf("by set: %v, all: %d", bySet, all)
	for name, c := range map[string]struct{ got, most int }{
		"core": {bySet[tools.SetCore], 1300}, "all": {all, 2200}, "daytona": {bySet[tools.SetDaytona], 4000},
	} {
		if c.got > c.most {
			t.Errorf("%s costs %d tokens, at most %d", name, c.got, c.most)
		}
	}
}
