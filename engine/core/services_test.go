package core_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
)

func (r *rig) snapshot(name, image string) engine.Snapshot {
	r.t.Helper()
	_, err := r.Snapshots().Create(r.t.Context(), engine.CreateSnapshot{OrganizationID: org, Name: name, Image: image})
	r.ok(err)
	sn, err := r.Snapshots().Snapshot(r.t.Context(), snapRef(name))
	r.ok(err)
	return sn
}

func TestImagesGoWithTheirLastUser(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	r.snapshot("one", "debian:12.1")
	r.snapshot("two", "debian:12.1")
	r.snapshot("three", "alpine:3.20")
	has := func(when string, want ...string) {
		t.Helper()
		if d := cmp.Diff(want, r.runner.Images()); d != "" {
			t.Errorf("%s: %s", when, d)
		}
	}
	has("at first", "alpine:3.20", "atoll:default", "debian:12.1")
	r.ok(r.Snapshots().Delete(ctx, snapRef("one")))
	has("another snapshot needs it", "alpine:3.20", "atoll:default", "debian:12.1")
	r.create("user", func(c *engine.CreateSandbox) { c.Snapshot = "two" })
	r.ok(r.Catalog().Deactivate(ctx, snapRef("two")))
	has("a sandbox needs it", "alpine:3.20", "atoll:default", "debian:12.1")
	_, err := r.Sandboxes().Create(ctx, engine.CreateSandbox{OrganizationID: org, Name: "no", Snapshot: "two"})
	wantKind(t, err, engine.KindInvalid)
	if unused, err := r.Catalog().ImageUnused(ctx, "debian:12.1"); err != nil || unused {
		t.Errorf("got unused %v, %v", unused, err)
	}
	_, err = r.Sandboxes().Delete(ctx, ref("user"))
	r.ok(err)
	deadline := time.Now().Add(time.Minute) // the caller did not wait for it
	for len(r.runner.Images()) > 2 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	has("the last sandbox went", "alpine:3.20", "atoll:default")
	if unused, err := r.Catalog().ImageUnused(ctx, "debian:12.1"); err != nil || !unused {
		t.Errorf("got unused %v, %v", unused, err)
	}

	got, err := r.Catalog().Activate(ctx, snapRef("two"))
	r.ok(err)
	if got.State != engine.SnapshotActive || got.ImageDigest == "" {
		t.Errorf("got %+v", got)
	}
	has("activated", "alpine:3.20", "atoll:default", "debian:12.1")
	r.create("again", func(c *engine.CreateSandbox) { c.Snapshot = "two" })

	// A saved disk stands on its image, also while it is switched off.
	r.create("made", func(c *engine.CreateSandbox) { c.Snapshot = "three" })
	_, err = r.Snapshots().Save(ctx, ref("made"), "saved")
	r.ok(err)
	_, err = r.Sandboxes().Delete(ctx, ref("made"))
	r.ok(err)
	r.ok(r.Snapshots().Delete(ctx, snapRef("three")))
	r.ok(r.Catalog().Deactivate(ctx, snapRef("saved")))
	r.ok(r.Catalog().Deactivate(ctx, snapRef("saved")))
	has("a saved disk needs it", "alpine:3.20", "atoll:default", "debian:12.1")
	_, err = r.Catalog().Activate(ctx, snapRef("saved"))
	r.ok(err)
	r.ok(r.Snapshots().Delete(ctx, snapRef("saved")))
	has("the saved disk went", "atoll:default", "debian:12.1")
}

func TestActivateThatFailsChangesNothing(t *testing.T) {
	r := newRig(t)
	r.snapshot("one", "debian:12.1")
	r.ok(r.Catalog().Deactivate(t.Context(), snapRef("one")))
	r.runner.Fail("EnsureImage", engine.Errorf(engine.KindNotFound, "no such image"))
	_, err := r.Catalog().Activate(t.Context(), snapRef("one"))
	wantKind(t, err, engine.KindNotFound)
	sn, err := r.Snapshots().Snapshot(t.Context(), snapRef("one"))
	if err != nil || sn.State != engine.SnapshotInactive {
		t.Errorf("got %s, %v", sn.State, err)
	}
}

