package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine/enginetest/coretest"
	"github.com/atoll-sh/atoll/gateway"
	"github.com/atoll-sh/atoll/gateway/api"
	"github.com/atoll-sh/atoll/gateway/auth"
	"github.com/atoll-sh/atoll/gateway/gatewaytest"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// accountFields holds what strict clients insist on, by schema.
func accountFields() map[string][]string {
	return map[string][]string{
		"newKey":     strings.Fields("name value createdAt permissions expiresAt"),
		"key":        required()["key"],
		"user":       required()["user"],
		"org":        required()["organization"],
		"role":       strings.Fields("id name description permissions isGlobal createdAt updatedAt"),
		"member":     strings.Fields("userId organizationId name email role assignedRoles createdAt updatedAt"),
		"invitation": strings.Fields("id email invitedBy organizationId organizationName expiresAt status role assignedRoles createdAt updatedAt"),
		"usage":      strings.Fields("regionUsage totalSnapshotQuota currentSnapshotUsage totalVolumeQuota currentVolumeUsage"),
		"region":     strings.Fields("regionId sandboxClass totalCpuQuota currentCpuUsage totalMemoryQuota currentMemoryUsage totalDiskQuota currentDiskUsage totalGpuQuota currentGpuUsage maxCpuPerSandbox maxMemoryPerSandbox maxDiskPerSandbox maxDiskPerNonEphemeralSandbox maxCpuPerGpu maxMemoryPerGpu maxDiskPerGpu"),
		"quota":      strings.Fields("organizationId regionId sandboxClass totalCpuQuota totalMemoryQuota totalDiskQuota totalGpuQuota maxCpuPerSandbox maxMemoryPerSandbox maxDiskPerSandbox maxDiskPerNonEphemeralSandbox maxCpuPerGpu maxMemoryPerGpu maxDiskPerGpu maxSandboxLifespan"),
		"class":      strings.Fields("regionId sandboxClass gpuAvailable"),
		"audit":      strings.Fields("items total page totalPages"),
		"entry":      strings.Fields("id actorId actorEmail action createdAt"),
		"scenarios":  {"targets"},
		"scenario":   strings.Fields("targetType actions"),
	}
}

