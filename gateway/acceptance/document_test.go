package acceptance

import (
	"fmt"
	"math"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/atoll-sh/atoll/engine/enginetest/published"
	"github.com/atoll-sh/atoll/gateway/api"
)

// documents checks what the server says of itself: a published validator takes
// both documents, and they have every operation that is built.
func (s *server) documents(t *testing.T) {
	control := s.document(t, "/api/openapi.json")
	box := s.document(t, "/api/toolbox-openapi.json")
	for _, path := range []string{"/api/openapi.json", "/api/toolbox-openapi.json"} {
		s.validate(t, path)
	}
	seen := map[string]string{}
	for _, o := range append(api.Operations(), api.Extensions()...) {
		op := control.exactly(o.Method, o.Path)
		if o.Status != api.Built {
			if op != nil {
				t.Errorf("%s: described, but not built", o.Key())
			}
			continue
		}
		control.complete(t, o.Key(), op, seen)
		if _, secured := op["security"]; secured == (o.Access == api.Public) {
			t.Errorf("%s: security %v, access %q", o.Key(), op["security"], o.Access)
		}
	}
	seen = map[string]string{}
	for _, r := range toolboxRoutes() {
		switch {
		case r.presence != built, r.path == "/init", strings.HasPrefix(r.path, "/proxy/"):
			continue // not for callers, or no operation of its own
		}
		op := box.exactly(r.method, r.path)
		box.complete(t, r.method+" "+r.path, op, seen)
	}
}

// complete checks that an operation is described wholly.
func (d document) complete(t *testing.T, key string, op map[string]any, seen map[string]string) {
	t.Helper()
	if op == nil {
		t.Errorf("%s: not described", key)
		return
	}
	id, _ := op["operationId"].(string)
	if other, twice := seen[id]; id == "" || (twice && other != key) {
		t.Errorf("%s: operationId %q, also of %s", key, id, other)
	}
	seen[id] = key
	responses, _ := op["responses"].(map[string]any)
	if _, ok := responses["default"]; !ok || len(responses) < 2 {
		t.Errorf("%s: responses %v", key, responses)
	}
	if s, _ := op["summary"].(string); s == "" || op["tags"] == nil {
		t.Errorf("%s: summary %q, tags %v", key, s, op["tags"])
	}
}

// validator is a published program that knows the schema of OpenAPI 3.1.
const validator = "@seriousme/openapi-schema-validator@2.11.0"

func (s *server) validate(t *testing.T, path string) {
	t.Helper()
	script := `import(process.argv[1]).then(async ({ Validator }) => {
		const r = await new Validator().validate(await (await fetch(process.argv[2])).json())
		console.log(JSON.stringify(r.errors ?? r.valid)); process.exit(r.valid ? 0 : 1) })`
	entry := filepath.Join(published.NPM(t, validator), "node_modules", "@seriousme", "openapi-schema-validator", "index.js")
	cmd := exec.CommandContext(t.Context(), published.Node(t), "-e", script, entry, "http://"+s.addr+path)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%.2000s", path, err, out)
	}
}

// docs is the page for people: complete in itself, and allowed nothing more.
func (s *server) docs(t *testing.T) {
	a := s.call(t, http.MethodGet, "/api/docs", "", "Authorization", "")
	if a.status != http.StatusOK || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
		t.Fatalf("%d %s", a.status, a.header.Get("Content-Type"))
	}
	policy := a.header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'sha256-", "style-src 'sha256-", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy %q lacks %q", policy, want)
		}
	}
	for _, bad := range []string{"http://", "https://", "innerHTML", " style=", " onclick=", "<link", " src="} {
		if strings.Contains(string(a.body), bad) {
			t.Errorf("the page has %q", bad)
		}
	}
}

