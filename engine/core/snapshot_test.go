package core_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/core"
)

func snapRef(name string) engine.SnapshotRef {
	return engine.SnapshotRef{OrganizationID: org, IDOrName: name}
}

func TestSnapshotOfAnImage(t *testing.T) {
	r := newRig(t)
	got, err := r.Snapshots().Create(t.Context(), engine.CreateSnapshot{OrganizationID: org, Name: "deb", Image: "debian:12", Entrypoint: []string{"x"}})
	r.ok(err)
	want := engine.Snapshot{
		ID: got.ID, OrganizationID: org, Name: "deb", State: engine.SnapshotActive, Image: "debian:12", ImageDigest: "sha256:debian:12",
		User: "img", WorkDir: "/img", Entrypoint: []string{"x"}, SizeBytes: 7,
		Resources: engine.Resources{CPU: 1, MemoryMiB: 1024, DiskMiB: 3072}, CreatedAt: got.CreatedAt, UpdatedAt: got.UpdatedAt,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	_, err = r.Snapshots().Create(t.Context(), engine.CreateSnapshot{OrganizationID: org, Name: "deb", Image: "debian:12"})
	wantKind(t, err, engine.KindConflict)
	sb := r.create("one", func(q *engine.CreateSandbox) { q.Snapshot = got.ID })
	if sb.Snapshot != "deb" || sb.User != "img" {
		t.Errorf("got %+v", sb)
	}
	r.ok(r.Snapshots().Delete(t.Context(), snapRef("deb")))
	_, err = r.Snapshots().Snapshot(t.Context(), snapRef("deb"))
	wantKind(t, err, engine.KindNotFound)
	_, err = r.Sandboxes().Create(t.Context(), engine.CreateSandbox{OrganizationID: org, Snapshot: "deb"})
	wantKind(t, err, engine.KindNotFound)
	// The sandbox made from it starts again all the same.
	r.ok(second(r.Sandboxes().Stop(t.Context(), ref("one"), engine.StopOptions{})))
	r.ok(second(r.Sandboxes().Start(t.Context(), ref("one"))))
}

func TestImagesAreDroppedLater(t *testing.T) {
	r := newRig(t)
	create := func(name, image string) error {
		_, err := r.Snapshots().Create(t.Context(), engine.CreateSnapshot{OrganizationID: org, Name: name, Image: image})
		return err
	}
	held := func() bool { return slices.Contains(r.runner.Images(), "debian:12") }
	r.ok(create("deb", "debian:12"))
	entered, release := r.runner.Block("EnsureImage")
	made := make(chan error, 1)
	go func() { made <- create("alp", "alpine:3") }()
	<-entered
	r.ok(r.Snapshots().Delete(t.Context(), snapRef("deb")))
	r.DropImages(t.Context())
	if !held() {
		t.Error("the image went away while another one was made ready")
	}
	release()
	r.ok(<-made)
	r.runner.Fail("DropImage", engine.Errorf(engine.KindUnavailable, "away"))
	r.DropImages(t.Context())
	if !held() {
		t.Error("the image went away though the runner did not answer")
	}
	r.DropImages(t.Context())
	if held() {
		t.Error("the image is still there")
	}
	// One that is used again meanwhile stays.
	r.ok(create("deb", "debian:12"))
	r.DropImages(t.Context())
	if !held() {
		t.Error("an image that is used went away")
	}
}

func TestSnapshotWhosePullFails(t *testing.T) {
	r := newRig(t)
	r.runner.Fail("EnsureImage", engine.Errorf(engine.KindDenied, "wrong password"))
	req := engine.CreateSnapshot{OrganizationID: org, Name: "deb", Image: "debian:12"}
	sn, err := r.Snapshots().Create(t.Context(), req)
	wantKind(t, err, engine.KindDenied)
	if sn.State != engine.SnapshotError || sn.Error != "wrong password" {
		t.Errorf("got %s %q", sn.State, sn.Error)
	}
	_, err = r.Sandboxes().Create(t.Context(), engine.CreateSandbox{OrganizationID: org, Snapshot: "deb"})
	wantKind(t, err, engine.KindUnavailable)
	r.ok(second(r.Snapshots().Create(t.Context(), req))) // the name may be used again
}

func TestSnapshotRefuses(t *testing.T) {
	r := newRig(t)
	for name, req := range map[string]engine.CreateSnapshot{
		"no name":  {OrganizationID: org, Image: "a:1"},
		"name":     {OrganizationID: org, Name: "a b", Image: "a:1"},
		"no image": {OrganizationID: org, Name: "a"},
		"image":    {OrganizationID: org, Name: "a", Image: "a\n:1"},
		"cpu":      {OrganizationID: org, Name: "a", Image: "a:1", Resources: engine.Resources{CPU: -1}},
	} {
		_, err := r.Snapshots().Create(t.Context(), req)
		if engine.KindOf(err) != engine.KindInvalid {
			t.Errorf("%s: got %v, want invalid", name, err)
		}
	}
	wantKind(t, r.Snapshots().Delete(t.Context(), snapRef("atoll-small")), engine.KindDenied)
}

func TestSave(t *testing.T) {
	r := newRig(t)
	one := r.create("one", func(q *engine.CreateSandbox) { q.Env = map[string]string{"A": "1"} })
	sn, err := r.Snapshots().Save(t.Context(), ref("one"), "saved")
	r.ok(err)
	if sn.State != engine.SnapshotActive || sn.SourceSandbox != one.ID || sn.Disk == "" || sn.Runner != "r1" || sn.SizeBytes != 4096 {
		t.Errorf("got %+v", sn)
	}
	two := r.create("two", func(q *engine.CreateSandbox) { q.Snapshot, q.Env = "saved", map[string]string{"B": "2"} })
	l := r.runner.Launched(two.ID)
	if l.Disk != sn.Disk || l.Image != "atoll:default" || !cmp.Equal(l.Env, map[string]string{"A": "1", "B": "2"}) {
		t.Errorf("got %+v", l)
	}
	_, err = r.Sandboxes().Create(t.Context(), engine.CreateSandbox{OrganizationID: org, Snapshot: "saved", Resources: engine.Resources{DiskMiB: 1024}})
	wantKind(t, err, engine.KindInvalid)
	_, err = r.Snapshots().Save(t.Context(), ref("one"), "saved")
	wantKind(t, err, engine.KindConflict)
	if _, disks := r.runner.Held(); len(disks) != 1 {
		t.Errorf("got disks %v, want one", disks)
	}
	r.runner.Fail("SaveDisk", engine.Errorf(engine.KindExhausted, "the pool is full"))
	_, err = r.Snapshots().Save(t.Context(), ref("one"), "more")
	wantKind(t, err, engine.KindExhausted)
	if got := r.state("one"); got != engine.StateStarted {
		t.Errorf("got %s after a failed cut", got)
	}
	_, err = r.Snapshots().Snapshot(t.Context(), snapRef("more"))
	wantKind(t, err, engine.KindNotFound)
	r.ok(r.Snapshots().Delete(t.Context(), snapRef("saved")))
	if _, disks := r.runner.Held(); len(disks) != 0 {
		t.Errorf("got disks %v, want none", disks)
	}
}

func TestFork(t *testing.T) {
	r := newRig(t)
	parent := r.create("one", func(q *engine.CreateSandbox) {
		q.Env, q.Labels, q.Public = map[string]string{"A": "1"}, map[string]string{"l": "m"}, true
		q.Network = engine.NetworkPolicy{BlockAll: true}
	})
	child, err := r.Snapshots().Fork(t.Context(), ref("one"), "two")
	r.ok(err)
	if child.Parent != parent.ID || child.State != engine.StateStarted || child.Public || !child.Network.BlockAll ||
		child.Env["A"] != "1" || child.Labels["l"] != "m" || child.Name != "two" || child.Incarnation != 1 || len(child.Timing) == 0 {
		t.Errorf("got %+v", child)
	}
	r.ok(r.Close(context.Background())) // the disk is dropped after the answer
	if _, disks := r.runner.Held(); len(disks) != 0 {
		t.Errorf("got disks %v, want none", disks)
	}
	row, err := r.store.SandboxByID(t.Context(), child.ID)
	if err != nil || row.ForkDisk != "" {
		t.Errorf("got fork disk %q, %v", row.ForkDisk, err)
	}
}

func TestForkThatFailsLeavesNothing(t *testing.T) {
	for _, method := range []string{"SaveDisk", "Launch"} {
		t.Run(method, func(t *testing.T) {
			r := newRig(t)
			r.create("one")
			r.runner.Fail(method, engine.Errorf(engine.KindInternal, "boom"))
			_, err := r.Snapshots().Fork(t.Context(), ref("one"), "two")
			wantKind(t, err, engine.KindInternal)
			if got := r.state("one"); got != engine.StateStarted {
				t.Errorf("the parent is %s", got)
			}
			r.ok(second(r.Sandboxes().Delete(t.Context(), ref("one"))))
			r.empty()
		})
	}
}

func TestForkHoldsTheParentForTheCutOnly(t *testing.T) {
	r := newRig(t)
	r.create("one")
	entered, release := r.runner.Block("Launch")
	forked := make(chan error)
	go func() { forked <- second(r.Snapshots().Fork(context.Background(), ref("one"), "two")) }()
	<-entered
	r.ok(second(r.Sandboxes().Stop(t.Context(), ref("one"), engine.StopOptions{})))
	r.ok(second(r.Sandboxes().Delete(t.Context(), ref("one"))))
	release()
	r.ok(<-forked)
}

func TestDefaultsAreRegisteredOnce(t *testing.T) {
	r := newRig(t)
	before, err := r.Snapshots().Snapshot(t.Context(), snapRef("atoll-small"))
	r.ok(err)
	d := engine.Snapshot{Name: "atoll-small", Image: "atoll:default", Resources: engine.Resources{CPU: 2}}
	r.ok(r.EnsureDefaults(t.Context(), []engine.Snapshot{d}))
	after, err := r.Snapshots().Snapshot(t.Context(), snapRef("atoll-small"))
	if err != nil || after.ID != before.ID || after.State != engine.SnapshotActive || after.Resources.CPU != 2 || !after.General {
		t.Errorf("got %+v, %v", after, err)
	}
	d.Image = "atoll:next"
	r.ok(r.EnsureDefaults(t.Context(), []engine.Snapshot{d}))
	after, err = r.Snapshots().Snapshot(t.Context(), snapRef("atoll-small"))
	if err != nil || after.State != engine.SnapshotPending {
		t.Errorf("got %s, %v, want pending", after.State, err)
	}
	r.runner.Fail("EnsureImage", engine.Errorf(engine.KindUnavailable, "no mirror"))
	wantKind(t, r.PrepareDefaults(t.Context()), engine.KindUnavailable)
	_, err = r.Sandboxes().Create(t.Context(), engine.CreateSandbox{OrganizationID: org})
	if engine.KindOf(err) != engine.KindUnavailable || !strings.Contains(err.Error(), "no mirror") {
		t.Errorf("got %v", err)
	}
}

func TestKeys(t *testing.T) {
	r := newRig(t)
	k := r.Keys()
	secret := core.NewSecret()
	if !strings.HasPrefix(secret, "atl_") || len(secret) != 44 || secret == core.NewSecret() {
		t.Errorf("got %q", secret)
	}
	r.ok(k.EnsureAdmin(t.Context(), secret))
	r.ok(k.EnsureAdmin(t.Context(), secret)) // each start of the server
	admin, err := k.Authenticate(t.Context(), secret)
	if p := admin; err != nil || !p.Admin || !p.Unrestricted || p.OrganizationID != engine.DefaultOrganization || p.KeyName != "admin" {
		t.Errorf("got %+v, %v", p, err)
	}
	wantKind(t, k.EnsureAdmin(t.Context(), "short"), engine.KindInvalid)
	for _, bad := range []string{"", "atl_nobody", secret + "x"} {
		_, err := k.Authenticate(t.Context(), bad)
		wantKind(t, err, engine.KindUnauthenticated)
	}
	create := func(name string, permissions []string, expires time.Time) (engine.APIKey, string, error) {
		return k.Create(t.Context(), admin, engine.CreateKey{Name: name, Permissions: permissions, ExpiresAt: expires})
	}
	key, made, err := create("ci", []string{"write:sandboxes"}, r.clock.Now().Add(time.Hour))
	r.ok(err)
	p, err := k.Authenticate(t.Context(), made)
	want := engine.Principal{
		OrganizationID: engine.DefaultOrganization, KeyID: key.ID, KeyName: "ci", KeyPrefix: made[:8], KeySuffix: made[40:],
		ExpiresAt: p.ExpiresAt, UserID: engine.DefaultUser, UserEmail: "admin@localhost", Role: engine.RoleOwner,
		Permissions: []string{"write:sandboxes"},
	}
	if d := cmp.Diff(want, p); d != "" || err != nil || !p.ExpiresAt.Equal(key.ExpiresAt) {
		t.Error(d, err)
	}
	if strings.Contains(key.Prefix, made[8:]) || !strings.HasPrefix(made, key.Prefix) {
		t.Errorf("got prefix %q", key.Prefix)
	}
	_, _, err = create("ci", nil, time.Time{})
	wantKind(t, err, engine.KindConflict)
	r.clock.Advance(2 * time.Hour)
	_, err = k.Authenticate(t.Context(), made)
	wantKind(t, err, engine.KindUnauthenticated)

	_, again, err := create("ci2", nil, time.Time{})
	r.ok(err)
	r.ok(second(k.Authenticate(t.Context(), again)))
	r.ok(k.Revoke(t.Context(), admin, "", "ci2"))
	_, err = k.Authenticate(t.Context(), again)
	wantKind(t, err, engine.KindUnauthenticated)
	list, err := k.List(t.Context(), admin)
	if err != nil || len(list) != 2 || list[0].Name != "admin" || list[1].Name != "ci" {
		t.Errorf("got %+v, %v", list, err)
	}
}