// The whole account side once, as a client sees it.
func TestAccountAnswers(t *testing.T) {
	w := newWorld(t)
	h := w.house()
	o := "/organizations/" + h.organization
	admin := "/admin" + o
	for _, c := range []struct {
		key, method, path, body string
		status                  int
		schema, inside          string
	}{
		{h.owner, "POST", "/api-keys", `{"name":"ci","permissions":["write:sandboxes"],"expiresAt":"2199-01-01T00:00:00.000Z"}`, 201, "newKey", ""},
		{h.owner, "POST", "/api-keys", `{"name":"ro","permissions":[],"expiresAt":null}`, 201, "newKey", ""},
		{h.owner, "POST", "/api-keys", `{"name":"all","unrestricted":true}`, 201, "newKey", ""},
		{h.owner, "GET", "/api-keys", "", 200, "key", "[]"},
		{h.owner, "GET", "/api-keys/ci", "", 200, "key", ""},
		{h.owner, "GET", "/api-keys/current", "", 200, "key", ""},
		{h.owner, "DELETE", "/api-keys/ro", "", 204, "", ""},
		{h.owner, "DELETE", "/api-keys/" + h.memberID + "/" + h.name, "", 204, "", ""},
		{h.owner, "GET", "/users/me", "", 200, "user", ""},
		{h.owner, "GET", "/organizations", "", 200, "org", "[]"},
		{h.owner, "GET", o, "", 200, "org", ""},
		{h.owner, "POST", "/organizations", `{"name":"n","defaultRegionId":"local"}`, 201, "org", ""},
		{h.owner, "PATCH", o + "/default-region", `{"defaultRegionId":"local"}`, 204, "", ""},
		{h.owner, "GET", o + "/usage", "", 200, "usage", ""},
		{h.owner, "GET", o + "/usage", "", 200, "region", "regionUsage"},
		{h.owner, "GET", o + "/available-sandbox-classes", "", 200, "class", "[]"},
		{h.owner, "POST", o + "/roles", `{"name":"r","description":"d","permissions":["read:limits"]}`, 201, "role", ""},
		{h.owner, "PUT", o + "/roles/" + h.role, `{"name":"r2","description":"d","permissions":[]}`, 200, "role", ""},
		{h.owner, "GET", o + "/roles", "", 200, "role", "[]"},
		{h.owner, "DELETE", o + "/roles/" + h.role, "", 204, "", ""},
		{h.owner, "GET", o + "/users", "", 200, "member", "[]"},
		{h.owner, "POST", o + "/users/" + h.memberID + "/access", `{"role":"owner","assignedRoleIds":[]}`, 200, "member", ""},
		{h.owner, "POST", o + "/invitations", `{"email":"new@example.com"}`, 201, "invitation", ""},
		{h.owner, "GET", o + "/invitations", "", 200, "invitation", "[]"},
		{h.owner, "PUT", o + "/invitations/" + h.invitation, `{"role":"member","assignedRoleIds":[]}`, 200, "invitation", ""},
		{h.guest, "GET", "/organizations/invitations", "", 200, "invitation", "[]"},
		{h.guest, "POST", "/organizations/invitations/" + h.invitation + "/accept", "", 200, "invitation", ""},
		{h.owner, "DELETE", o + "/users/" + h.memberID, "", 204, "", ""},
		{h.owner, "POST", o + "/preview-warning", `{"previewWarningEnabled":true}`, 204, "", ""},
		{h.owner, "GET", "/sandbox/" + h.sandbox + "/region-quota", "", 200, "quota", ""},
		{h.owner, "GET", "/sandbox/" + h.sandbox + "/organization", "", 200, "org", ""},
		{coretest.AdminSecret, "POST", "/admin/users", `{"name":"new","role":"user","personalOrganizationQuota":{"totalCpuQuota":4}}`, 201, "user", ""},
		{coretest.AdminSecret, "GET", "/admin/users", "", 200, "user", "[]"},
		{coretest.AdminSecret, "GET", "/admin/users/" + h.ownerID, "", 200, "user", ""},
		{coretest.AdminSecret, "POST", "/admin/organizations", `{"userId":"` + h.ownerID + `","name":"n","defaultRegionId":"local"}`, 201, "org", ""},
		{coretest.AdminSecret, "POST", admin + "/quota/local", `{"sandboxClass":"linux-vm","totalCpuQuota":1,"totalMemoryQuota":1,"totalDiskQuota":1,"totalGpuQuota":0}`, 201, "quota", ""},
		{coretest.AdminSecret, "GET", admin + "/quota/local/linux-vm", "", 200, "quota", ""},
		{coretest.AdminSecret, "PATCH", admin + "/quota/local", `{"totalCpuQuota":null,"totalMemoryQuota":null,"totalDiskQuota":9,"totalGpuQuota":null}`, 204, "", ""},
		{coretest.AdminSecret, "DELETE", admin + "/quota/local/linux-vm", "", 204, "", ""},
		{coretest.AdminSecret, "PATCH", o + "/quota", `{"maxCpuPerSandbox":4,"maxMemoryPerSandbox":null}`, 204, "", ""},
		{coretest.AdminSecret, "POST", o + "/suspend", `{"reason":"r","until":"2199-01-01T00:00:00Z","suspensionCleanupGracePeriodHours":1}`, 204, "", ""},
		{coretest.AdminSecret, "GET", o, "", 200, "org", ""},
		{coretest.AdminSecret, "POST", o + "/unsuspend", "", 204, "", ""},
		{coretest.AdminSecret, "POST", o + "/sandbox-default-limited-network-egress", `{"sandboxDefaultLimitedNetworkEgress":true}`, 204, "", ""},
		{h.owner, "GET", "/audit/scenarios", "", 200, "scenario", "targets"},
		{h.owner, "GET", "/audit/organizations/" + h.organization + "?limit=10", "", 200, "audit", ""},
		{h.owner, "DELETE", "/api-keys/nope", "", 404, "", ""},
		{h.owner, "DELETE", "/api-keys/first", "", 204, "", ""},
		{h.owner, "GET", "/users/me", "", 401, "", ""},
	} {
		res, body := request(t, c.method, w.url+"/api"+c.path, c.key, c.body)
		if res.StatusCode != c.status {
			t.Errorf("%s %s: got %d %s, want %d", c.method, c.path, res.StatusCode, body, c.status)
			continue
		}
		if c.schema == "" {
			continue
		}
		fields := pick(t, body, c.inside)
		for _, want := range accountFields()[c.schema] {
			if _, ok := fields[want]; !ok {
				t.Errorf("%s %s: %s lacks %s in %s", c.method, c.path, c.schema, want, body)
			}
		}
	}
}

