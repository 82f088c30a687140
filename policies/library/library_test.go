package library_test

import (
	"slices"
	"testing"

	"github.com/atoll-sh/atoll/policies"
	"github.com/atoll-sh/atoll/policies/library"
)

func TestNames(t *testing.T) {
	want := []string{"github-readonly", "llm-apis", "node-packages", "offline", "open", "python-packages"}
	if got := library.Names(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, name := range []string{"", "none", "../library/open", "open.cases", "/open"} {
		if _, ok := library.Policy(name); ok {
			t.Errorf("there is a policy %q", name)
		}
	}
}

// Every policy reads, is called as its file, and decides its table as told.
func TestTables(t *testing.T) {
	for _, name := range library.Names() {
		t.Run(name, func(t *testing.T) {
			p, ok := library.Policy(name)
			if !ok || p.Name != name || p.Description == "" {
				t.Fatalf("got %+v", p)
			}
			text, _ := library.Table(name)
			table, err := policies.ParseTable(text)
			if err != nil {
				t.Fatal(err)
			}
			if table.Policy != name {
				t.Errorf("the table is of %q", table.Policy)
			}
			p, err = p.Expand(table.Variables)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range policies.Check(p, table.Cases) {
				t.Error(f)
			}
		})
	}
}

// A policy whose variables have no value allows nothing and says what is missing.
func TestWithoutHosts(t *testing.T) {
	for name, variable := range map[string]string{"python-packages": policies.PythonIndexHosts, "node-packages": policies.NodeIndexHosts} {
		p, _ := library.Policy(name)
		if got := p.Variables(); !slices.Equal(got, []string{variable}) {
			t.Errorf("%s has %q", name, got)
		}
		if _, err := p.Expand(nil); err == nil {
			t.Errorf("%s was expanded without hosts", name)
		}
		if d := policies.Decide(p, policies.LookupRequest{Name: "index.example.com"}); d.Allow {
			t.Errorf("%s: %+v", name, d)
		}
	}
}