// described holds the answer of a documented operation against the server's own
// OpenAPI document, and says whether that has the operation.
func (d document) described(t *testing.T, method, path string, a answer) bool {
	t.Helper()
	op := d.operation(method, path)
	if op == nil {
		return false
	}
	responses, _ := op["responses"].(map[string]any)
	r, ok := responses[fmt.Sprint(a.status)].(map[string]any)
	if !ok {
		t.Errorf("%s %s: the document does not know status %d", method, path, a.status)
		return true
	}
	content, _ := r["content"].(map[string]any)
	media, _ := content["application/json"].(map[string]any)
	if schema, ok := media["schema"].(map[string]any); ok {
		if err := d.fit(decode(t, string(a.body)), schema, "body"); err != nil {
			t.Errorf("%s %s: against the server's own document: %v in %.400s", method, path, err, a.body)
		}
	}
	return true
}

// document is an OpenAPI document.
type document map[string]any

func (s *server) document(t *testing.T, path string) document {
	t.Helper()
	a := s.call(t, http.MethodGet, path, "", "Authorization", "")
	if a.status != http.StatusOK {
		t.Fatalf("%s: %d %s", path, a.status, a.body)
	}
	return a.object()
}

func (d document) exactly(method, template string) map[string]any {
	paths, _ := d["paths"].(map[string]any)
	item, _ := paths[template].(map[string]any)
	op, _ := item[strings.ToLower(method)].(map[string]any)
	return op
}

// operation finds the one whose path matches; literal parts come first.
func (d document) operation(method, path string) map[string]any {
	paths, _ := d["paths"].(map[string]any)
	var best map[string]any
	params := math.MaxInt
	for template, item := range paths {
		n, ok := matches(template, path)
		if !ok || n >= params {
			continue
		}
		if op, ok := item.(map[string]any)[strings.ToLower(method)].(map[string]any); ok {
			best, params = op, n
		}
	}
	return best
}

// matches tells whether a path is one of the template, and how many of its
// parts are parameters.
func matches(template, path string) (params int, ok bool) {
	want, got := strings.Split(template, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return 0, false
	}
	for i, w := range want {
		switch {
		case strings.HasPrefix(w, "{"):
			params++
		case w != got[i]:
			return 0, false
		}
	}
	return params, true
}

// fit checks a value against a schema: types, required fields and all below.
func (d document) fit(v any, schema map[string]any, at string) error {
	if ref, ok := schema["$ref"].(string); ok {
		name := ref[strings.LastIndex(ref, "/")+1:]
		components, _ := d["components"].(map[string]any)
		all, _ := components["schemas"].(map[string]any)
		next, ok := all[name].(map[string]any)
		if !ok {
			return fmt.Errorf("%s: no schema %s", at, name)
		}
		return d.fit(v, next, at)
	}
	if err := fitType(v, schema["type"], at); err != nil {
		return err
	}
	switch v := v.(type) {
	case []any:
		items, _ := schema["items"].(map[string]any)
		for i, e := range v {
			if err := d.fit(e, items, fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	case map[string]any:
		return d.fitObject(v, schema, at)
	}
	return nil
}

func (d document) fitObject(v, schema map[string]any, at string) error {
	required, _ := schema["required"].([]any)
	for _, name := range required {
		if _, ok := v[name.(string)]; !ok {
			return fmt.Errorf("%s lacks %s", at, name)
		}
	}
	properties, _ := schema["properties"].(map[string]any)
	for name, e := range v {
		if p, ok := properties[name].(map[string]any); ok {
			if err := d.fit(e, p, at+"."+name); err != nil {
				return err
			}
		}
	}
	return nil
}

// fitType checks a value against a schema's type, which is a word or a list.
func fitType(v, typ any, at string) error {
	var words []string
	switch typ := typ.(type) {
	case nil:
		return nil
	case string:
		words = []string{typ}
	case []any:
		for _, w := range typ {
			words = append(words, fmt.Sprint(w))
		}
	}
	for _, w := range words {
		short := map[string]string{"string": "s", "number": "n", "integer": "i", "boolean": "b", "object": "o"}[w]
		if (w == "null" && v == nil) || (w == "array" && isList(v)) || (short != "" && fitPlain(v, short, at) == nil) {
			return nil
		}
	}
	return fmt.Errorf("%s is %v, want %v", at, v, words)
}

func isList(v any) bool {
	_, ok := v.([]any)
	return ok
}
