package gateway_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/api"
)

// limited makes a key with the scope and every permission that goes with it.
func (w *world) limited(p engine.Principal, name string, scope engine.Scope) string {
	w.Helper()
	granted := slices.DeleteFunc(engine.Permissions(), func(s string) bool { return !scope.Grants(s) })
	_, secret, err := w.Accounts().Keys.Create(w.Context(), p, engine.CreateKey{Name: name, Permissions: granted, Scope: scope})
	if err != nil {
		w.Fatal(err)
	}
	return secret
}

// checkLimited comes with the owner's own keys, limited to reading and to
// sandboxes that are labelled as those of the house are not.
func (w *world) checkLimited(o api.Operation, r row, h house) {
	if o.Access == api.Public {
		return
	}
	path := h.paths(o)[0]
	reading := engine.Scope{ReadOnly: true}
	want := http.StatusForbidden
	if o.Access == "" || reading.Grants(o.Access) {
		want = 0
	}
	if o.Method != http.MethodGet && want == 0 {
		w.Errorf("a key that only reads may change something")
	}
	w.expect("a key that only reads", o, r, path, w.limited(h.principal, "reads", reading), want)

	elsewhere := engine.Scope{Labels: map[string]string{"team": "another"}}
	key := w.limited(h.principal, "elsewhere", elsewhere)
	switch {
	case o.Access != "" && !elsewhere.Grants(o.Access):
		w.expect("a key for other sandboxes", o, r, path, key, http.StatusForbidden)
	case r.scope == object && strings.Contains(o.Path, "{sandbox") && o.Status == api.Built:
		for _, path := range h.paths(o) {
			_, got, _ := w.expect("a key for other sandboxes", o, r, path, key, http.StatusNotFound)
			_, want, _ := w.expect("a key for other sandboxes", o, r, nowhere(h).paths(o)[0], key, http.StatusNotFound)
			if faceless(got, h) != faceless(want, nowhere(h)) {
				w.Errorf("a key for other sandboxes can tell what exists from what does not: %+v and %+v", got, want)
			}
		}
	case o.Method == http.MethodGet && o.Status == api.Built:
		if _, body := w.send(o.Method, path, key, r); strings.Contains(body, h.sandbox) {
			w.Errorf("a key for other sandboxes is told of %s: %s", h.sandbox, body)
		}
	}
}

