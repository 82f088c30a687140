package gateway_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/gateway/api"
	"github.com/atoll-sh/atoll/gateway/gatewaytest"
	"github.com/atoll-sh/atoll/gateway/wire"
)

//go:generate go test -run TestCompatibilityPage|TestSkillReference . -update

var update = flag.Bool("update", false, "write golden files")

var param = regexp.MustCompile(`\{[^}]+\}`)

func TestEveryOperationHasARoute(t *testing.T) {
	s := gatewaytest.Serve(t, gatewaytest.New(t))
	routes := s.Routes()
	for _, o := range append(api.Operations(), api.Extensions()...) {
		if !routes[o.Key()] {
			t.Errorf("%s: in the table but not routed", o.Key())
		}
		delete(routes, o.Key())
	}
	if len(routes) > 0 {
		t.Errorf("routes without a row in the table: %v", routes)
	}
}

func TestTableCountsAsTheContract(t *testing.T) {
	if got, want := len(api.Operations()), 196; got != want {
		t.Errorf("got %d operations, want %d", got, want)
	}
	seen := map[string]bool{}
	for _, o := range api.Operations() {
		if seen[o.Key()] {
			t.Errorf("%s is there twice", o.Key())
		}
		seen[o.Key()] = true
	}
}

func TestMissingOperationsSaySo(t *testing.T) {
	s := gatewaytest.Serve(t, gatewaytest.New(t))
	for _, o := range api.Operations() {
		if o.Status != api.Missing {
			continue
		}
		res, body := request(t, o.Method, s.URL()+"/api"+param.ReplaceAllString(o.Path, "x"), gatewaytest.AdminKey, "")
		var p wire.Problem
		if err := json.Unmarshal(body, &p); err != nil {
			t.Errorf("%s: %v in %s", o.Key(), err, body)
			continue
		}
		if res.StatusCode != http.StatusNotImplemented || p.StatusCode != 501 || p.Code != wire.CodeNotBuilt ||
			p.Message == "" || p.Path == "" || p.Timestamp == "" || p.Reason != "Not Implemented" {
			t.Errorf("%s: got %d %+v", o.Key(), res.StatusCode, p)
		}
	}
}

func TestEveryOperationNeedsItsKey(t *testing.T) {
	s := gatewaytest.Serve(t, gatewaytest.New(t))
	for _, o := range append(api.Operations(), api.Extensions()...) {
		if o.Path == "/events" || o.Path == "/admin/shutdown" {
			continue // tested on their own
		}
		url := s.URL() + "/api" + param.ReplaceAllString(o.Path, "1")
		res, _ := request(t, o.Method, url, "", "")
		refused := res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusTooManyRequests
		if refused == (o.Access == api.Public) {
			t.Errorf("%s without a key: got %d, access is %q", o.Key(), res.StatusCode, o.Access)
		}
		res, _ = request(t, o.Method, url, gatewaytest.ReaderKey, "")
		denied := res.StatusCode == http.StatusForbidden
		if want := o.Access != "" && o.Access != api.Public && o.Access != "read:volumes"; denied != want {
			t.Errorf("%s with a poor key: got %d, access is %q", o.Key(), res.StatusCode, o.Access)
		}
	}
}

func TestCompatibilityPage(t *testing.T) {
	golden(t, filepath.Join("..", "docs", "compatibility.md"), compatibility())
}

func compatibility() string {
	var b strings.Builder
	built := 0
	for _, o := range api.Operations() {
		if o.Status == api.Built {
			built++
		}
	}
	fmt.Fprintf(&b, `# Compatibility of the control API

This page is generated from the table in `+"`gateway/api/operations.go`"+`:
change the table, then run `+"`go generate ./gateway`"+`.

%d of %d operations are built. The others answer 501 with the usual error body
and the code %s, so that a client can tell them from a fault.

Paths are below `+"`/api`"+`. *Access* is the permission that a key needs; "any key" needs none
in particular, "public" no key at all, "owner" one that is not restricted to a list of permissions and
whose user owns the organization, "admin" an administrator's. What belongs to another organization
answers 404, as what does not exist.

`, built, len(api.Operations()), wire.CodeNotBuilt)
	table(&b, "Operations of the contract", api.Operations())
	table(&b, "Our own", api.Extensions())
	b.WriteString(toolboxPage)
	return b.String()
}

const toolboxPage = `## The toolbox

` + "`/toolbox/{idOrName}/…`" + ` and the older ` + "`/api/toolbox/{idOrName}/toolbox/…`" + ` are forwarded to the toolbox in
the sandbox: GET with any key, all else and every WebSocket with ` + "`write:sandboxes`" + `. Paths below ` + "`/internal/`" + ` are refused, except the streaming exec of
the command line: the WebSocket ` + "`/toolbox/{idOrName}/internal/exec`" + `. Its first message is
text, a JSON object with ` + "`command` or `argv`, `cwd`, `env`, `user`, `tty`, `cols` and `rows`" + `. All
others are binary, with a first byte for the channel: 0 stdin, 1 stdout, 2
stderr, 3 control. Control messages are JSON: ` + "`resize`, `signal` and `eof`" + ` from the client,
` + "`exit` with `exitCode`, or `error`" + ` from the toolbox.
`

