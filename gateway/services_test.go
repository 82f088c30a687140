package gateway_test

import (
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/core"
	"github.com/atoll-sh/atoll/engine/enginetest"
	"github.com/atoll-sh/atoll/engine/secret"
	"github.com/atoll-sh/atoll/engine/store"
	"github.com/atoll-sh/atoll/engine/webhook"
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
	hooks, err := webhook.Open(ctx, webhook.Config{Store: db, Box: box})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hooks.Close)
	s := gatewaytest.Serve(t, gatewaytest.New(t), func(c *gateway.Config) {
		c.Sandboxes, c.Snapshots, c.Events, c.Inspector = r.core.Sandboxes(), r.core.Snapshots(), r.core.Events(), r.core.Inspector()
		c.Services = engine.Services{
			Secrets: r.core.Secrets(), Registries: r.core.Registries(), Catalog: r.core.Catalog(),
			WarmPools: r.core.WarmPools(), History: r.core.History(), Webhooks: hooks, Messages: hooks.Messages(),
		}
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
	for _, path := range []string{
		"/secret", "/secret/paginated", "/docker-registry", "/warm-pools", "/admin/snapshots/can-cleanup-image?imageName=a",
		"/sandbox/a/telemetry/metrics", "/webhooks/organizations/current/endpoints", "/admin/webhooks/status",
	} {
		res, body := request(t, "GET", s.URL()+"/api"+path, gatewaytest.AdminKey, "")
		if res.StatusCode != http.StatusNotImplemented || !strings.Contains(string(body), wire.CodeNotBuilt) {
			t.Errorf("%s: got %d %s", path, res.StatusCode, body)
		}
	}
}

func TestRegistryOperations(t *testing.T) {
	r := serveReal(t)
	body := `{"name":"hub","url":"https://registry.example.com","username":"u","password":"hunter2"}`
	d := r.object("POST", "/docker-registry", body, http.StatusCreated)
	r.has(d, "id", "name", "url", "username", "project", "registryType", "createdAt", "updatedAt")
	id := d["id"].(string)
	if d["password"] != nil || d["registryType"] != "organization" || d["project"] != "" {
		t.Errorf("got %v", d)
	}
	r.call("POST", "/docker-registry", body, http.StatusConflict)
	r.call("POST", "/docker-registry", `{"name":"a"}`, http.StatusBadRequest)
	r.call("POST", "/docker-registry", `{"name":"a","url":"http://a.example.com","username":"u","password":"p"}`, http.StatusBadRequest)
	r.callAs(gatewaytest.ReaderKey, "POST", "/docker-registry", body, http.StatusForbidden)
	if list := r.call("GET", "/docker-registry", "", http.StatusOK).([]any); len(list) != 1 {
		t.Errorf("got %v", list)
	}
	r.object("GET", "/docker-registry/"+id, "", http.StatusOK)
	d = r.object("PATCH", "/docker-registry/"+id, `{"name":"hub2","url":"registry.example.com","username":"v","project":"team"}`, http.StatusOK)
	if d["name"] != "hub2" || d["project"] != "team" {
		t.Errorf("got %v", d)
	}
	r.call("PATCH", "/docker-registry/"+id, `{"name":"hub2","url":"evil.example.org","username":"v"}`, http.StatusBadRequest)
	r.call("PATCH", "/docker-registry/nobody", `{"name":"a","url":"a.example.com","username":"v"}`, http.StatusNotFound)
	r.call("GET", "/docker-registry/registry-push-access", "", http.StatusNotImplemented)
	r.call("DELETE", "/docker-registry/"+id, "", http.StatusNoContent)
	r.call("GET", "/docker-registry/"+id, "", http.StatusNotFound)
}

func TestWarmPoolOperations(t *testing.T) {
	r := serveReal(t)
	d := r.object("POST", "/warm-pools", `{"snapshot":"atoll-small","pool":2}`, http.StatusCreated)
	r.has(d, "id", "organizationId", "snapshot", "target", "pool", "currentSize", "cpu", "mem", "disk", "osUser", "env", "errorReason", "createdAt", "updatedAt")
	id := d["id"].(string)
	if d["snapshot"] != "atoll-small" || d["pool"] != 2.0 || d["currentSize"] != 2.0 || d["mem"] != 1.0 || d["errorReason"] != nil {
		t.Errorf("got %v", d)
	}
	r.call("POST", "/warm-pools", `{"snapshot":"atoll-small","pool":2}`, http.StatusConflict)
	for _, bad := range []string{`{"snapshot":"atoll-small","pool":0}`, `{"pool":1}`, `{"snapshot":"atoll-small"}`, `{"snapshot":"atoll-small","pool":1.5}`, `{"snapshot":"atoll-small","pool":5000}`} {
		r.call("POST", "/warm-pools", bad, http.StatusBadRequest)
	}
	r.call("POST", "/warm-pools", `{"snapshot":"nobody","pool":1}`, http.StatusNotFound)
	r.callAs(gatewaytest.ReaderKey, "POST", "/warm-pools", `{"snapshot":"atoll-small","pool":2}`, http.StatusForbidden)
	if d = r.object("PATCH", "/warm-pools/"+id, `{"pool":0}`, http.StatusOK); d["pool"] != 0.0 {
		t.Errorf("got %v", d)
	}
	r.call("PATCH", "/warm-pools/"+id, `{"pool":-1}`, http.StatusBadRequest)
	r.call("PATCH", "/warm-pools/nobody", `{"pool":1}`, http.StatusNotFound)
	if list := r.call("GET", "/warm-pools", "", http.StatusOK).([]any); len(list) != 1 {
		t.Errorf("got %v", list)
	}
	r.call("DELETE", "/warm-pools/"+id, "", http.StatusNoContent)
	r.call("DELETE", "/warm-pools/"+id, "", http.StatusNotFound)
	if list := r.call("GET", "/warm-pools", "", http.StatusOK).([]any); len(list) != 0 {
		t.Errorf("got %v", list)
	}
}

func TestMetricsOperation(t *testing.T) {
	r := serveReal(t)
	id := r.object("POST", "/sandbox", `{}`, http.StatusOK)["id"].(string)
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	r.runner.AddSamples(id, engine.Sample{
		Time: at, CPU: 0.5, CPULimit: 2, MemoryBytes: 10, MemoryLimit: 20, CacheBytes: 3, DiskBytes: 4, DiskTotal: 5,
	})
	path := "/sandbox/" + id + "/telemetry/metrics?from=2026-03-04T05:06:00.000Z&to=2026-03-04T05:07:00Z"
	want := map[string]float64{
		"daytona.sandbox.cpu.utilization": 25, "daytona.sandbox.cpu.limit": 2, "daytona.sandbox.memory.usage": 10,
		"daytona.sandbox.memory.limit": 20, "daytona.sandbox.memory.cache": 3, "daytona.sandbox.filesystem.usage": 4, "daytona.sandbox.filesystem.total": 5,
	}
	got := map[string]float64{}
	for _, s := range r.object("GET", path, "", http.StatusOK)["series"].([]any) {
		m := s.(map[string]any)
		point := m["dataPoints"].([]any)[0].(map[string]any)
		got[m["metricName"].(string)] = point["value"].(float64)
		if point["timestamp"] != wire.Time(at) {
			t.Errorf("got %v", point)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	one := r.object("GET", path+"&metricNames=daytona.sandbox.memory.cache&metricNames=nobody", "", http.StatusOK)["series"].([]any)
	if len(one) != 1 {
		t.Errorf("got %v", one)
	}
	empty := r.object("GET", "/sandbox/"+id+"/telemetry/metrics?from=2025-03-04T05:06:00Z&to=2025-03-04T05:07:00Z", "", http.StatusOK)["series"].([]any)
	if d := cmp.Diff([]any{}, empty[0].(map[string]any)["dataPoints"]); d != "" {
		t.Error(d)
	}
	for _, query := range []string{"", "?from=2026-03-04T05:06:00Z", "?from=x&to=y", "?from=2026-03-04T05:06:00Z&to=2026-03-04T05:05:00Z"} {
		r.call("GET", "/sandbox/"+id+"/telemetry/metrics"+query, "", http.StatusBadRequest)
	}
	r.call("GET", "/sandbox/nobody/telemetry/metrics?from=2026-03-04T05:06:00Z&to=2026-03-04T05:07:00Z", "", http.StatusNotFound)
	r.call("GET", "/sandbox/"+id+"/telemetry/logs?from=2026-03-04T05:06:00Z&to=2026-03-04T05:07:00Z", "", http.StatusNotImplemented)
}

func TestCatalogOperations(t *testing.T) {
	r := serveReal(t)
	id := r.object("POST", "/snapshots", `{"name":"deb","imageName":"debian:12.1"}`, http.StatusOK)["id"].(string)
	if r.call("GET", "/admin/snapshots/can-cleanup-image?imageName=debian:12.1", "", http.StatusOK) != false {
		t.Error("an image in use can go")
	}
	r.call("POST", "/snapshots/deb/deactivate", "", http.StatusNoContent)
	if d := r.object("GET", "/snapshots/deb", "", http.StatusOK); d["state"] != "inactive" {
		t.Errorf("got %v", d)
	}
	if m := r.object("POST", "/sandbox", `{"snapshot":"deb"}`, http.StatusBadRequest); !strings.Contains(m["message"].(string), "inactive") {
		t.Errorf("got %v", m)
	}
	if r.call("GET", "/admin/snapshots/can-cleanup-image?imageName=debian:12.1", "", http.StatusOK) != true {
		t.Error("an image that nothing uses cannot go")
	}
	d := r.object("POST", "/snapshots/"+id+"/activate", "", http.StatusOK)
	r.has(d, "id", "general", "name", "state", "size", "entrypoint", "cpu", "gpu", "mem", "disk", "errorReason", "createdAt", "updatedAt", "lastUsedAt", "sourceSandboxId")
	if d["state"] != "active" {
		t.Errorf("got %v", d)
	}
	if d = r.object("PATCH", "/admin/snapshots/"+id+"/general", `{"general":true}`, http.StatusOK); d["general"] != true {
		t.Errorf("got %v", d)
	}
	r.call("DELETE", "/snapshots/"+id, "", http.StatusForbidden)
	r.call("POST", "/snapshots/"+id+"/deactivate", "", http.StatusForbidden)
	r.call("PATCH", "/admin/snapshots/"+id+"/general", `{"general":false}`, http.StatusOK)
	r.call("PATCH", "/admin/snapshots/"+id+"/general", `{}`, http.StatusBadRequest)
	r.call("POST", "/snapshots/nobody/activate", "", http.StatusNotFound)
	r.callAs(gatewaytest.ReaderKey, "POST", "/snapshots/deb/deactivate", "", http.StatusForbidden)
	r.callAs(gatewaytest.ReaderKey, "PATCH", "/admin/snapshots/"+id+"/general", `{"general":true}`, http.StatusForbidden)
	r.call("GET", "/admin/snapshots/can-cleanup-image", "", http.StatusBadRequest)
}

func TestWebhookOperations(t *testing.T) {
	r := serveReal(t)
	org := "/webhooks/organizations/" + engine.DefaultOrganization
	r.call("GET", org+"/initialization-status", "", http.StatusNotFound)
	r.call("POST", org+"/refresh-endpoints", "", http.StatusNotFound)
	d := r.object("POST", org+"/initialize", "", http.StatusCreated)
	r.has(d, "organizationId", "svixApplicationId", "lastError", "retryCount", "createdAt", "updatedAt")
	r.call("GET", org+"/initialization-status", "", http.StatusOK)
	r.call("POST", org+"/refresh-endpoints", "", http.StatusNoContent)
	r.call("POST", org+"/app-portal-access", "", http.StatusNotImplemented)

	e := r.object("POST", "/webhooks/organizations/current/endpoints", `{"url":"https://hooks.invalid/x","events":["sandbox.created"]}`, http.StatusCreated)
	r.has(e, "id", "organizationId", "url", "description", "events", "disabled", "secret", "createdAt", "updatedAt")
	one := org + "/endpoints/" + e["id"].(string)
	if got := r.object("GET", one, "", http.StatusOK); got["secret"] != nil || got["url"] != e["url"] {
		t.Errorf("got %v", got)
	}
	if got := r.object("PATCH", one, `{"disabled":true,"events":[]}`, http.StatusOK); got["disabled"] != true {
		t.Errorf("got %v", got)
	}
	if got := r.object("POST", one+"/rotate-secret", "", http.StatusOK); got["secret"] == nil || got["secret"] == e["secret"] {
		t.Errorf("got %v", got)
	}
	if list := r.call("GET", org+"/endpoints", "", http.StatusOK).([]any); len(list) != 1 {
		t.Errorf("got %v", list)
	}
	for _, bad := range []string{`{}`, `{"url":"http://example.com"}`, `{"url":"https://10.0.0.1"}`, `{"url":"https://example.com","events":["x"]}`} {
		r.call("POST", org+"/endpoints", bad, http.StatusBadRequest)
	}
	r.call("PATCH", one, `{"url":"https://localhost"}`, http.StatusBadRequest)
	r.callAs(gatewaytest.ReaderKey, "GET", org+"/endpoints", "", http.StatusForbidden)
	r.callAs(gatewaytest.ReaderKey, "GET", "/webhooks/organizations/another/initialization-status", "", http.StatusNotFound)

	admin := "/admin" + org
	m := r.object("POST", admin+"/send", `{"eventType":"snapshot.removed","payload":{"a":1},"eventId":"once"}`, http.StatusOK)
	if d := cmp.Diff([]any{}, m["deliveries"]); m["id"] != "once" || d != "" { // the only endpoint is disabled
		t.Errorf("got %v", m)
	}
	r.call("POST", admin+"/send", `{"eventType":"snapshot.removed","payload":{},"eventId":"once"}`, http.StatusConflict)
	r.call("POST", admin+"/send", `{"eventType":"x","payload":{}}`, http.StatusBadRequest)
	r.call("POST", admin+"/send", `{"eventType":"snapshot.removed"}`, http.StatusBadRequest)
	for _, path := range []string{admin, org} {
		if list := r.call("GET", path+"/messages/once/attempts", "", http.StatusOK).([]any); len(list) != 0 {
			t.Errorf("got %v", list)
		}
		r.call("GET", path+"/messages/nobody/attempts", "", http.StatusNotFound)
	}
	if list := r.call("GET", org+"/messages", "", http.StatusOK).([]any); len(list) != 1 {
		t.Errorf("got %v", list)
	}
	r.call("POST", org+"/messages/once/resend", "", http.StatusAccepted)
	r.call("POST", org+"/messages/nobody/resend", "", http.StatusNotFound)
	r.call("POST", admin+"/initialize", "", http.StatusCreated)
	if d := r.object("GET", "/admin/webhooks/status", "", http.StatusOK); d["enabled"] != true {
		t.Errorf("got %v", d)
	}
	r.call("DELETE", one, "", http.StatusNoContent)
	r.call("DELETE", one, "", http.StatusNotFound)
}
