package toolbox

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// symbolNames lists the names of symbols in order.
func symbolNames(all []wire.LspSymbol) []string {
	names := []string{}
	for _, s := range all {
		names = append(names, s.Name)
	}
	return names
}

func labels(l wire.LspCompletionList) (names []string) {
	for _, i := range l.Items {
		names = append(names, i.Label)
	}
	return names
}

func TestPythonServer(t *testing.T) {
	b := open(t)
	write(t, b.dir+"/proj/shop.py", "class Basket:\n    def add_item(self, price):\n        return price\n\nbasket = Basket()\nbasket.\n")
	write(t, b.dir+"/proj/lib/tools.py", "def polish_item():\n    pass\n")
	write(t, b.dir+"/proj/.venv/other.py", "def other_item():\n    pass\n")
	project := wire.LspServer{LanguageID: "python", PathToProject: "proj"}
	file := wire.LspDocument{LspServer: project, URI: "file://" + b.dir + "/proj/shop.py"}
	ctx := t.Context()
	_, err := b.LspDocumentSymbols(ctx, file)
	wantError(t, err, http.StatusBadRequest, wire.CodeLSPNotStarted, "start it first")

	for range 2 { // a second start changes nothing
		if err := b.StartLsp(ctx, project); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.TrimSpace(b.run("pgrep -u 41234 -c pylsp")); got != "1" {
		t.Errorf("%s servers run as the user, want one", got)
	}
	if err := b.OpenLspDocument(ctx, file); err != nil {
		t.Fatal(err)
	}
	complete := wire.LspCompletions{LspDocument: file, Position: wire.LspPosition{Line: 5, Character: 7}, Context: &wire.LspCompletionContext{TriggerKind: 1}}
	list, err := b.LspCompletions(ctx, complete)
	if err != nil || !slices.ContainsFunc(labels(list), func(l string) bool { return strings.HasPrefix(l, "add_item") }) {
		t.Errorf("got completions %v, %v", labels(list), err)
	}
	for _, uri := range []string{file.URI, b.dir + "/proj/shop.py", "proj/shop.py", "file://proj/shop.py"} {
		all, err := b.LspDocumentSymbols(ctx, wire.LspDocument{LspServer: project, URI: uri})
		names := symbolNames(all)
		if err != nil || !slices.Contains(names, "Basket") || !slices.Contains(names, "add_item") {
			t.Errorf("%s: got %v, %v", uri, names, err)
			continue
		}
		i := slices.Index(names, "add_item")
		if got, want := all[i].Location.Range.Start.Line, 1; got != want || all[i].Location.URI != file.URI {
			t.Errorf("%s: got %+v, want line %d", uri, all[i], want)
		}
	}
	write(t, b.dir+"/proj/shop.py", "class Shelf:\n    pass\n") // an open file is told anew
	if all, err := b.LspDocumentSymbols(ctx, file); err != nil || !cmp.Equal(symbolNames(all), []string{"Shelf"}) {
		t.Errorf("got %v, %v, want Shelf", symbolNames(all), err)
	}
	if all, err := b.LspWorkspaceSymbols(ctx, project, "ITEM"); err != nil || !cmp.Equal(symbolNames(all), []string{"polish_item"}) {
		t.Errorf("got %v, %v, want polish_item", symbolNames(all), err)
	}
	for range 2 {
		if err := b.CloseLspDocument(ctx, file); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.StopLsp(ctx, project); err != nil {
		t.Fatal(err)
	}
	if got := b.run("pgrep -u 41234 -c pylsp || true"); got != "0\n" {
		t.Errorf("%s servers are left", got)
	}
	wantError(t, b.StopLsp(ctx, project), http.StatusBadRequest, wire.CodeLSPNotStarted, "no python language server")
	wantError(t, b.OpenLspDocument(ctx, file), http.StatusBadRequest, wire.CodeLSPNotStarted, "start it first")
}

// typescriptServer puts typescript-language-server where a sandbox's user finds
// it, and returns the directory for the path.
func typescriptServer(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = "/var/cache"
	}
	const pkg = "typescript-language-server@4.3.4" // as engine/image has it
	cache = filepath.Join(cache, "atoll-test", pkg)
	tarball := filepath.Join(cache, strings.ReplaceAll(pkg, "@", "-")+".tgz")
	if _, err := os.Stat(tarball); err != nil {
		temp := t.TempDir()
		for try := 1; ; try++ { // registries, and the names of their hosts, fail for moments
			cmd := exec.CommandContext(t.Context(), "npm", "pack", "--silent", pkg)
			cmd.Dir = temp
			out, err := cmd.CombinedOutput()
			if err == nil {
				break
			}
			if try == 4 {
				t.Fatalf("npm pack: %v\n%s", err, out)
			}
			time.Sleep(time.Duration(try) * 10 * time.Second)
		}
		if err := os.MkdirAll(cache, 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), "mv", filepath.Join(temp, filepath.Base(tarball)), tarball).CombinedOutput(); err != nil {
			t.Fatalf("keep the package: %v\n%s", err, out)
		}
	}
	dir := t.TempDir()
	script := `set -e; cd "$0"; chmod 755 . ..; mkdir -p node_modules bin
		tar xzf "$1"; mv package node_modules/typescript-language-server
		ln -s /usr/share/nodejs/typescript node_modules/typescript
		chmod -R a+rX node_modules; chmod 755 node_modules/typescript-language-server/lib/cli.mjs
		ln -s ../node_modules/typescript-language-server/lib/cli.mjs bin/typescript-language-server`
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", script, dir, tarball).CombinedOutput(); err != nil {
		t.Fatalf("unpack the package: %v\n%s", err, out)
	}
	return dir + "/bin"
}

