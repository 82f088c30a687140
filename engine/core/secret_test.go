package core_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/core"
	"github.com/atoll-sh/atoll/engine/secret"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// inside is the environment that a sandbox's toolbox holds.
type inside struct {
	mu   sync.Mutex
	env  map[string]string
	down bool
}

func (i *inside) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	var u wire.UpdateEnv
	if i.down || r.URL.Path != "/env" || json.NewDecoder(r.Body).Decode(&u) != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	maps.DeleteFunc(i.env, func(_, v string) bool { return u.UnsetValuePrefix != "" && strings.HasPrefix(v, u.UnsetValuePrefix) })
	maps.Copy(i.env, u.Set)
	w.WriteHeader(http.StatusNoContent)
}

func (i *inside) set(env map[string]string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.env = maps.Clone(env)
}

func newBox(t *testing.T) *secret.Box {
	t.Helper()
	box, err := secret.OpenFile(filepath.Join(t.TempDir(), "k"), true)
	if err != nil {
		t.Fatal(err)
	}
	return box
}

func newSecretRig(t *testing.T) (*rig, *inside) {
	t.Helper()
	in := &inside{env: map[string]string{}}
	r, p := newToolboxRig(t, in.ServeHTTP)
	r.Box = newBox(t)
	_ = p
	return r, in
}

func (r *rig) secret(name, value string, hosts ...string) engine.Secret {
	r.t.Helper()
	s, err := r.Secrets().Create(r.t.Context(), engine.CreateSecret{OrganizationID: org, Name: name, Value: value, Hosts: hosts})
	r.ok(err)
	return s
}

func (r *rig) resolved(sandbox string) map[string]string {
	r.t.Helper()
	list, err := r.SecretResolver().Resolve(r.t.Context(), sandbox)
	r.ok(err)
	out := map[string]string{}
	for _, b := range list {
		out[b.Placeholder] = b.Value.Reveal()
	}
	return out
}

func TestSecretsAreLateBound(t *testing.T) {
	r, in := newSecretRig(t)
	a, b := r.secret("a", "value-a", "api.example.com"), r.secret("b", "value-b")
	sb := r.create("box", func(c *engine.CreateSandbox) {
		c.Env, c.Secrets = map[string]string{"PLAIN": "1", "KEY": "mine"}, map[string]string{"KEY": "a"}
	})
	if !sb.Warm {
		t.Error("a secret forced a cold start")
	}
	want := map[string]string{"PLAIN": "1", "KEY": a.Placeholder}
	if d := cmp.Diff(want, r.runner.Launched(sb.ID).Env); d != "" {
		t.Error(d)
	}
	if !r.runner.Launched(sb.ID).Secrets {
		t.Error("the runner does not know that a secret may be sent somewhere")
	}
	if d := cmp.Diff(map[string]string{"PLAIN": "1", "KEY": "mine"}, sb.Env); d != "" {
		t.Errorf("the sandbox's own environment: %s", d)
	}
	in.set(r.runner.Launched(sb.ID).Env)
	if d := cmp.Diff(map[string]string{a.Placeholder: "value-a"}, r.resolved(sb.ID)); d != "" {
		t.Error(d)
	}

	// Replacing takes the old one away, and gives the covered variable back.
	got, err := r.Secrets().Attach(t.Context(), ref("box"), map[string]string{"OTHER": "b", "SAME": b.ID})
	r.ok(err)
	if d := cmp.Diff(map[string]string{"OTHER": b.ID, "SAME": b.ID}, got.Secrets); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]string{"PLAIN": "1", "KEY": "mine", "OTHER": b.Placeholder, "SAME": b.Placeholder}, in.env); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]string{b.Placeholder: "value-b"}, r.resolved(sb.ID)); d != "" {
		t.Error(d)
	}

	// A stopped sandbox is told when it starts, a fork inherits, a snapshot does not.
	fork, err := r.Snapshots().Fork(t.Context(), ref("box"), "child")
	r.ok(err)
	if d := cmp.Diff(r.runner.Launched(sb.ID).Env["PLAIN"], r.runner.Launched(fork.ID).Env["PLAIN"]); d != "" || r.runner.Launched(fork.ID).Env["OTHER"] != b.Placeholder {
		t.Errorf("fork got %v", r.runner.Launched(fork.ID).Env)
	}
	_, err = r.Snapshots().Save(t.Context(), ref("box"), "saved")
	r.ok(err)
	from := r.create("from", func(c *engine.CreateSandbox) { c.Snapshot = "saved" })
	if env := r.runner.Launched(from.ID).Env; env["OTHER"] != "" || env["PLAIN"] != "1" {
		t.Errorf("from a snapshot: got %v", env)
	}
	_, err = r.Sandboxes().Stop(t.Context(), ref("box"), engine.StopOptions{})
	r.ok(err)
	if got := r.resolved(sb.ID); len(got) > 0 {
		t.Errorf("a stopped sandbox resolves %v", got)
	}
	_, err = r.Secrets().Attach(t.Context(), ref("box"), map[string]string{"LATER": "a"})
	r.ok(err)
	_, err = r.Sandboxes().Start(t.Context(), ref("box"))
	r.ok(err)
	if d := cmp.Diff(map[string]string{"PLAIN": "1", "KEY": "mine", "LATER": a.Placeholder}, r.runner.Launched(sb.ID).Env); d != "" {
		t.Error(d)
	}
}

