package tools_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/atoll-sh/atoll/engine/egress"
	"github.com/atoll-sh/atoll/mcp/tools"
)

// TestCorpusOfBadCalls makes every wrong call of testdata/bad_calls.txt. A model must
// be able to mend its call from the answer alone, and the sandbox must not care.
func TestCorpusOfBadCalls(t *testing.T) {
	text, err := os.ReadFile("testdata/bad_calls.txt")
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, tools.Options{})
	b.with(func(s *tools.Backend) { s.Policy = egress.FromNetwork })
	b.ok("sandbox_create", `{"name":"off"}`)
	b.ok("sandbox_control", `{"id":"off","action":"stop"}`)
	b.ok("sandbox_exec", `{"id":"box","command":"printf 'one\\ntwo\\ntwo\\n' > notes.txt; mkdir dir"}`)
	before := b.ok("sandbox_exec", `{"id":"box","command":"find . | sort; cat notes.txt; ls -la notes.txt dir | grep -v ' \\.\\.$'"}`)
	n := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 4 || f[2] == "" || f[3] == "" {
			t.Fatalf("line %q: want four parts", line)
		}
		n++
		tool, args, field, fix := f[0], f[1], f[2], f[3]
		r := b.call(context.WithoutCancel(t.Context()), tool, args)
		fault := ""
		switch n := tokens(t, r.Text); {
		case !r.IsError:
			fault = "is no error"
		case !strings.Contains(r.Text, field):
			fault = "does not name " + field
		case !strings.Contains(r.Text, fix):
			fault = "does not give the fix " + fix
		case n > 120:
			fault = "is too long"
		}
		if fault != "" {
			t.Errorf("%s %s: %q %s", tool, args, r.Text, fault)
		}
	}
	if n < 150 {
		t.Errorf("%d calls, want at least 150", n)
	}
	t.Logf("%d bad calls", n)
	if after := b.ok("sandbox_exec", `{"id":"box","command":"find . | sort; cat notes.txt; ls -la notes.txt dir | grep -v ' \\.\\.$'"}`); rest(after) != rest(before) {
		t.Errorf("the sandbox has\n%s\nand had\n%s", after, before)
	}
	if got := b.ok("sandbox_list", `{}`); !strings.HasPrefix(got, "2 of 2 sandboxes") {
		t.Errorf("bad calls made or deleted sandboxes: %s", got)
	}
}

func rest(text string) string {
	_, after, _ := strings.Cut(text, "\n")
	return after
}
