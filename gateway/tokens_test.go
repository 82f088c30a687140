package gateway_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/core"
)

// provider vouches for those whom the test names, by tokens that begin with
// what is known of them.
type provider map[string]engine.Identity

func (p provider) Identify(_ context.Context, token string) (engine.Identity, error) {
	id, ok := p[token]
	if !ok {
		return id, engine.Errorf(engine.KindUnauthenticated, "the access token is not good")
	}
	return id, nil
}

const issuerURL = "https://id.example"

// token is an access token of a subject with the scopes.
func (p provider) token(subject, email, organization string, expires time.Time, scopes ...string) string {
	text := "ey" + subject + "." + strings.ReplaceAll(strings.Join(scopes, "-"), ".", "") + organization + "." + email
	text = strings.Replace(text, "@example.com", "", 1)
	p[text] = engine.Identity{Issuer: issuerURL, Subject: subject, Name: subject, Email: email, OrganizationID: organization, Scopes: scopes, ExpiresAt: expires}
	return text
}

// Tokens speak for their user within their scopes, and for nobody else.
func TestAccessTokens(t *testing.T) {
	ids := provider{}
	w := newWorldWith(t, func(c *core.Config) { c.Identities = ids })
	h := w.house()
	owner, err := w.Accounts().Users.User(t.Context(), w.Admin(t), h.ownerID)
	if err != nil {
		t.Fatal(err)
	}
	hour := time.Now().Add(time.Hour)
	read := ids.token("ann", owner.Email, "", hour, engine.TokenRead)
	write := ids.token("ann", owner.Email, "", hour, engine.TokenRead, engine.TokenWrite)
	admin := ids.token("ann", owner.Email, "", hour, engine.TokenAdmin)
	named := ids.token("ann", owner.Email, "", hour, engine.DeleteSandboxes, "openid")
	bound := ids.token("ann", owner.Email, w.strange.OrganizationID, hour, engine.TokenAdmin)
	none := ids.token("ann", owner.Email, "", hour, "openid", "profile")
	unknown := ids.token("eve", "eve@example.com", "", hour, engine.TokenAdmin)
	nobody := ids.token("eve2", "", "", hour, engine.TokenAdmin)
	past := ids.token("past", owner.Email, "", time.Now().Add(-time.Second), engine.TokenAdmin)
	elsewhere := []string{"X-Daytona-Organization-ID", w.strange.OrganizationID}
	here := []string{"X-Daytona-Organization-ID", h.organization}

	sandbox := "/api/sandbox/" + h.sandbox
	for _, c := range []struct {
		who, token, method, path string
		headers                  []string
		want                     int
	}{
		{"a reader", read, "GET", sandbox, nil, 200},
		{"a reader", read, "POST", sandbox + "/stop", nil, 403},
		{"a reader", read, "POST", "/toolbox/" + h.sandbox + "/x", nil, 403},
		{"a reader", read, "GET", "/toolbox/" + h.sandbox + "/x", nil, 200},
		{"a writer", write, "POST", "/toolbox/" + h.sandbox + "/x", nil, 200},
		{"a writer", write, "POST", sandbox + "/autostop/7", nil, 200},
		{"a writer who names the organization", write, "GET", sandbox, here, 200},
		{"a writer who names another's", write, "GET", sandbox, elsewhere, 404},
		{"a writer who names none that is", write, "GET", sandbox, []string{"X-Daytona-Organization-ID", "x'--"}, 404},
		{"a writer", write, "POST", "/api/organizations", nil, 403},
		{"a writer", write, "DELETE", "/api/api-keys/" + h.name, nil, 403},
		{"a writer, for whom no key would hold", write, "POST", sandbox + "/ssh-access", nil, 403},
		{"one with a permission", named, "POST", sandbox + "/stop", nil, 403},
		{"one who stands for the owner", admin, "GET", "/api/webhooks/organizations/" + h.organization + "/endpoints", nil, 200},
		{"the owner is no administrator", admin, "GET", "/api/admin/users", nil, 403},
		{"one bound to another's organization", bound, "GET", sandbox, nil, 404},
		{"one bound elsewhere who names this one", bound, "GET", sandbox, here, 404},
		{"one without our scopes", none, "GET", sandbox, nil, 403},
		{"one whom the server does not know", unknown, "GET", sandbox, nil, 401},
		{"one without an address", nobody, "GET", sandbox, nil, 401},
		{"an expired one", past, "GET", sandbox, nil, 401},
		{"an invented one", "eyx.y.z", "GET", sandbox, nil, 401},
		{"one with a permission", named, "DELETE", sandbox, nil, 200},
	} {
		if got := w.status(c.method, c.path, c.token, c.headers...); got != c.want {
			t.Errorf("%s, %s %s %v: got %d, want %d", c.who, c.method, c.path, c.headers, got, c.want)
		}
	}
	if got := w.status("GET", "/api/sandbox", h.owner, elsewhere...); got != 200 {
		t.Errorf("a key that names another organization: got %d, want its own list", got)
	}
	if _, got := w.call(read, "sandbox_create", `{}`); !strings.Contains(got, `"error":{`) {
		t.Errorf("a reader's tools: got %s", got)
	}
	if _, got := w.call(write, "sandbox_create", `{"name":"by-token"}`); strings.Contains(got, `"isError":true`) || !strings.Contains(got, "by-token") {
		t.Errorf("a writer's tools: got %s", got)
	}
}

