package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/atoll-sh/atoll/"

// rule forbids imports: no package below from may import one below to, unless
// that is below one of except.
type rule struct {
	from, to string
	except   []string
	why      string
}

// rules are the architecture. A row that fails prints its reason.
var rules = []rule{
	{"engine/toolbox", "", []string{"engine/toolbox"}, "the toolbox runs inside sandboxes: it is small, and imports nothing of ours"},
	{"policies", "", []string{"policies"}, "policies are values in, values out"},
	{"ebpf", "", []string{"ebpf"}, "kernel code knows no engine"},
	{"engine/driver/container", "engine", []string{"engine", "engine/driver", "engine/toolbox/wire"}, "a driver is handed everything it needs by the runner"},
	{"engine/driver/fake", "engine", []string{"engine", "engine/driver"}, "drivers never meet"},
	{"engine/core", "gateway", nil, "the engine does not know its fronts"},
	{"engine/core", "mcp", nil, "the engine does not know its fronts"},
	{"engine/core", "engine/runner", nil, "core reaches runners through engine.Runner only, so that they may be elsewhere"},
	{"engine/core", "engine/driver", nil, "drivers are the runner's business"},
	{"engine/runner", "engine/store", nil, "a runner needs no database: its own disk is its truth"},
	{"engine/runner", "engine/core", nil, "core calls the runner, never the other way"},
	{"engine/storage", "engine", []string{"engine", "engine/storage"}, "the parts a runner drives do not know one another"},
	{"engine/network", "engine", []string{"engine", "engine/network"}, "the parts a runner drives do not know one another"},
	{"engine/image", "engine", []string{"engine", "engine/image"}, "the parts a runner drives do not know one another"},
	{"engine/egress", "engine/core", nil, "policies are handed down to the filter"},
	{"engine/egress", "engine/runner", nil, "the runner calls the filter, never the other way"},
	{"engine/confine", "engine/core", nil, "rules are handed down to the kernel"},
	{"engine/confine", "engine/runner", nil, "the runner calls the confiner, never the other way"},
	{"engine/activity", "engine/core", nil, "the ledger is told, it does not ask"},
	{"engine/trace", "engine", []string{"engine", "engine/trace", "engine/toolbox/wire"}, "the runner tells it what to watch, and it tells the ledger"},
	{"engine/webhook", "engine/core", nil, "webhooks listen to events"},
	{"gateway", "engine/core", nil, "the gateway is written against the service interfaces"},
	{"gateway", "engine/store", nil, "SQL lives in store, behind the services"},
	{"gateway", "engine/runner", nil, "the gateway is written against the service interfaces"},
	{"mcp", "engine/core", nil, "MCP is written against the service interfaces"},
	{"mcp", "gateway", []string{"gateway/client", "gateway/gatewaytest"}, "MCP works in process and over HTTP alike"},
	{"evals", "engine", []string{"engine", "engine/toolbox"}, "evals use the public client only"},
	{"engine", "cmd", nil, "commands wire; nothing imports them"},
}

func TestImports(t *testing.T) {
	for _, p := range listPackages(t) {
		from := strings.TrimPrefix(p.ImportPath, module)
		for _, imp := range p.Imports {
			to, ours := strings.CutPrefix(imp, module)
			if !ours {
				continue
			}
			for _, r := range rules {
				if below(from, r.from) && below(to, r.to) && !below(to, r.from) && !r.excepts(to) {
					t.Errorf("%s imports %s: %s", from, to, r.why)
				}
			}
		}
	}
}

// excepts tells whether to is one of the packages that the rule lets through.
// "engine" stands for the domain package alone, not for all below it.
func (r rule) excepts(to string) bool {
	for _, e := range r.except {
		if to == e || (e != "engine" && e != "engine/driver" && below(to, e)) {
			return true
		}
	}
	return false
}

func below(pkg, dir string) bool {
	return dir == "" || pkg == dir || strings.HasPrefix(pkg, dir+"/")
}

type listed struct {
	ImportPath string
	Imports    []string
}

func listPackages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}