func TestGeneralSnapshots(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	mine := r.snapshot("mine", "debian:12.1")
	got, err := r.Catalog().SetGeneral(ctx, engine.SnapshotRef{OrganizationID: "admins", IDOrName: mine.ID}, true)
	r.ok(err)
	if !got.General || got.State != engine.SnapshotActive {
		t.Errorf("got %+v", got)
	}
	_, err = r.Sandboxes().Create(ctx, engine.CreateSandbox{OrganizationID: "other", Snapshot: "mine"})
	r.ok(err)
	wantKind(t, r.Catalog().Deactivate(ctx, snapRef("mine")), engine.KindDenied)
	wantKind(t, r.Snapshots().Delete(ctx, snapRef("mine")), engine.KindDenied)
	_, err = r.Catalog().SetGeneral(ctx, snapRef(mine.ID), false)
	r.ok(err)
	_, err = r.Snapshots().Snapshot(ctx, engine.SnapshotRef{OrganizationID: "other", IDOrName: "mine"})
	wantKind(t, err, engine.KindNotFound)
	// What the server makes itself stays everybody's: it would not start again.
	_, err = r.Catalog().SetGeneral(ctx, snapRef("atoll-small"), false)
	wantKind(t, err, engine.KindDenied)
	_, err = r.Catalog().SetGeneral(ctx, snapRef("nobody"), true)
	wantKind(t, err, engine.KindNotFound)
	_, err = r.Catalog().Activate(ctx, snapRef("nobody"))
	wantKind(t, err, engine.KindNotFound)
	wantKind(t, r.Catalog().Deactivate(ctx, snapRef("nobody")), engine.KindNotFound)
}

func TestRegistryAccountsAreUsed(t *testing.T) {
	r := newRig(t)
	r.Box = newBox(t)
	ctx := t.Context()
	for _, put := range []engine.PutRegistry{
		{Name: "all", URL: "https://registry.example.com/v2/", Username: "all", Password: "p-all"},
		{Name: "team", URL: "registry.example.com:443", Username: "team", Password: "p-team", Project: "team"},
		{Name: "hub", URL: "https://index.docker.io/v1/", Username: "hub", Password: "p-hub"},
		{Name: "local", URL: "http://127.0.0.1:5000", Username: "local", Password: "p-local"},
	} {
		put.OrganizationID = org
		_, err := r.Registries().Create(ctx, put)
		r.ok(err)
	}
	for image, want := range map[string]engine.EnsureImage{
		"registry.example.com/app:1":      {Username: "all", Password: "p-all"},
		"registry.example.com/team/app:1": {Username: "team", Password: "p-team"},
		"registry.example.com/teams/a:1":  {Username: "all", Password: "p-all"},
		"debian:12.1":                     {Username: "hub", Password: "p-hub"},
		"127.0.0.1:5000/a:1":              {Username: "local", Password: "p-local", PlainHTTP: true},
		"other.example.com/a:1":           {},
		"registry.example.com.evil.org/a": {},
	} {
		want.Ref = image
		r.create("", func(c *engine.CreateSandbox) { c.Image = image })
		all := r.runner.Ensured()
		if d := cmp.Diff(want, all[len(all)-1]); d != "" {
			t.Errorf("%s: %s", image, d)
		}
	}
	// Others' accounts are not used, and one's own words go first.
	_, err := r.Sandboxes().Create(ctx, engine.CreateSandbox{OrganizationID: "other", Image: "debian:12.1"})
	r.ok(err)
	_, err = r.Snapshots().Create(ctx, engine.CreateSnapshot{OrganizationID: org, Name: "n", Image: "debian:12.2", Username: "u", Password: "p"})
	r.ok(err)
	all := r.runner.Ensured()
	want := []engine.EnsureImage{{Ref: "debian:12.1"}, {Ref: "debian:12.2", Username: "u", Password: "p"}}
	if d := cmp.Diff(want, all[len(all)-2:]); d != "" {
		t.Error(d)
	}
}

