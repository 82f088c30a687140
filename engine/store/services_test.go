package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/secret"
	"github.com/atoll-sh/atoll/engine/store"
)

func secretOf(name string) store.Secret {
	id := "id-" + name
	return store.Secret{
		Secret: engine.Secret{
			ID: id, OrganizationID: "org", Name: name, Description: "d", Hosts: []string{"a.example.com"},
			Placeholder: secret.Placeholder(id), CreatedAt: now, UpdatedAt: now,
		},
		Sealed: secret.Sealed{KeyID: "k1", Text: "sealed-" + name},
	}
}

func secretRef(idOrName string) engine.SecretRef {
	return engine.SecretRef{OrganizationID: "org", IDOrName: idOrName}
}

func testSecrets(t *testing.T, s *store.Store) {
	ctx := t.Context()
	want := secretOf("one")
	if err := s.InsertSecret(ctx, want); err != nil {
		t.Fatal(err)
	}
	wantKind(t, s.InsertSecret(ctx, store.Secret{Secret: engine.Secret{ID: "x", OrganizationID: "org", Name: "one"}}), engine.KindConflict)
	for _, ref := range []string{"one", want.ID} {
		got, err := s.Secret(ctx, secretRef(ref))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
	_, err := s.Secret(ctx, engine.SecretRef{OrganizationID: "other", IDOrName: "one"})
	wantKind(t, err, engine.KindNotFound)

	want.Description, want.Hosts, want.Sealed.Text, want.UpdatedAt = "", nil, "fresh", now.Add(time.Second)
	if err := s.UpdateSecret(ctx, want); err != nil {
		t.Fatal(err)
	}
	foreign := want
	foreign.OrganizationID = "other"
	wantKind(t, s.UpdateSecret(ctx, foreign), engine.KindNotFound)
	got, err := s.SecretsByID(ctx, "org", []string{want.ID, "gone"})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]store.Secret{want}, got); d != "" {
		t.Error(d)
	}
	sb := sandbox("user")
	sb.Secrets = map[string]string{"KEY": want.ID}
	insert(t, s, sb)
	insert(t, s, sandbox("other"))
	users, err := s.SandboxesWithSecret(ctx, "org", want.ID)
	if err != nil || len(users) != 1 || users[0].ID != sb.ID {
		t.Errorf("got %d users, %v, want the one", len(users), err)
	}
	wantKind(t, s.DeleteSecret(ctx, "other", want.ID), engine.KindNotFound)
	if err := s.DeleteSecret(ctx, "org", want.ID); err != nil {
		t.Fatal(err)
	}
	wantKind(t, s.DeleteSecret(ctx, "org", want.ID), engine.KindNotFound)
}

func testSecretPages(t *testing.T, s *store.Store) {
	ctx := t.Context()
	for i := range 7 {
		sec := secretOf(fmt.Sprintf("Sec_%d", i))
		sec.CreatedAt, sec.UpdatedAt = now.Add(time.Duration(i)*time.Second), now.Add(-time.Duration(i/3)*time.Second)
		if err := s.InsertSecret(ctx, sec); err != nil {
			t.Fatal(err)
		}
	}
	for _, sort := range []string{"", "name", "createdAt", "updatedAt"} {
		for _, asc := range []bool{true, false} {
			q := engine.SecretQuery{OrganizationID: "org", Sort: sort, Ascending: asc}
			all, err := s.ListSecrets(ctx, q)
			if err != nil || all.Total != 7 || len(all.Items) != 7 || all.Next != "" {
				t.Fatalf("%s: got %d of %d, next %q, %v", sort, len(all.Items), all.Total, all.Next, err)
			}
			var walked []engine.Secret
			for q.Limit = 3; ; {
				p, err := s.ListSecrets(ctx, q)
				if err != nil {
					t.Fatal(err)
				}
				walked = append(walked, p.Items...)
				if q.Cursor = p.Next; q.Cursor == "" {
					break
				}
			}
			if d := cmp.Diff(all.Items, walked); d != "" {
				t.Errorf("%s %v: %s", sort, asc, d)
			}
		}
	}
	p, err := s.ListSecrets(ctx, engine.SecretQuery{OrganizationID: "org", Name: "sec_3"})
	if err != nil || p.Total != 1 || p.Items[0].Name != "Sec_3" {
		t.Errorf("by name: got %+v, %v", p, err)
	}
	for _, q := range []engine.SecretQuery{{Sort: "value"}, {Limit: -1}, {Limit: 201}, {Cursor: "x"}, {Cursor: "e30"}} {
		_, err := s.ListSecrets(ctx, q)
		wantKind(t, err, engine.KindInvalid)
	}
}