func TestDeletedSecretIsGoneAtOnce(t *testing.T) {
	r, in := newSecretRig(t)
	r.secret("a", "value-a")
	sb := r.create("box", func(c *engine.CreateSandbox) { c.Secrets = map[string]string{"KEY": "a"} })
	in.set(r.runner.Launched(sb.ID).Env)
	r.ok(r.Secrets().Delete(t.Context(), engine.SecretRef{OrganizationID: org, IDOrName: "a"}))
	if len(r.resolved(sb.ID)) > 0 || len(in.env) > 0 {
		t.Errorf("left: %v %v", r.resolved(sb.ID), in.env)
	}
	got, err := r.Sandboxes().Sandbox(t.Context(), ref("box"))
	if err != nil || len(got.Secrets) > 0 {
		t.Errorf("got %v, %v", got.Secrets, err)
	}
	wantKind(t, r.Secrets().Delete(t.Context(), engine.SecretRef{OrganizationID: org, IDOrName: "a"}), engine.KindNotFound)
}

func TestAttachIsWrittenBack(t *testing.T) {
	r, in := newSecretRig(t)
	a := r.secret("a", "value-a")
	r.secret("b", "value-b")
	sb := r.create("box", func(c *engine.CreateSandbox) { c.Secrets = map[string]string{"KEY": "a"} })
	in.mu.Lock()
	in.down = true
	in.mu.Unlock()
	if _, err := r.Secrets().Attach(t.Context(), ref("box"), map[string]string{"KEY": "b"}); err == nil {
		t.Error("attached though the toolbox does not answer")
	}
	if d := cmp.Diff(map[string]string{a.Placeholder: "value-a"}, r.resolved(sb.ID)); d != "" {
		t.Error(d)
	}
}

func TestSecretUpdate(t *testing.T) {
	r, _ := newSecretRig(t)
	a := r.secret("a", "old", "x.example.com")
	sb := r.create("box", func(c *engine.CreateSandbox) { c.Secrets = map[string]string{"KEY": "a"} })
	value, text := "new", "words"
	got, err := r.Secrets().Update(t.Context(), engine.SecretRef{OrganizationID: org, IDOrName: a.ID}, engine.UpdateSecret{Value: &value, Description: &text})
	r.ok(err)
	want := a
	want.Description, want.UpdatedAt = text, got.UpdatedAt
	if d := cmp.Diff(want, got); d != "" || !got.UpdatedAt.After(a.UpdatedAt) {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]string{a.Placeholder: "new"}, r.resolved(sb.ID)); d != "" {
		t.Error(d)
	}
}