func TestTypeScriptServer(t *testing.T) {
	bin := typescriptServer(t)
	b := open(t, func(c *Config) { c.Env["PATH"] = bin + ":" + c.Env["PATH"] })
	write(t, b.dir+"/proj/tsconfig.json", "{}")
	write(t, b.dir+"/proj/shop.ts", "export class Basket {\n  addItem(price: number) { return price }\n}\nconst basket = new Basket()\nbasket.\n")
	write(t, b.dir+"/js/plain.js", "function polishItem() {}\n")
	ctx := t.Context()
	project := wire.LspServer{LanguageID: "typescript", PathToProject: b.dir + "/proj"}
	file := wire.LspDocument{LspServer: project, URI: "proj/shop.ts"}
	js := wire.LspServer{LanguageID: "javascript", PathToProject: "js"}
	for _, p := range []wire.LspServer{project, js} {
		if err := b.StartLsp(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := b.LspWorkspaceSymbols(ctx, project, "addIt"); err != nil || !slices.Contains(symbolNames(all), "addItem") {
		t.Errorf("without an open file: got %v, %v", symbolNames(all), err)
	}
	if err := b.OpenLspDocument(ctx, file); err != nil {
		t.Fatal(err)
	}
	list, err := b.LspCompletions(ctx, wire.LspCompletions{LspDocument: file, Position: wire.LspPosition{Line: 4, Character: 7}})
	if err != nil || !slices.Contains(labels(list), "addItem") {
		t.Errorf("got completions %v, %v", labels(list), err)
	}
	all, err := b.LspDocumentSymbols(ctx, file)
	if err != nil || !slices.Contains(symbolNames(all), "Basket") || !slices.Contains(symbolNames(all), "addItem") {
		t.Errorf("got %v, %v", symbolNames(all), err)
	}
	all, err = b.LspDocumentSymbols(ctx, wire.LspDocument{LspServer: js, URI: "js/plain.js"})
	if err != nil || !cmp.Equal(symbolNames(all), []string{"polishItem"}) {
		t.Errorf("got %v, %v", symbolNames(all), err)
	}
	b.tb.lsp.Close() // as the toolbox's end does
	if got := b.run("pgrep -u 41234 -fc [t]sserver.js || true"); got != "0\n" {
		t.Errorf("%s servers are left", got)
	}
}

// TestBrokenServers puts programs in the servers' places that are not there,
// end, are silent or talk nonsense.
func TestBrokenServers(t *testing.T) {
	bin := t.TempDir()
	for _, d := range []string{filepath.Dir(bin), bin} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b := open(t, func(c *Config) { c.Env["PATH"] = bin + ":/bin" })
	write(t, b.dir+"/proj/a.py", "a = 1\n")
	python := wire.LspServer{LanguageID: "python", PathToProject: "proj"}
	ctx := t.Context()
	fake := func(script string) {
		t.Helper()
		write(t, bin+"/pylsp", "#!/bin/sh\n"+script)
		if err := os.Chmod(bin+"/pylsp", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// reply answers the first question, once it is asked, and then runs the rest.
	reply := `read q; printf 'Content-Length: 53\r\n\r\n{"jsonrpc":"2.0","id":1,"result":{"capabilities":{}}}'; `

	ts := wire.LspServer{LanguageID: "typescript", PathToProject: "proj"}
	wantError(t, b.StartLsp(ctx, ts), http.StatusNotImplemented, wire.CodeNotImplemented, "npm install -g typescript typescript-language-server")
	for _, c := range []struct{ script, want string }{
		{"echo no module >&2; exit 3", "exit code 3); start it again. It said: no module"},
		{"echo hello", "does not speak the language server protocol"},
		{"printf 'Content-Length: 99999999\\r\\n\\r\\n'; exec sleep 60", "larger than 8 MiB"},
		{`printf 'Content-Length: 70\r\n\r\n{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"no such version"}}'; exec sleep 60`, "ended"},
		{`read q; printf 'Content-Length: 71\r\n\r\n{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"no such version"}}'; exec sleep 60`, "refused: no such version"},
	} {
		fake(c.script)
		if err := b.StartLsp(ctx, python); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", c.script, err, c.want)
		}
	}
	fake(reply + "read x; read x; read x; read x; exit 4") // with what comes after its start
	if err := b.StartLsp(ctx, python); err != nil {
		t.Fatal(err)
	}
	file := wire.LspDocument{LspServer: python, URI: "proj/a.py"}
	eventually(t, "the server has ended", func() bool {
		_, err := b.LspDocumentSymbols(ctx, file)
		return err != nil && strings.Contains(err.Error(), "start it first")
	})
	fake(reply + "exec sleep 60") // it answers no more, not even to the end
	if err := b.StartLsp(ctx, python); err != nil {
		t.Fatal(err)
	}
	if err := b.StopLsp(ctx, python); err != nil {
		t.Error(err)
	}
}

func TestBadServerRequests(t *testing.T) {
	b := open(t)
	write(t, b.dir+"/proj/a.py", "a = 1\n")
	write(t, b.dir+"/file", "")
	ctx := t.Context()
	for _, c := range []struct {
		q    wire.LspServer
		want string
	}{
		{wire.LspServer{LanguageID: "cobol", PathToProject: "proj"}, "use python, typescript or javascript"},
		{wire.LspServer{LanguageID: "python"}, "pathToProject: give"},
		{wire.LspServer{LanguageID: "python", PathToProject: "a\x00b"}, "pathToProject: give"},
		{wire.LspServer{LanguageID: "python", PathToProject: "nowhere"}, "is not a directory"},
		{wire.LspServer{LanguageID: "python", PathToProject: "file"}, "is not a directory"},
	} {
		wantError(t, b.StartLsp(ctx, c.q), http.StatusBadRequest, wire.CodeBadRequest, c.want)
	}
	python := wire.LspServer{LanguageID: "python", PathToProject: "proj"}
	if err := b.StartLsp(ctx, python); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(ctx, "truncate", "-s", "5M", b.dir+"/proj/big.py").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for uri, want := range map[string]string{
		"": "holds no path", "file://": "holds no path", "https://x/a.py": "is not a file",
		"proj/none.py": "not found", "proj": "it is a directory", "proj/big.py": "larger than 4 MiB",
	} {
		if err := b.OpenLspDocument(ctx, wire.LspDocument{LspServer: python, URI: uri}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q in it", uri, err, want)
		}
	}
	_, err := b.LspCompletions(ctx, wire.LspCompletions{LspDocument: wire.LspDocument{LspServer: python, URI: "proj/a.py"}, Position: wire.LspPosition{Line: -1}})
	wantError(t, err, http.StatusBadRequest, wire.CodeBadRequest, "count from 0")
	_, err = b.LspWorkspaceSymbols(ctx, python, strings.Repeat("x", 1001))
	wantError(t, err, http.StatusBadRequest, wire.CodeBadRequest, "longer than 1000")
}