func table(b *strings.Builder, title string, ops []api.Operation) {
	fmt.Fprintf(b, "## %s\n\n| operation | status | access |\n| --- | --- | --- |\n", title)
	for _, o := range ops {
		access := o.Access
		if access == "" {
			access = "any key"
		}
		fmt.Fprintf(b, "| %s `%s` | %s | %s |\n", o.Method, o.Path, o.Status, access)
	}
	b.WriteString("\n")
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is out of date, run go generate ./gateway (-want +got):\n%s", path, diff)
	}
}

// required holds the fields that strict clients insist on, by schema.
func required() map[string][]string {
	item := strings.Fields("id organizationId name target user public networkBlockAll cpu gpu memory disk labels toolboxProxyUrl")
	return map[string][]string{
		"sandbox":      append(slices.Clone(item), "env", "kvm"),
		"item":         item,
		"page":         {"items", "nextCursor"},
		"numbered":     {"items", "total", "page", "totalPages"},
		"snapshot":     strings.Fields("id general name state size entrypoint cpu gpu mem disk errorReason createdAt updatedAt lastUsedAt sourceSandboxId"),
		"config":       strings.Fields("version oidc linkedAccountsEnabled announcements proxyTemplateUrl proxyToolboxUrl defaultSnapshot dashboardUrl maxAutoArchiveInterval maintananceMode environment"),
		"key":          strings.Fields("name value createdAt permissions lastUsedAt expiresAt userId"),
		"user":         strings.Fields("id name email emailVerified publicKeys createdAt"),
		"region":       strings.Fields("id name regionType createdAt updatedAt"),
		"organization": strings.Fields("id name createdBy personal createdAt updatedAt suspended suspendedAt suspensionReason suspendedUntil suspensionCleanupGracePeriodHours maxCpuPerSandbox maxMemoryPerSandbox maxDiskPerSandbox secretQuota maxSecretsPerSandbox snapshotDeactivationTimeoutMinutes sandboxLimitedNetworkEgress previewWarningEnabled ssoEnabled authenticatedRateLimit sandboxCreateRateLimit sandboxLifecycleRateLimit experimentalConfig otelConfig authenticatedRateLimitTtlSeconds sandboxCreateRateLimitTtlSeconds sandboxLifecycleRateLimitTtlSeconds"),
		"url":          {"url"},
	}
}

func TestRequiredFieldsAreAlwaysThere(t *testing.T) {
	s := gatewaytest.Serve(t, gatewaytest.New(t))
	post(t, s.URL()+"/api/sandbox", `{"name":"a"}`)
	for _, c := range []struct{ method, path, body, schema, inside string }{
		{"POST", "/sandbox", `{}`, "sandbox", ""},
		{"GET", "/sandbox/a", "", "sandbox", ""},
		{"GET", "/sandbox", "", "page", ""},
		{"GET", "/sandbox", "", "item", "items"},
		{"GET", "/sandbox/paginated", "", "numbered", ""},
		{"GET", "/sandbox/paginated", "", "sandbox", "items"},
		{"GET", "/snapshots", "", "numbered", ""},
		{"GET", "/snapshots", "", "snapshot", "items"},
		{"GET", "/snapshots/atoll-small", "", "snapshot", ""},
		{"GET", "/config", "", "config", ""},
		{"GET", "/api-keys/current", "", "key", ""},
		{"GET", "/users/me", "", "user", ""},
		{"GET", "/shared-regions", "", "region", "[]"},
		{"GET", "/organizations", "", "organization", "[]"},
		{"GET", "/sandbox/a/toolbox-proxy-url", "", "url", ""},
		{"GET", "/sandbox/a/build-logs-url", "", "url", ""},
	} {
		res, body := request(t, c.method, s.URL()+"/api"+c.path, gatewaytest.AdminKey, c.body)
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s %s: got %d %s", c.method, c.path, res.StatusCode, body)
			continue
		}
		fields := pick(t, body, c.inside)
		for _, want := range required()[c.schema] {
			if _, ok := fields[want]; !ok {
				t.Errorf("%s %s: %s lacks %s", c.method, c.path, c.schema, want)
			}
		}
	}
}

func pick(t *testing.T, body []byte, inside string) map[string]json.RawMessage {
	t.Helper()
	if inside == "[]" {
		body = first(t, body)
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(body, &fields); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	if inside == "" || inside == "[]" {
		return fields
	}
	return pick(t, first(t, fields[inside]), "")
}

func first(t *testing.T, list []byte) []byte {
	t.Helper()
	var all []json.RawMessage
	if err := json.Unmarshal(list, &all); err != nil || len(all) == 0 {
		t.Fatalf("%v in %s", err, list)
	}
	return all[0]
}

func request(t *testing.T, method, url, key, body string, headers ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, b
}

func post(t *testing.T, url, body string) []byte {
	t.Helper()
	res, b := request(t, http.MethodPost, url, gatewaytest.AdminKey, body)
	if res.StatusCode >= 300 {
		t.Fatalf("POST %s: %d %s", url, res.StatusCode, b)
	}
	return b
}