// A key for labelled sandboxes lives among these as if there were no others.
func TestKeysForLabelledSandboxes(t *testing.T) {
	w := newWorld(t)
	h := w.house()
	team := engine.Scope{Labels: map[string]string{"team": "red"}}
	key := w.limited(h.principal, "red", team)
	do := func(method, path, body string, want int, headers ...string) string {
		t.Helper()
		res, got := request(t, method, w.url+path, key, body, headers...)
		if res.StatusCode != want {
			t.Fatalf("%s %s %s: got %d %s, want %d", method, path, body, res.StatusCode, got, want)
		}
		return string(got)
	}
	feed, _ := w.events(key)
	socket, _ := w.socket(key)
	w.create(h.organization, "unseen")

	made := do("POST", "/api/sandbox", `{"name":"mine","labels":{"k":"v"}}`, 200)
	var sb struct {
		ID     string            `json:"id"`
		Labels map[string]string `json:"labels"`
	}
	if err := json.Unmarshal([]byte(made), &sb); err != nil || sb.Labels["team"] != "red" || sb.Labels["k"] != "v" {
		t.Fatalf("got %s, %v", made, err)
	}
	for what, got := range map[string]string{"the feed": w.next(feed), "the socket": frame(t, socket)} {
		if !strings.Contains(got, `"mine"`) {
			t.Errorf("%s: the first that is told is %s", what, got)
		}
	}
	do("POST", "/api/sandbox", `{"name":"theirs","labels":{"team":"blue"}}`, 403)
	do("PUT", "/api/sandbox/mine/labels", `{"labels":{"team":"blue"}}`, 403)
	do("PUT", "/api/sandbox/mine/labels", `{"labels":{"other":"x"}}`, 403)
	do("PUT", "/api/sandbox/mine/labels", `{"labels":{"team":"red","other":"x"}}`, 200)
	do("POST", "/api/warm-pools", `{"snapshot":"`+h.name+`","pool":1,"target":"local"}`, 403)
	for _, list := range []string{
		do("GET", "/api/sandbox", "", 200), do("GET", "/api/sandbox/paginated", "", 200),
		do("GET", "/api/sandbox?labels=%7B%22other%22%3A%22x%22%7D", "", 200),
	} {
		if !strings.Contains(list, sb.ID) || strings.Contains(list, h.sandbox) || strings.Contains(list, "unseen") {
			t.Errorf("got %s", list)
		}
	}
	if list := do("GET", "/api/sandbox?labels=%7B%22team%22%3A%22blue%22%7D", "", 200); list != "[]" && !strings.Contains(list, `"items":[]`) {
		t.Errorf("of another team: got %s", list)
	}
	do("POST", "/toolbox/mine/x", "", 200)
	do("POST", "/toolbox/"+h.name+"/x", "", 404)
	do("GET", "/toolbox/"+h.sandbox+"/x", "", 404)
	do("GET", "/preview/3000-"+h.sandbox+"/", "", 404)

	// Found by somebody else a moment ago, it stays unseen.
	if got := w.status("POST", "/toolbox/"+h.name+"/x", h.owner); got != 200 {
		t.Errorf("the owner: got %d", got)
	}
	do("POST", "/toolbox/"+h.name+"/x", "", 404)

	for _, c := range []struct{ tool, args, want string }{
		{"sandbox_list", `{}`, "mine"},
		{"sandbox_exec", `{"id":"` + h.name + `","command":"id"}`, "not found"},
		{"sandbox_read", `{"id":"` + h.sandbox + `","path":"/etc/passwd"}`, "not found"},
		{"sandbox_control", `{"id":"` + h.sandbox + `","action":"stop"}`, "not found"},
		{"sandbox_delete", `{"id":"` + h.name + `"}`, "not found"},
		{"sandbox_snapshot", `{"id":"` + h.name + `","name":"x"}`, "not found"},
		{"sandbox_preview", `{"id":"` + h.name + `","port":3000}`, "not found"},
	} {
		if _, got := w.call(key, c.tool, c.args); !strings.Contains(got, c.want) || strings.Contains(got, "unseen") {
			t.Errorf("%s %s: got %s, want %q", c.tool, c.args, got, c.want)
		}
	}

	fork := do("POST", "/api/sandbox/mine/fork", `{"name":"child"}`, 200)
	if !strings.Contains(fork, `"team":"red"`) {
		t.Errorf("a fork: got %s", fork)
	}
	// Out of the team, it does not exist any more.
	labels := map[string]string{}
	ref := engine.SandboxRef{OrganizationID: h.organization, IDOrName: "mine"}
	if _, err := w.Sandboxes().Update(t.Context(), ref, engine.UpdateSandbox{Labels: &labels}); err != nil {
		t.Fatal(err)
	}
	do("GET", "/api/sandbox/mine", "", 404)
	do("POST", "/toolbox/mine/x", "", 404)
}