func testSeals(t *testing.T, s *store.Store) {
	ctx := t.Context()
	a, b := secretOf("a"), secretOf("b")
	b.Sealed.KeyID = "k2"
	for _, sec := range []store.Secret{a, b} {
		if err := s.InsertSecret(ctx, sec); err != nil {
			t.Fatal(err)
		}
	}
	old, err := s.SealedBefore(ctx, "k2")
	want := []store.Resealable{{Table: "secrets", ID: a.ID, OrganizationID: "org", Sealed: a.Sealed}}
	if d := cmp.Diff(want, old); err != nil || d != "" {
		t.Fatal(err, d)
	}
	fresh := secret.Sealed{KeyID: "k2", Text: "again"}
	if err := s.Reseal(ctx, old[0], fresh); err != nil {
		t.Fatal(err)
	}
	// One that changed since it was read is left alone.
	if err := s.Reseal(ctx, old[0], secret.Sealed{KeyID: "k3", Text: "late"}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Secret(ctx, secretRef("a"))
	if err != nil || got.Sealed != fresh {
		t.Errorf("got %+v, %v, want %+v", got.Sealed, err, fresh)
	}
	if left, err := s.SealedBefore(ctx, "k2"); err != nil || len(left) > 0 {
		t.Errorf("left %+v, %v", left, err)
	}
}

func testRegistries(t *testing.T, s *store.Store) {
	ctx := t.Context()
	want := store.Registry{
		Registry: engine.Registry{
			ID: "r", OrganizationID: "org", Name: "one", URL: "u", Username: "n", Project: "p", CreatedAt: now, UpdatedAt: now,
		},
		Sealed: secret.Sealed{KeyID: "k1", Text: "sealed"},
	}
	if err := s.InsertRegistry(ctx, want); err != nil {
		t.Fatal(err)
	}
	twin := want
	twin.ID = "r2"
	wantKind(t, s.InsertRegistry(ctx, twin), engine.KindConflict)
	want.Name, want.Sealed.Text = "two", "fresh"
	if err := s.UpdateRegistry(ctx, want); err != nil {
		t.Fatal(err)
	}
	got, err := s.Registry(ctx, "org", "r")
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Error(err, d)
	}
	list, err := s.ListRegistries(ctx, "org")
	if d := cmp.Diff([]store.Registry{want}, list); err != nil || d != "" {
		t.Error(err, d)
	}
	if list, err := s.ListRegistries(ctx, "other"); err != nil || len(list) > 0 {
		t.Errorf("got %v, %v", list, err)
	}
	_, err = s.Registry(ctx, "other", "r")
	wantKind(t, err, engine.KindNotFound)
	foreign := want
	foreign.OrganizationID = "other"
	wantKind(t, s.UpdateRegistry(ctx, foreign), engine.KindNotFound)
	wantKind(t, s.DeleteRegistry(ctx, "other", "r"), engine.KindNotFound)
	if err := s.DeleteRegistry(ctx, "org", "r"); err != nil {
		t.Fatal(err)
	}
}