func TestValuesAreSealedAndResealed(t *testing.T) {
	r, _ := newSecretRig(t)
	a := r.secret("a", "hunter2")
	row, err := r.store.Secret(t.Context(), engine.SecretRef{OrganizationID: org, IDOrName: a.ID})
	r.ok(err)
	if strings.Contains(fmt.Sprintf("%+v", row), "hunter2") {
		t.Error("the value is stored in the clear")
	}
	sb := r.create("box", func(c *engine.CreateSandbox) { c.Secrets = map[string]string{"KEY": "a"} })
	old, fresh := r.Box, newBox(t)
	r.Box = fresh
	if n, err := r.Resealed(t.Context()); n != 0 || err != nil {
		t.Errorf("sealed %d without the old key, %v", n, err)
	}
	if _, err := r.SecretResolver().Resolve(t.Context(), sb.ID); engine.KindOf(err) != engine.KindUnavailable {
		t.Errorf("got %v", err)
	}
	r.Box = old
	if n, err := r.Resealed(t.Context()); n != 0 || err != nil {
		t.Errorf("sealed %d that had the key, %v", n, err)
	}
	if d := cmp.Diff(map[string]string{a.Placeholder: "hunter2"}, r.resolved(sb.ID)); d != "" {
		t.Error(d)
	}
}

func TestBadSecrets(t *testing.T) {
	r, _ := newSecretRig(t)
	r.secret("known", "v")
	r.create("box")
	ctx := t.Context()
	long := strings.Repeat("x", 1025)
	for name, req := range map[string]engine.CreateSecret{
		"no name":         {Value: "v"},
		"odd name":        {Name: "a b", Value: "v"},
		"no value":        {Name: "a"},
		"large value":     {Name: "a", Value: strings.Repeat("x", 64<<10+1)},
		"NUL":             {Name: "a", Value: "a\x00b"},
		"description":     {Name: "a", Value: "v", Description: long},
		"host with port":  {Name: "a", Value: "v", Hosts: []string{"example.com:443"}},
		"host with a URL": {Name: "a", Value: "v", Hosts: []string{"https://example.com"}},
		"empty host":      {Name: "a", Value: "v", Hosts: []string{""}},
		"many hosts":      {Name: "a", Value: "v", Hosts: make([]string, 65)},
	} {
		req.OrganizationID = org
		_, err := r.Secrets().Create(ctx, req)
		if engine.KindOf(err) != engine.KindInvalid {
			t.Errorf("%s: got %v", name, err)
		}
	}
	_, err := r.Secrets().Create(ctx, engine.CreateSecret{OrganizationID: org, Name: "known", Value: "v"})
	wantKind(t, err, engine.KindConflict)
	for name, wanted := range map[string]map[string]string{
		"unknown":        {"A": "nobody"},
		"odd variable":   {"A-B": "known"},
		"empty secret":   {"A": ""},
		"digit in front": {"1A": "known"},
	} {
		_, err := r.Sandboxes().Create(ctx, engine.CreateSandbox{OrganizationID: org, Name: "no", Secrets: wanted})
		wantKind(t, err, engine.KindInvalid)
		if _, err = r.Secrets().Attach(ctx, ref("box"), wanted); engine.KindOf(err) != engine.KindInvalid {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if r.state("no") != engine.StateDestroyed {
		t.Error("a refused create left a sandbox")
	}
	_, err = r.Secrets().Attach(ctx, ref("nobody"), nil)
	wantKind(t, err, engine.KindNotFound)
	// Another organization's secret does not exist.
	_, err = r.Secrets().Secret(ctx, engine.SecretRef{OrganizationID: "other", IDOrName: "known"})
	wantKind(t, err, engine.KindNotFound)
	bad := ""
	_, err = r.Secrets().Update(ctx, engine.SecretRef{OrganizationID: org, IDOrName: "known"}, engine.UpdateSecret{Value: &bad})
	wantKind(t, err, engine.KindInvalid)
}

func TestNoSecretsWithoutKeys(t *testing.T) {
	r := newRig(t, func(c *core.Config) { c.Box = nil })
	_, err := r.Secrets().Create(t.Context(), engine.CreateSecret{OrganizationID: org, Name: "a", Value: "v"})
	wantKind(t, err, engine.KindUnsupported)
}