// Whom the provider vouches for gets a user and an organization of their own,
// once, when the server is told so.
func TestSignUp(t *testing.T) {
	ids := provider{}
	w := newWorldWith(t, func(c *core.Config) { c.Identities, c.SignUp = ids, true })
	hour := time.Now().Add(time.Hour)
	token := ids.token("new", "new@example.com", "", hour, engine.TokenWrite)
	statuses := make(chan int)
	for range 8 {
		go func() { statuses <- w.status("GET", "/api/sandbox", token) }()
	}
	for range 8 {
		if got := <-statuses; got != 200 {
			t.Errorf("got %d", got)
		}
	}
	res, body := request(t, "GET", w.url+"/api/users/me", token, "")
	var me struct{ ID, Name, Email string }
	if err := json.Unmarshal(body, &me); err != nil || res.StatusCode != 200 || me.Name != "new" || me.Email != "new@example.com" {
		t.Fatalf("got %d %s", res.StatusCode, body)
	}
	all, err := w.Store.Organizations(t.Context(), me.ID)
	if err != nil || len(all) != 1 || !all[0].Personal {
		t.Errorf("organizations: got %+v, %v", all, err)
	}
	// The provider's other subject with the same address is the same user, one
	// with none is another.
	same := ids.token("other", "new@example.com", "", hour, engine.TokenWrite, engine.TokenRead)
	if _, got := request(t, "GET", w.url+"/api/users/me", same, ""); !strings.Contains(string(got), me.ID) {
		t.Errorf("got %s, want %s", got, me.ID)
	}
	another := ids.token("another", "", "", hour, engine.TokenWrite)
	if _, got := request(t, "GET", w.url+"/api/users/me", another, ""); strings.Contains(string(got), me.ID) || !strings.Contains(string(got), "another") {
		t.Errorf("got %s", got)
	}
}

// A client that was refused learns where tokens come from.
func TestProtectedResource(t *testing.T) {
	ids := provider{}
	w := newWorldWith(t, func(c *core.Config) { c.Identities = ids })
	const init = `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`
	base := w.url + "/.well-known/oauth-protected-resource"
	hour := time.Now().Add(time.Hour)
	u, _ := w.User(t, "ann")
	for _, c := range []struct {
		method, path, key, want string
		status                  int
	}{
		{"POST", "/mcp", "", `Bearer realm="atoll", scope="atoll:read atoll:write", resource_metadata="` + base + `/mcp"`, 401},
		{"POST", "/mcp/x/core", "", `Bearer realm="atoll", scope="atoll:read atoll:write", resource_metadata="` + base + `/mcp"`, 401},
		{"POST", "/mcp", "eyx.y.z", `Bearer realm="atoll", error="invalid_token", resource_metadata="` + base + `/mcp"`, 401},
		{"POST", "/mcp", ids.token("ann", u.User.Email, "", hour, "openid"), `Bearer realm="atoll", error="insufficient_scope", scope="atoll:read atoll:write", resource_metadata="` + base + `/mcp"`, 403},
		{"GET", "/api/sandbox", "", `Bearer realm="atoll", scope="atoll:read atoll:write", resource_metadata="` + base + `"`, 401},
	} {
		res, body := request(t, c.method, w.url+c.path, c.key, init)
		if got := res.Header.Get("WWW-Authenticate"); res.StatusCode != c.status || got != c.want {
			t.Errorf("%s %s: got %d %s %s,\nwant %d %s", c.method, c.path, res.StatusCode, got, body, c.status, c.want)
		}
	}
	for path, resource := range map[string]string{"": w.url, "/mcp": w.url + "/mcp", "/mcp/x/core": w.url + "/mcp"} {
		res, body := request(t, "GET", base+path, "", "")
		var got struct {
			Resource string   `json:"resource"`
			Servers  []string `json:"authorization_servers"`
			Scopes   []string `json:"scopes_supported"`
		}
		if err := json.Unmarshal(body, &got); err != nil || res.StatusCode != http.StatusOK || got.Resource != resource || len(got.Servers) != 1 || got.Servers[0] != issuerURL || len(got.Scopes) != 3 {
			t.Errorf("%s: got %d %s", path, res.StatusCode, body)
		}
	}
	if _, body := request(t, "GET", w.url+"/api/config", "", ""); !strings.Contains(string(body), `"issuer":"`+issuerURL+`"`) {
		t.Errorf("config: got %s", body)
	}
	plain := newWorld(t)
	if res, _ := request(t, "GET", plain.url+"/.well-known/oauth-protected-resource/mcp", "", ""); res.StatusCode != 404 {
		t.Errorf("without a provider: got %d, want 404", res.StatusCode)
	}
	if res, _ := request(t, "POST", plain.url+"/mcp", "", init); res.Header.Get("WWW-Authenticate") != `Bearer realm="atoll"` {
		t.Errorf("without a provider: got %q", res.Header.Get("WWW-Authenticate"))
	}
	if got := plain.status("GET", "/api/sandbox", "eyx.y.z"); got != 401 {
		t.Errorf("a token without a provider: got %d", got)
	}
}