func testWarmPools(t *testing.T, s *store.Store) {
	ctx := t.Context()
	want := engine.WarmPool{
		ID: "p", OrganizationID: "org", SnapshotID: "s", Snapshot: "name", Target: "local", Size: 3, CreatedAt: now, UpdatedAt: now,
	}
	if err := s.InsertWarmPool(ctx, want); err != nil {
		t.Fatal(err)
	}
	twin := want
	twin.ID = "p2"
	wantKind(t, s.InsertWarmPool(ctx, twin), engine.KindConflict)
	twin.OrganizationID = "other"
	if err := s.InsertWarmPool(ctx, twin); err != nil {
		t.Fatal(err)
	}
	want.Size, want.UpdatedAt = 0, now.Add(time.Second)
	if err := s.ResizeWarmPool(ctx, "org", "p", 0, want.UpdatedAt); err != nil {
		t.Fatal(err)
	}
	wantKind(t, s.ResizeWarmPool(ctx, "other", "p", 1, now), engine.KindNotFound)
	got, err := s.WarmPools(ctx, "org")
	if d := cmp.Diff([]engine.WarmPool{want}, got); err != nil || d != "" {
		t.Error(err, d)
	}
	if all, err := s.WarmPools(ctx, ""); err != nil || len(all) != 2 {
		t.Errorf("got %v, %v", all, err)
	}
	wantKind(t, s.DeleteWarmPool(ctx, "other", "p"), engine.KindNotFound)
	if err := s.DeleteWarmPool(ctx, "org", "p"); err != nil {
		t.Fatal(err)
	}
}

func testImageUses(t *testing.T, s *store.Store) {
	ctx := t.Context()
	add := func(id string, change func(*engine.Snapshot)) {
		sn := engine.Snapshot{ID: id, OrganizationID: "org", Name: id, State: engine.SnapshotActive, Image: "debian:12", ImageDigest: "sha256:ab"}
		change(&sn)
		if err := s.InsertSnapshot(ctx, sn); err != nil {
			t.Fatal(err)
		}
	}
	uses := func(image, digest string, want int) {
		t.Helper()
		if got, err := s.ImageUses(ctx, image, digest); err != nil || got != want {
			t.Errorf("%s %s: got %d, %v, want %d", image, digest, got, err, want)
		}
	}
	add("active", func(*engine.Snapshot) {})
	add("off", func(sn *engine.Snapshot) { sn.State = engine.SnapshotInactive })
	add("failed", func(sn *engine.Snapshot) { sn.State = engine.SnapshotError })
	uses("debian:12", "", 1)
	add("saved", func(sn *engine.Snapshot) { sn.State, sn.Disk = engine.SnapshotInactive, "d" })
	add("alias", func(sn *engine.Snapshot) { sn.Image = "debian:bookworm" })
	add("bare", func(sn *engine.Snapshot) { sn.Image, sn.ImageDigest = "alpine:3", "" })
	uses("debian:12", "", 2)
	uses("debian:12", "sha256:ab", 3)
	uses("nothing", "", 0)
	sb := sandbox("user")
	sb.Image, sb.ImageDigest = "debian:11", "sha256:ab"
	insert(t, s, sb)
	uses("debian:12", "sha256:ab", 4)
	sb.State = engine.StateDestroyed
	if err := s.UpdateSandbox(ctx, sb); err != nil {
		t.Fatal(err)
	}
	uses("debian:12", "sha256:ab", 3)
	if sn, err := s.SnapshotByID(ctx, "off"); err != nil || sn.Name != "off" {
		t.Errorf("got %+v, %v", sn, err)
	}
	_, err := s.SnapshotByID(ctx, "nobody")
	wantKind(t, err, engine.KindNotFound)
}