func TestAccountBadInput(t *testing.T) {
	w := newWorld(t)
	h := w.house()
	o := "/organizations/" + h.organization
	for _, c := range []struct {
		method, path, body string
		status             int
		message            string
	}{
		{"POST", "/api-keys", `{"name":"x"}`, 400, "permissions is missing"},
		{"POST", "/api-keys", `{"permissions":[]}`, 400, "name"},
		{"POST", "/api-keys", `{"name":"x","permissions":["fly"]}`, 400, `permission "fly" is not known`},
		{"POST", "/api-keys", `{"name":"x","permissions":"all"}`, 400, "permissions"},
		{"POST", "/api-keys", `{"name":"x","permissions":["read:limits"],"unrestricted":true}`, 400, "exclude each other"},
		{"POST", "/api-keys", `{"name":"x","permissions":[],"expiresAt":"2001-01-01T00:00:00Z"}`, 400, "in the past"},
		{"POST", "/api-keys", `{"name":"x","permissions":[],"expiresAt":"soon"}`, 400, "expiresAt"},
		{"POST", "/api-keys", `{"name":"` + h.name + `","permissions":[]}`, 409, "is taken"},
		{"POST", "/organizations", `{}`, 400, "name"},
		{"POST", "/organizations", `{"name":"x","defaultRegionId":"mars"}`, 404, "mars"},
		{"PATCH", o + "/default-region", `{"defaultRegionId":"mars"}`, 404, "mars"},
		{"PATCH", o + "/default-region", `{}`, 400, "defaultRegionId"},
		{"POST", o + "/roles", `{"name":"x","description":"","permissions":["admin"]}`, 400, "admin"},
		{"POST", o + "/roles", `{"name":"x"}`, 400, "permissions"},
		{"POST", o + "/users/" + h.memberID + "/access", `{"role":"king"}`, 400, "role"},
		{"POST", o + "/users/" + h.memberID + "/access", `{"role":"member","assignedRoleIds":["x"]}`, 404, `role "x"`},
		{"POST", o + "/users/nobody/access", `{"role":"member"}`, 404, "nobody"},
		{"DELETE", o + "/users/" + h.ownerID, ``, 400, "needs an owner"},
		{"POST", o + "/invitations", `{"email":"x"}`, 400, "is not an address"},
		{"GET", "/audit/organizations/" + h.organization + "?action[like]=x", ``, 400, "cannot be filtered"},
		{"GET", "/audit/organizations/" + h.organization + "?statusCode[gt]=many", ``, 400, "is not a number"},
		{"GET", "/audit/organizations/" + h.organization + "?createdAt[gt]=now", ``, 400, "is not a time"},
		{"GET", "/audit/organizations/" + h.organization + "?limit=1000", ``, 400, "limit"},
		{"GET", "/audit/organizations/" + h.organization + "?action[in]=" + strings.Repeat("a,", 200), ``, 400, "at most 100"},
	} {
		res, body := request(t, c.method, w.url+"/api"+c.path, h.owner, c.body)
		if res.StatusCode != c.status || !strings.Contains(string(body), strings.ReplaceAll(c.message, `"`, `\"`)) {
			t.Errorf("%s %s %s: got %d %s, want %d with %q", c.method, c.path, c.body, res.StatusCode, body, c.status, c.message)
		}
	}
}

func (w *world) entries(key, path string) []wire.AuditLog {
	w.Helper()
	res, body := request(w.T, "GET", w.url+"/api"+path, key, "")
	var page wire.AuditPage
	if err := json.Unmarshal(body, &page); err != nil || res.StatusCode != 200 {
		w.Fatalf("%s: %d %s", path, res.StatusCode, body)
	}
	return page.Items
}