func TestRegistryLife(t *testing.T) {
	r := newRig(t)
	r.Box = newBox(t)
	ctx := t.Context()
	put := engine.PutRegistry{OrganizationID: org, Name: "one", URL: "registry.example.com", Username: "u", Password: "p"}
	one, err := r.Registries().Create(ctx, put)
	r.ok(err)
	_, err = r.Registries().Create(ctx, put)
	wantKind(t, err, engine.KindConflict)
	for name, change := range map[string]func(*engine.PutRegistry){
		"no name":       func(p *engine.PutRegistry) { p.Name = "" },
		"no user":       func(p *engine.PutRegistry) { p.Username = "" },
		"no password":   func(p *engine.PutRegistry) { p.Password = "" },
		"odd password":  func(p *engine.PutRegistry) { p.Password = "a\nb" },
		"no url":        func(p *engine.PutRegistry) { p.URL = "" },
		"user in url":   func(p *engine.PutRegistry) { p.URL = "https://a:b@registry.example.com" },
		"ftp":           func(p *engine.PutRegistry) { p.URL = "ftp://registry.example.com" },
		"not encrypted": func(p *engine.PutRegistry) { p.URL = "http://registry.example.com" },
		"odd project":   func(p *engine.PutRegistry) { p.Project = "../x" },
	} {
		bad := put
		bad.Name = "two"
		change(&bad)
		if _, err := r.Registries().Create(ctx, bad); engine.KindOf(err) != engine.KindInvalid {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// A password is not sent elsewhere by a change of the url alone.
	moved := engine.PutRegistry{OrganizationID: org, Name: "one", URL: "evil.example.org", Username: "u"}
	_, err = r.Registries().Update(ctx, one.ID, moved)
	wantKind(t, err, engine.KindInvalid)
	moved.Password = "q"
	got, err := r.Registries().Update(ctx, one.ID, moved)
	r.ok(err)
	if got.URL != "evil.example.org" || got.ID != one.ID || !got.CreatedAt.Equal(one.CreatedAt) {
		t.Errorf("got %+v", got)
	}
	renamed := engine.PutRegistry{OrganizationID: org, Name: "uno", URL: "https://evil.example.org", Username: "v"}
	_, err = r.Registries().Update(ctx, one.ID, renamed)
	r.ok(err)
	list, err := r.Registries().List(ctx, org)
	if err != nil || len(list) != 1 || list[0].Name != "uno" {
		t.Errorf("got %+v, %v", list, err)
	}
	_, err = r.Registries().Registry(ctx, "other", one.ID)
	wantKind(t, err, engine.KindNotFound)
	renamed.OrganizationID = "other"
	_, err = r.Registries().Update(ctx, one.ID, renamed)
	wantKind(t, err, engine.KindNotFound)
	wantKind(t, r.Registries().Delete(ctx, "other", one.ID), engine.KindNotFound)
	r.ok(r.Registries().Delete(ctx, org, one.ID))
}

func TestWarmPools(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	sn := r.snapshot("deb", "debian:12.1")
	p, err := r.WarmPools().Create(ctx, engine.CreateWarmPool{OrganizationID: org, Snapshot: "deb", Size: 3})
	r.ok(err)
	want := engine.WarmPool{
		ID: p.ID, OrganizationID: org, SnapshotID: sn.ID, Snapshot: "deb", Target: "local", Size: 3, Ready: 3,
		Resources: sn.Resources, User: "img", CreatedAt: p.CreatedAt, UpdatedAt: p.UpdatedAt,
	}
	if d := cmp.Diff(want, p); d != "" {
		t.Error(d)
	}
	kind := engine.PoolKind{Image: "debian:12.1", DiskMiB: 3072}
	if d := cmp.Diff([]engine.PoolTarget{{PoolKind: kind, Size: 3}}, r.runner.Targets()); d != "" {
		t.Error(d)
	}
	_, err = r.WarmPools().Create(ctx, engine.CreateWarmPool{OrganizationID: org, Snapshot: sn.ID, Size: 1})
	wantKind(t, err, engine.KindConflict)
	for _, bad := range []engine.CreateWarmPool{
		{OrganizationID: org, Snapshot: "atoll-small"},
		{OrganizationID: org, Size: 1},
		{Snapshot: "deb", Size: 1},
		{OrganizationID: org, Snapshot: "atoll-small", Size: 1001},
		{OrganizationID: org, Snapshot: "atoll-small", Size: 1, Target: "a b"},
	} {
		_, err = r.WarmPools().Create(ctx, bad)
		wantKind(t, err, engine.KindInvalid)
	}
	_, err = r.WarmPools().Create(ctx, engine.CreateWarmPool{OrganizationID: org, Snapshot: "nobody", Size: 1})
	wantKind(t, err, engine.KindNotFound)
	// The runner in memory has 8 GiB: room for 128 members, of which 3 are taken.
	_, err = r.WarmPools().Create(ctx, engine.CreateWarmPool{OrganizationID: org, Snapshot: "atoll-small", Size: 126})
	wantKind(t, err, engine.KindExhausted)

	r.runner.FailPool(kind, "no room")
	p, err = r.WarmPools().Resize(ctx, org, p.ID, 5)
	r.ok(err)
	if p.Size != 5 || p.Ready != 0 || p.Error != "no room" {
		t.Errorf("got %+v", p)
	}
	_, err = r.WarmPools().Resize(ctx, org, p.ID, -1)
	wantKind(t, err, engine.KindInvalid)
	_, err = r.WarmPools().Resize(ctx, "other", p.ID, 1)
	wantKind(t, err, engine.KindNotFound)

	// A saved disk is kept warm where it is; a snapshot that is off is not.
	r.create("box")
	_, err = r.Snapshots().Save(ctx, ref("box"), "saved")
	r.ok(err)
	_, err = r.WarmPools().Create(ctx, engine.CreateWarmPool{OrganizationID: org, Snapshot: "saved", Size: 1})
	r.ok(err)
	r.ok(r.Catalog().Deactivate(ctx, snapRef("deb")))
	list, err := r.WarmPools().List(ctx, org)
	r.ok(err)
	if len(list) != 2 || list[0].Error != "its snapshot is inactive" || list[1].Ready != 1 {
		t.Errorf("got %+v", list)
	}
	if got := r.runner.Targets(); len(got) != 1 || got[0].Disk == "" {
		t.Errorf("got %+v", got)
	}
	r.ok(r.Snapshots().Delete(ctx, snapRef("saved")))
	list, err = r.WarmPools().List(ctx, org)
	if err != nil || list[1].Error != "its snapshot was deleted" {
		t.Errorf("got %+v, %v", list, err)
	}
	for _, p := range list {
		r.ok(r.WarmPools().Delete(ctx, org, p.ID))
		wantKind(t, r.WarmPools().Delete(ctx, org, p.ID), engine.KindNotFound)
	}
	if got := r.runner.Targets(); len(got) != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestHistoryIsAskedOfTheRunner(t *testing.T) {
	r := newRig(t)
	sb := r.create("box")
	at := r.clock.Now()
	want := []engine.Sample{{Time: at, CPU: 1}, {Time: at.Add(time.Second), CPU: 2}}
	r.runner.AddSamples(sb.ID, append(want, engine.Sample{Time: at.Add(time.Hour)})...)
	got, err := r.History().Samples(t.Context(), ref("box"), at, at.Add(time.Minute))
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Error(err, d)
	}
	_, err = r.History().Samples(t.Context(), ref("box"), at, at.Add(-time.Second))
	wantKind(t, err, engine.KindInvalid)
	_, err = r.History().Samples(t.Context(), ref("nobody"), at, at)
	wantKind(t, err, engine.KindNotFound)
	r.runner.Fail("Samples", errors.New("broken"))
	_, err = r.History().Samples(t.Context(), ref("box"), at, at)
	wantKind(t, err, engine.KindInternal)
}