// A key for some tools has no others, at list and at call.
func TestKeysForSomeTools(t *testing.T) {
	w := newWorld(t)
	h := w.house()
	for _, c := range []struct {
		scope     engine.Scope
		has, lack []string
	}{
		{engine.Scope{Tools: []string{"sandbox_list", "sandbox_exec"}}, []string{"sandbox_list", "sandbox_exec"}, []string{"sandbox_delete", "sandbox_read"}},
		{engine.Scope{Tools: []string{"sandbox_list", "sandbox_exec"}, ReadOnly: true}, []string{"sandbox_list"}, []string{"sandbox_exec", "sandbox_delete", "sandbox_read"}},
		{engine.Scope{ReadOnly: true}, []string{"sandbox_list", "sandbox_read"}, []string{"sandbox_exec", "sandbox_delete"}},
		{engine.Scope{Tools: []string{"core"}}, []string{"sandbox_list", "sandbox_exec", "sandbox_delete"}, nil},
		{engine.Scope{Tools: []string{"activity", "sandbox_read"}}, []string{"sandbox_activity", "sandbox_read"}, []string{"sandbox_list", "sandbox_exec"}},
	} {
		key := w.limited(h.principal, strings.Join(c.has, " ")+"…"+strings.Join(c.lack, " "), c.scope)
		_, list := w.ask(key, "tools/list", `{}`)
		for _, tool := range append(c.has, c.lack...) {
			listed := strings.Contains(list, `"name":"`+tool+`"`)
			_, got := w.call(key, tool, `{"id":"absent","command":"id","path":"/x"}`)
			called := !strings.Contains(got, `"error":{`)
			if want := slices.Contains(c.has, tool); listed != want || called != want {
				t.Errorf("%+v, %s: listed %v, called %v: %s", c.scope, tool, listed, called, got)
			}
		}
		// Resources are files in another form.
		_, got := w.ask(key, "resources/list", `{}`)
		if shown, want := strings.Contains(got, "sandbox://"), !slices.Contains(c.lack, "sandbox_read"); shown != want {
			t.Errorf("%+v: resources shown: %v: %s", c.scope, shown, got)
		}
		if _, got = w.ask(key, "resources/read", `{"uri":"sandbox://mine/etc/hostname"}`); slices.Contains(c.lack, "sandbox_read") && !strings.Contains(got, "sandbox_read") {
			t.Errorf("%+v: a file is read: %s", c.scope, got)
		}
	}
}

// Limits that cannot be kept are refused, and leave no key.
func TestBadScopes(t *testing.T) {
	w := newWorld(t)
	h := w.house()
	for body, want := range map[string]string{
		`{"name":"k","permissions":[],"scope":{"tools":["nonsense"]}}`:                                      "tool",
		`{"name":"k","unrestricted":true,"scope":{"readOnly":true}}`:                                        "unrestricted",
		`{"name":"k","permissions":["write:sandboxes"],"scope":{"readOnly":true}}`:                          "write:sandboxes",
		`{"name":"k","permissions":["manage:api_keys"],"scope":{"tools":["core"]}}`:                         "manage:api_keys",
		`{"name":"k","permissions":["read:audit_logs"],"scope":{"labels":{"a":"b"}}}`:                       "read:audit_logs",
		`{"name":"k","permissions":[],"scope":{"labels":{"":"b"}}}`:                                         "labels",
		`{"name":"k","permissions":[],"scope":{"labels":{"a":"` + strings.Repeat("x", 1<<12) + `"}}}`:       "label",
		`{"name":"k","permissions":["write:snapshots"],"scope":{"labels":{"a":"b"},"tools":["sandbox_x"]}}`: "tool",
	} {
		res, got := request(t, "POST", w.url+"/api/api-keys", h.owner, body)
		if res.StatusCode != 400 || !strings.Contains(string(got), want) {
			t.Errorf("%s: got %d %s, want 400 about %s", body, res.StatusCode, got, want)
		}
	}
	if res, got := request(t, "GET", w.url+"/api/api-keys/k", h.owner, ""); res.StatusCode != 404 {
		t.Errorf("got %d %s", res.StatusCode, got)
	}
	res, got := request(t, "POST", w.url+"/api/api-keys", h.owner, `{"name":"k","permissions":[],"scope":{"tools":["core"],"labels":{"a":"b"},"readOnly":true}}`)
	if res.StatusCode != 201 {
		t.Fatalf("got %d %s", res.StatusCode, got)
	}
	if _, got := request(t, "GET", w.url+"/api/api-keys/k", h.owner, ""); !strings.Contains(string(got), `"scope":{"tools":["core"],"labels":{"a":"b"},"readOnly":true}`) {
		t.Errorf("got %s", got)
	}
}