// trail waits until so many entries are written: that happens after answers.
func (w *world) trail(key, path string, n int) []wire.AuditLog {
	w.Helper()
	for {
		if all := w.entries(key, path); len(all) >= n || w.Context().Err() != nil {
			return all
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestEverythingThatChangesIsAudited(t *testing.T) {
	w := newWorld(t)
	h := w.house()
	call := func(key, method, path, body string) {
		request(t, method, w.url+"/api"+path, key, body, "User-Agent", "test/1", "X-Daytona-Source", "sdk-go")
	}
	call(h.owner, "POST", "/sandbox", `{"name":"made"}`)
	call(h.owner, "POST", "/sandbox/made/autostop/7", "")
	call(w.Key(t, h.principal, "poor", []string{}), "DELETE", "/sandbox/made", "")
	call(h.owner, "POST", "/sandbox/nope/stop", "")
	call(h.owner, "GET", "/sandbox/made", "")
	call("atl_nobody", "DELETE", "/sandbox/made", "")
	call(h.owner, "POST", "/api-keys", `{"name":"k","permissions":[]}`)
	call(h.owner, "POST", "/organizations/"+h.organization+"/roles", `{"name":"r","description":"","permissions":[]}`)
	call(w.stranger, "DELETE", "/sandbox/made", "")
	path := "/audit/organizations/" + h.organization
	var got []string
	for _, e := range w.trail(h.owner, path, 6) {
		got = append(got, fmt.Sprint(e.Action, " ", e.TargetType, " ", e.StatusCode, " ", e.ErrorMessage != ""))
		if e.ActorEmail != h.name+"@example.com" || e.IPAddress != "127.0.0.1" || e.UserAgent != "test/1" || e.Source != "sdk-go" ||
			e.ActorAPIKeyPrefix == "" || e.ActorAPIKeySuffix == "" || e.OrganizationID != h.organization || e.ID == "" || e.TargetID == "" {
			t.Errorf("got %+v", e)
		}
	}
	want := []string{
		"create organization_role 201 false", "create api_key 201 false", "stop sandbox 404 true", "delete sandbox 403 true",
		"set_auto_stop_interval sandbox 200 false", "create sandbox 200 false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	made := w.entries(h.owner, path+"?action[eq]=create&targetType[in]=sandbox,volume")
	if len(made) != 1 || len(made[0].TargetID) != 36 {
		t.Errorf("the id of what was made: got %+v", made)
	}
	for query, n := range map[string]int{
		"?limit=2": 2, "?limit=4&page=2": 2, "?statusCode[gte]=400": 2, "?targetId=nope": 1, "?action[not]=create": 3,
		"?from=2199-01-01T00:00:00Z": 0, "?to=2199-01-01T00:00:00Z": 6, "?action[in]=stop&action[in]=delete": 2, "?other=x": 6,
		"?nextToken=" + w.entries(h.owner, path+"?limit=2")[1].ID: 4,
	} {
		if got := w.entries(h.owner, path+query); len(got) != n {
			t.Errorf("%s: got %d entries, want %d", query, len(got), n)
		}
	}
	// The server's own log has what a stranger tried, in their organization.
	if all := w.trail(coretest.AdminSecret, "/admin/audit?actorEmail[eq]=stranger@example.com", 1); len(all) != 1 || all[0].StatusCode != 404 || all[0].TargetID != "made" {
		t.Errorf("got %+v", all)
	}
}

func TestAuditWords(t *testing.T) {
	targets := strings.Fields("api_key organization organization_invitation organization_role organization_user docker_registry runner sandbox snapshot user volume warm_pool region secret other identity_provider policy")
	for _, o := range append(api.Operations(), api.Extensions()...) {
		action, target := api.Audited(o)
		if (action == "") != (o.Method == http.MethodGet) {
			t.Errorf("%s: action %q", o.Key(), action)
		}
		if action != "" && !slices.Contains(targets, target) {
			t.Errorf("%s: target type %q", o.Key(), target)
		}
	}
}

func TestRateLimits(t *testing.T) {
	limits, err := auth.ParseLimits("authenticated=6/60, sandbox-create=2/60,sandbox-lifecycle=1/60,anonymous=3/60")
	if err != nil {
		t.Fatal(err)
	}
	s := gatewaytest.Serve(t, gatewaytest.New(t), func(c *gateway.Config) { c.Limits = limits })
	call := func(method, path, key string, status int, header, left string) {
		t.Helper()
		res, body := request(t, method, s.URL()+path, key, "")
		h := res.Header
		if res.StatusCode != status || h.Get("X-RateLimit-Remaining-"+header) != left || h.Get("X-RateLimit-Limit-"+header) == "" ||
			h.Get("X-RateLimit-Reset-"+header) == "" || (h.Get("Retry-After") != "") != (status == 429) {
			t.Errorf("%s %s: got %d %v %s, want %d and %s left of %s", method, path, res.StatusCode, h, body, status, left, header)
		}
	}
	for _, left := range []string{"2", "1", "0"} {
		call("GET", "/api/health", "", 200, "anonymous", left)
	}
	call("GET", "/api/health", "", 429, "anonymous", "0")
	call("POST", "/api/sandbox", gatewaytest.AdminKey, 400, "sandbox-create", "1")
	call("POST", "/api/sandbox", gatewaytest.AdminKey, 400, "sandbox-create", "0")
	call("POST", "/api/sandbox", gatewaytest.AdminKey, 429, "sandbox-create", "0")
	call("POST", "/api/sandbox/x/stop", gatewaytest.AdminKey, 404, "sandbox-lifecycle", "0")
	call("POST", "/api/sandbox/x/stop", gatewaytest.AdminKey, 429, "sandbox-lifecycle", "0")
	call("GET", "/api/sandbox", gatewaytest.AdminKey, 200, "authenticated", "0")
	call("GET", "/toolbox/x/files", gatewaytest.AdminKey, 429, "authenticated", "0")
	call("GET", "/api/sandbox", gatewaytest.ReaderKey, 200, "authenticated", "5") // another key
}

// An organization's own limit goes before the server's.
func TestOrganizationRateLimit(t *testing.T) {
	w := newWorld(t)
	h := w.house()
	request(t, "PATCH", w.url+"/api/organizations/"+h.organization+"/quota", coretest.AdminSecret, `{"authenticatedRateLimit":2,"authenticatedRateLimitTtlSeconds":60}`)
	for i, want := range []int{200, 200, 429} {
		if got := w.status("GET", "/api/users/me", h.owner); got != want {
			t.Errorf("request %d: got %d, want %d", i+1, got, want)
		}
	}
	if got := w.status("GET", "/api/users/me", w.stranger); got != 200 {
		t.Errorf("another organization: got %d", got)
	}
}

// Agents' calls count too: as requests, and for what they do.
func TestAgentsRateLimits(t *testing.T) {
	w := newWorld(t)
	h := w.house()
	request(t, "PATCH", w.url+"/api/organizations/"+h.organization+"/quota", coretest.AdminSecret,
		`{"authenticatedRateLimit":13,"authenticatedRateLimitTtlSeconds":60,"sandboxCreateRateLimit":2,"sandboxCreateRateLimitTtlSeconds":60,"sandboxLifecycleRateLimit":1,"sandboxLifecycleRateLimitTtlSeconds":60}`)
	for _, c := range []struct{ tool, args, want string }{
		{"sandbox_create", `{"name":"one"}`, "one"},
		{"sandbox_create", `{"name":"two"}`, "two"},
		{"sandbox_create", `{"name":"three"}`, "more than 2 requests in 1m0s (sandbox-create)"},
		{"sandbox_control", `{"id":"one","action":"stop"}`, "stopped"},
		{"sandbox_delete", `{"id":"one"}`, "more than 1 requests in 1m0s (sandbox-lifecycle)"},
		{"sandbox_list", `{}`, "two"},
	} {
		if _, got := w.call(h.owner, c.tool, c.args); !strings.Contains(got, c.want) {
			t.Errorf("%s %s: got %s, want %q", c.tool, c.args, got, c.want)
		}
	}
	if status, got := w.call(h.owner, "sandbox_list", `{}`); status != http.StatusTooManyRequests {
		t.Errorf("got %d %s, want 429", status, got)
	}
}

func TestBadRateLimits(t *testing.T) {
	for _, text := range []string{"x=1/1", "authenticated", "authenticated=1", "authenticated=0/1", "authenticated=1/0", "authenticated=-1/1", "authenticated=1/1h", "authenticated=1/100000"} {
		if got, err := auth.ParseLimits(text); err == nil {
			t.Errorf("%q: got %+v", text, got)
		}
	}
	if got, err := auth.ParseLimits(""); err != nil || len(got) != 0 {
		t.Errorf("nothing: got %+v, %v", got, err)
	}
}
