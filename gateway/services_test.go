package gateway_test

import (
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/core"
	"github.com/atoll-sh/atoll/engine/enginetest"
	"github.com/atoll-sh/atoll/engine/secret"
	"github.com/atoll-sh/atoll/engine/store"
	"github.com/atoll-sh/atoll/gateway"
	"github.com/atoll-sh/atoll/gateway/gatewaytest"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// real is a gateway before a real core on a real store, with a runner in
// memory. Keys are those of gatewaytest.
type real struct {
	t      *testing.T
	core   *core.Core
	runner *enginetest.Runner
	url    string
}

func serveReal(t *testing.T) *real {
	t.Helper()
	ctx := t.Context()
	db, err := store.Open(ctx, filepath.Join(t.TempDir(), "atoll.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	box, err := secret.OpenFile(filepath.Join(t.TempDir(), "k"), true)
	if err != nil {
		t.Fatal(err)
	}
	r := &real{t: t, runner: enginetest.NewRunner("r1")}
	r.core, err = core.New(core.Config{Store: db, Cluster: enginetest.NewBus(r.runner), Box: box})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.core.Close(context.Background()); err != nil {
			t.Error(err)
		}
		_ = db.Close()
	})
	for _, step := range []error{
		r.core.EnsureDefaults(ctx, []engine.Snapshot{{
			Name: "atoll-small", Image: "atoll:default", Resources: engine.Resources{CPU: 1, MemoryMiB: 1024, DiskMiB: 3072},
		}}),
		r.core.PrepareDefaults(ctx),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	s := gatewaytest.Serve(t, gatewaytest.New(t), func(c *gateway.Config) {
		c.Sandboxes, c.Snapshots, c.Events, c.Inspector = r.core.Sandboxes(), r.core.Snapshots(), r.core.Events(), r.core.Inspector()
		c.Services = engine.Services{Secrets: r.core.Secrets()}
	})
	r.url = s.URL()
	return r
}

// call sends body and decodes the answer into a map, list or plain value. It
// fails unless the status is as wanted.
func (r *real) call(method, path, body string, status int) any {
	r.t.Helper()
	return r.callAs(gatewaytest.AdminKey, method, path, body, status)
}

func (r *real) callAs(key, method, path, body string, status int) any {
	r.t.Helper()
	res, text := request(r.t, method, r.url+"/api"+path, key, body)
	if res.StatusCode != status {
		r.t.Fatalf("%s %s: got %d, want %d: %s", method, path, res.StatusCode, status, text)
	}
	if len(text) == 0 {
		return nil
	}
	var out any
	if err := json.Unmarshal(text, &out); err != nil {
		r.t.Fatalf("%s %s: %v in %s", method, path, err, text)
	}
	return out
}

func (r *real) object(method, path, body string, status int) map[string]any {
	r.t.Helper()
	m, ok := r.call(method, path, body, status).(map[string]any)
	if !ok {
		r.t.Fatalf("%s %s: no object", method, path)
	}
	return m
}

// has fails for fields that the contract requires and the answer lacks.
func (r *real) has(m map[string]any, fields ...string) {
	r.t.Helper()
	for _, f := range fields {
		if _, ok := m[f]; !ok {
			r.t.Errorf("field %s is missing in %v", f, m)
		}
	}
}

func TestSecretOperations(t *testing.T) {
	r := serveReal(t)
	s := r.object("POST", "/secret", `{"name":"token","value":"hunter2","description":"d","hosts":["api.example.com"]}`, http.StatusCreated)
	r.has(s, "id", "name", "createdAt", "placeholder", "hosts", "updatedAt")
	id := s["id"].(string)
	if s["placeholder"] != "dtn_secret_"+id || s["value"] != nil {
		t.Errorf("got %v", s)
	}
	bare := r.object("POST", "/secret", `{"name":"bare","value":"v"}`, http.StatusCreated)
	if d := cmp.Diff([]any{}, bare["hosts"]); d != "" {
		t.Error(d)
	}
	page := r.object("GET", "/secret/paginated?limit=1&sort=name&order=asc", "", http.StatusOK)
	r.has(page, "items", "total", "nextCursor")
	if page["total"] != 2.0 || page["nextCursor"] == nil {
		t.Errorf("got %v", page)
	}
	page = r.object("GET", "/secret/paginated?limit=1&sort=name&order=asc&cursor="+page["nextCursor"].(string), "", http.StatusOK)
	if items := page["items"].([]any); len(items) != 1 || items[0].(map[string]any)["name"] != "token" || page["nextCursor"] != nil {
		t.Errorf("got %v", page)
	}
	if all := r.call("GET", "/secret", "", http.StatusOK).([]any); len(all) != 2 {
		t.Errorf("got %v", all)
	}
	s = r.object("PATCH", "/secret/"+id, `{"value":"hunter3","hosts":[]}`, http.StatusOK)
	if d := cmp.Diff([]any{}, s["hosts"]); d != "" || s["description"] != "d" {
		t.Errorf("got %v", s)
	}
	sb := r.object("POST", "/sandbox", `{"secrets":[{"A":"token"},{"B":"bare"}]}`, http.StatusOK)
	if env := r.runner.Launched(sb["id"].(string)).Env; env["A"] != "dtn_secret_"+id || env["B"] == "" {
		t.Errorf("got %v", env)
	}
	r.call("POST", "/sandbox/"+sb["id"].(string)+"/stop", "", http.StatusOK)
	got := r.object("PUT", "/sandbox/"+sb["id"].(string)+"/secrets", `{"secrets":[]}`, http.StatusOK)
	if got["secrets"] != nil || got["id"] != sb["id"] {
		t.Errorf("got %v", got)
	}
	r.call("DELETE", "/secret/"+id, "", http.StatusNoContent)
	r.call("GET", "/secret/"+id, "", http.StatusNotFound)
	r.call("DELETE", "/secret/"+id, "", http.StatusNotFound)
}

func TestSecretOperationsRefuse(t *testing.T) {
	r := serveReal(t)
	r.call("POST", "/secret", `{"name":"token","value":"hunter2"}`, http.StatusCreated)
	for body, status := range map[string]int{
		`{"name":"token","value":"v"}`:                            http.StatusConflict,
		`{"name":"a b","value":"v"}`:                              http.StatusBadRequest,
		`{"name":"x"}`:                                            http.StatusBadRequest,
		`{"name":"x","value":4711}`:                               http.StatusBadRequest,
		`{"name":"x","value":"v","hosts":"a"}`:                    http.StatusBadRequest,
		`{"name":"x","value":"v","hosts":["http://example.com"]}`: http.StatusBadRequest,
		`[]`: http.StatusBadRequest,
		``:   http.StatusBadRequest,
	} {
		m := r.object("POST", "/secret", body, status)
		if text, _ := m["message"].(string); text == "" || strings.Contains(text, "4711") {
			t.Errorf("%s: got %q", body, text)
		}
	}
	r.callAs(gatewaytest.ReaderKey, "POST", "/secret", `{"name":"x","value":"v"}`, http.StatusForbidden)
	r.call("GET", "/secret/paginated?limit=0", "", http.StatusBadRequest)
	r.call("GET", "/secret/paginated?sort=value", "", http.StatusBadRequest)
	r.call("GET", "/secret/paginated?cursor=x", "", http.StatusBadRequest)
	r.call("POST", "/sandbox", `{"secrets":[{"A":"nobody"}]}`, http.StatusBadRequest)
	r.call("POST", "/sandbox", `{"secrets":[{"A":"token"},{"A":"token"}]}`, http.StatusBadRequest)
	sb := r.object("POST", "/sandbox", `{}`, http.StatusOK)["id"].(string)
	r.call("PUT", "/sandbox/"+sb+"/secrets", `{"secrets":[{"A":"nobody"}]}`, http.StatusBadRequest)
	r.call("PUT", "/sandbox/"+sb+"/secrets", `{}`, http.StatusBadRequest)
	r.call("PUT", "/sandbox/nobody/secrets", `{"secrets":[]}`, http.StatusNotFound)
	// Values never leave, not even for administrators.
	if m := r.object("GET", "/sandbox/"+sb+"/secrets", "", http.StatusNotImplemented); m["code"] != wire.CodeNotBuilt {
		t.Errorf("got %v", m)
	}
}

func TestServicesThatAreNotOffered(t *testing.T) {
	s := gatewaytest.Serve(t, gatewaytest.New(t))
	for _, path := range []string{"/secret", "/secret/paginated"} {
		res, body := request(t, "GET", s.URL()+"/api"+path, gatewaytest.AdminKey, "")
		if res.StatusCode != http.StatusNotImplemented || !strings.Contains(string(body), wire.CodeNotBuilt) {
			t.Errorf("%s: got %d %s", path, res.StatusCode, body)
		}
	}
}
