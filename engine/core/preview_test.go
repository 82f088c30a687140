package core_test

import (
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
)

func TestPreviewSecrets(t *testing.T) {
	r := newRig(t)
	one, two := r.create("one"), r.create("two")
	p := r.Previews()
	a, err := p.Access(t.Context(), ref("one"))
	r.ok(err)
	again, err := p.AccessByID(t.Context(), one.ID)
	r.ok(err)
	if d := cmp.Diff(a, again); d != "" || a.Sandbox.ID != one.ID {
		t.Error(d)
	}
	other, err := p.AccessByID(t.Context(), two.ID)
	r.ok(err)
	rotated, err := p.Rotate(t.Context(), ref("one"))
	r.ok(err)
	seen := map[string]bool{}
	for _, x := range []engine.PreviewAccess{a, other, rotated} {
		for _, s := range []string{x.Token, x.SigningKey, string(x.CookieKey)} {
			if len(s) < 32 || seen[s] {
				t.Errorf("secret %q is short or used twice", s)
			}
			seen[s] = true
		}
	}
	if again, err := p.Access(t.Context(), ref("one")); err != nil || again.Token != rotated.Token {
		t.Errorf("got %v, want what Rotate returned", err)
	}
	_, err = p.AccessByID(t.Context(), "one") // names are nothing without their organization
	wantKind(t, err, engine.KindNotFound)
	_, err = p.Access(t.Context(), engine.SandboxRef{OrganizationID: "another", IDOrName: one.ID})
	wantKind(t, err, engine.KindNotFound)
	r.ok(second(r.Sandboxes().Delete(t.Context(), ref("one"))))
	_, err = p.AccessByID(t.Context(), one.ID)
	wantKind(t, err, engine.KindNotFound)
}

func TestPreviewLinks(t *testing.T) {
	r := newRig(t)
	sb := r.create("one")
	p := r.Previews()
	token, link, err := p.CreateLink(t.Context(), ref("one"), 3000, time.Minute)
	r.ok(err)
	if !regexp.MustCompile(`^[a-z0-9]{16}$`).MatchString(token) || link.SandboxID != sb.ID || link.Port != 3000 {
		t.Errorf("got token %q for %+v", token, link)
	}
	got, err := p.Link(t.Context(), token)
	if d := cmp.Diff(link, got); d != "" || err != nil {
		t.Error(err, d)
	}
	r.clock.Advance(time.Minute)
	_, err = p.Link(t.Context(), token)
	wantKind(t, err, engine.KindNotFound)

	token, _, err = p.CreateLink(t.Context(), ref("one"), 3000, time.Hour)
	r.ok(err)
	wantKind(t, p.ExpireLink(t.Context(), ref("one"), 3001, token), engine.KindNotFound)
	r.ok(p.ExpireLink(t.Context(), ref("one"), 3000, token))
	_, err = p.Link(t.Context(), token)
	wantKind(t, err, engine.KindNotFound)

	token, _, err = p.CreateLink(t.Context(), ref("one"), 3000, time.Hour)
	r.ok(err)
	r.ok(second(p.Rotate(t.Context(), ref("one"))))
	_, err = p.Link(t.Context(), token)
	wantKind(t, err, engine.KindNotFound)
}

func TestPreviewLinksThatAreRefused(t *testing.T) {
	r := newRig(t)
	r.create("one")
	for _, c := range []struct {
		name     string
		port     int
		lifetime time.Duration
		kind     engine.Kind
	}{
		{"one", 0, time.Minute, engine.KindInvalid},
		{"one", 65536, time.Minute, engine.KindInvalid},
		{"one", 80, 0, engine.KindInvalid},
		{"one", 80, 24*time.Hour + time.Second, engine.KindInvalid},
		{"two", 80, time.Minute, engine.KindNotFound},
	} {
		_, _, err := r.Previews().CreateLink(t.Context(), ref(c.name), c.port, c.lifetime)
		wantKind(t, err, c.kind)
	}
}

func TestHoldIsActivity(t *testing.T) {
	r := newRig(t)
	sb := r.create("one")
	release := r.Previews().Hold(sb.ID)
	if !r.busy() {
		t.Error("what is held is no activity")
	}
	release()
	release()
	if r.busy() {
		t.Error("what was released is still activity")
	}
}