func testWebhooks(t *testing.T, s *store.Store) {
	ctx := t.Context()
	_, err := s.WebhookApp(ctx, "org")
	wantKind(t, err, engine.KindNotFound)
	for range 2 {
		if err := s.EnsureWebhookApp(ctx, "org", now); err != nil {
			t.Fatal(err)
		}
	}
	e := store.Endpoint{
		Endpoint: engine.Endpoint{ID: "e", OrganizationID: "org", URL: "u", Description: "d", Events: []string{"x"}, CreatedAt: now, UpdatedAt: now},
		Sealed:   secret.Sealed{KeyID: "k", Text: "sealed"},
	}
	if err := s.InsertEndpoint(ctx, e); err != nil {
		t.Fatal(err)
	}
	e.Disabled, e.Reason, e.Events = true, "why", nil
	if err := s.UpdateEndpoint(ctx, e); err != nil {
		t.Fatal(err)
	}
	for _, of := range []string{"org", ""} {
		list, err := s.Endpoints(ctx, of)
		if d := cmp.Diff([]store.Endpoint{e}, list); err != nil || d != "" {
			t.Error(err, d)
		}
	}
	m := engine.Message{
		ID: "m1", OrganizationID: "org", Event: "x", Payload: []byte(`{"a":1}`), CreatedAt: now,
		Deliveries: []engine.Delivery{
			{EndpointID: "e", State: engine.DeliveryPending, NextAt: now}, {EndpointID: "f", State: engine.DeliveryPending, NextAt: now.Add(time.Hour)},
		},
	}
	if err := s.InsertMessage(ctx, m); err != nil {
		t.Fatal(err)
	}
	wantKind(t, s.InsertMessage(ctx, m), engine.KindConflict)
	if err := s.InsertMessage(ctx, engine.Message{ID: "m2", OrganizationID: "org", Payload: []byte(`{}`), CreatedAt: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if n, err := s.PendingDeliveries(ctx, "org"); err != nil || n != 2 {
		t.Errorf("got %d, %v", n, err)
	}
	due, next, err := s.DueDeliveries(ctx, now, nil, 10)
	want := store.Delivery{MessageID: "m1", EndpointID: "e", OrganizationID: "org", Event: "x", Payload: m.Payload, NextAt: now}
	if d := cmp.Diff([]store.Delivery{want}, due); err != nil || d != "" || !next.Equal(now.Add(time.Hour)) {
		t.Errorf("next %v, %v %s", next, err, d)
	}
	if due, _, err := s.DueDeliveries(ctx, now, []string{"e"}, 10); err != nil || len(due) > 0 {
		t.Errorf("got %v, %v", due, err)
	}
	for i, mine := range []bool{true, false} { // two servers want the same
		if got, err := s.ClaimDelivery(ctx, due[0], now.Add(time.Minute)); err != nil || got != mine {
			t.Errorf("claim %d: got %v, %v", i, got, err)
		}
	}
	a := engine.Attempt{ID: "a", MessageID: "m1", EndpointID: "e", At: now, Took: time.Second, Status: 500, Error: "bad"}
	if err := s.FinishDelivery(ctx, "org", a, engine.Delivery{State: engine.DeliveryDead, Tries: 1}); err != nil {
		t.Fatal(err)
	}
	st, err := s.WebhookApp(ctx, "org")
	if err != nil || st.LastError != "bad" || st.Retries != 0 {
		t.Errorf("got %+v, %v", st, err)
	}
	tries, err := s.Attempts(ctx, "m1")
	if d := cmp.Diff([]engine.Attempt{a}, tries); err != nil || d != "" {
		t.Error(err, d)
	}
	m.Deliveries[0] = engine.Delivery{EndpointID: "e", State: engine.DeliveryDead, Tries: 1}
	got, err := s.Messages(ctx, "org", "m2", 10)
	if d := cmp.Diff([]engine.Message{m}, got); err != nil || d != "" {
		t.Error(err, d)
	}
	if all, err := s.Messages(ctx, "org", "", 0); err != nil || len(all) != 2 || all[0].ID != "m2" {
		t.Errorf("got %+v, %v", all, err)
	}
	_, err = s.Message(ctx, "other", "m1")
	wantKind(t, err, engine.KindNotFound)
	if err := s.ReviveDeliveries(ctx, "m1", now); err != nil {
		t.Fatal(err)
	}
	if due, _, err := s.DueDeliveries(ctx, now, nil, 10); err != nil || len(due) != 1 || due[0].Tries != 0 {
		t.Errorf("got %+v, %v", due, err)
	}
	wantKind(t, s.DeleteEndpoint(ctx, "other", "e"), engine.KindNotFound)
	if err := s.DeleteEndpoint(ctx, "org", "e"); err != nil {
		t.Fatal(err)
	}
	if n, err := s.PendingDeliveries(ctx, "org"); err != nil || n != 1 {
		t.Errorf("got %d, %v", n, err)
	}
	if err := s.PurgeWebhooks(ctx, now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Messages(ctx, "org", "", 0); err != nil || len(all) != 1 {
		t.Errorf("got %+v, %v", all, err)
	}
	if tries, err := s.Attempts(ctx, "m1"); err != nil || len(tries) > 0 {
		t.Errorf("got %+v, %v", tries, err)
	}
}
