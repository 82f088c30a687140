package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/enginetest"
	"github.com/atoll-sh/atoll/engine/store"
)

// now has no part below a microsecond that a database could lose.
var now = time.Date(2026, 3, 4, 5, 6, 7, 8000, time.UTC)

// suite is every test of the store; each runs on both databases.
var suite = []struct {
	name string
	run  func(t *testing.T, s *store.Store)
}{
	{"sandbox round trip", testRoundTrip},
	{"sandbox names", testNames},
	{"compare and set", testCompareAndSet},
	{"find", testFind},
	{"touch", testTouch},
	{"filters", testFilters},
	{"pages", testPages},
	{"pages under inserts", testPagesUnderInserts},
	{"bad queries", testBadQueries},
	{"odd text", testOddText},
	{"idempotency", testIdempotency},
	{"snapshots", testSnapshots},
	{"snapshot pages", testSnapshotPages},
	{"keys", testKeys},
	{"users", testUsers},
	{"organizations", testOrganizations},
	{"members", testMembers},
	{"usage", testUsage},
	{"audit", testAudit},
	{"ssh access", testSSHAccess},
	{"requests for access", testAccess},
	{"meta", testMeta},
	{"secrets", testSecrets},
	{"secret pages", testSecretPages},
	{"seals", testSeals},
	{"registries", testRegistries},
	{"warm pools", testWarmPools},
	{"policies", testPolicies},
	{"uses of an image", testImageUses},
	{"webhooks", testWebhooks},
	{"purge", testPurge},
	{"previews", testPreviews},
	{"canceled", testCanceled},
	{"writers at once", testWritersAtOnce},
}

func TestSQLite(t *testing.T) {
	for _, c := range suite {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t, filepath.Join(t.TempDir(), "atoll?#%.db"))) })
	}
}

func TestPostgres(t *testing.T) {
	pg := enginetest.StartPostgres(t)
	for _, c := range suite {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t, pg.Database(t))) })
	}
}

func open(t *testing.T, url string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func sandbox(name string) *store.Sandbox {
	id := uuid.NewString()
	return &store.Sandbox{
		Sandbox: engine.Sandbox{
			ID: id, OrganizationID: "org", Name: name, Class: engine.ClassContainer,
			State: engine.StateCreating, Desired: engine.DesiredStarted, Incarnation: 3,
			Runner: "r1", Target: "local", Snapshot: "atoll-small", ImageDigest: "sha256:1", User: "daytona",
			Env: map[string]string{"A": "1 \x01 ü"}, Secrets: map[string]string{"KEY": "s1"}, Labels: map[string]string{"team": "red", "q\"uote": "o'ne"}, Public: true,
			Resources: engine.Resources{CPU: 0.5, MemoryMiB: 1024, DiskMiB: 3072, GPU: 1, PIDs: 7},
			Lifecycle: engine.Lifecycle{AutoStop: time.Minute, AutoArchive: time.Hour, AutoDelete: -1, TTL: time.Second},
			Network: engine.NetworkPolicy{
				BlockAll: true, AllowCIDRs: []string{"198.51.100.0/24"}, Grants: []engine.NetworkGrant{{ID: "g", Host: "example.com", Until: now}},
			},
			Learning: &engine.Learning{Since: now, Until: now, After: 7, Over: true},
			Policy:   "offline",
			Error:    "why", Recoverable: true, Parent: "p",
			CreatedAt: now, UpdatedAt: now, LastActive: now, StoppedAt: now,
		},
		Image: "atoll:default", WorkDir: "/w", Entrypoint: []string{"sleep", "1"}, ForkDisk: "f",
	}
}

func insert(t *testing.T, s *store.Store, sb *store.Sandbox) *store.Sandbox {
	t.Helper()
	if err := s.InsertSandbox(t.Context(), sb, nil); err != nil {
		t.Fatal(err)
	}
	return sb
}

func wantKind(t *testing.T, err error, want engine.Kind) {
	t.Helper()
	if got := engine.KindOf(err); got != want {
		t.Errorf("got kind %q (%v), want %q", got, err, want)
	}
	var e *engine.Error
	if err != nil && !errors.As(err, &e) {
		t.Errorf("got %T, want an *engine.Error in its tree", err)
	}
}

func testRoundTrip(t *testing.T, s *store.Store) {
	want := insert(t, s, sandbox("one"))
	got, err := s.SandboxByID(t.Context(), want.ID)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(*want, got); d != "" {
		t.Error(d)
	}
	bare := &store.Sandbox{Sandbox: engine.Sandbox{ID: "bare", OrganizationID: "org", Name: "bare", State: engine.StateStarted}}
	insert(t, s, bare)
	got, err = s.SandboxByID(t.Context(), "bare")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(*bare, got); d != "" {
		t.Error(d)
	}
}

func testNames(t *testing.T, s *store.Store) {
	a := insert(t, s, sandbox("one"))
	wantKind(t, s.InsertSandbox(t.Context(), sandbox("one"), nil), engine.KindConflict)
	other := sandbox("one")
	other.OrganizationID = "other"
	insert(t, s, other)

	a.State = engine.StateDestroyed
	if err := s.UpdateSandbox(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	b := insert(t, s, sandbox("one"))
	got, err := s.Sandbox(t.Context(), engine.SandboxRef{OrganizationID: "org", IDOrName: "one"})
	if err != nil || got.ID != b.ID {
		t.Errorf("got %s, %v, want %s", got.ID, err, b.ID)
	}
}

func testCompareAndSet(t *testing.T, s *store.Store) {
	sb := insert(t, s, sandbox("one"))
	stale := *sb
	sb.State = engine.StateStarted
	if err := s.UpdateSandbox(t.Context(), sb); err != nil {
		t.Fatal(err)
	}
	if sb.Version != 2 {
		t.Errorf("got version %d, want 2", sb.Version)
	}
	stale.State = engine.StateDestroying
	wantKind(t, s.UpdateSandbox(t.Context(), &stale), engine.KindConflict)
	got, err := s.SandboxByID(t.Context(), sb.ID)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(*sb, got); d != "" {
		t.Error(d)
	}
}

func testFind(t *testing.T, s *store.Store) {
	a := insert(t, s, sandbox("one"))
	b := sandbox(a.ID) // a name that is another sandbox's id: the id wins
	insert(t, s, b)
	for _, ref := range []string{"one", a.ID} {
		got, err := s.Sandbox(t.Context(), engine.SandboxRef{OrganizationID: "org", IDOrName: ref})
		if err != nil || got.ID != a.ID {
			t.Errorf("%s: got %s, %v, want %s", ref, got.ID, err, a.ID)
		}
	}
	_, err := s.Sandbox(t.Context(), engine.SandboxRef{OrganizationID: "other", IDOrName: "one"})
	wantKind(t, err, engine.KindNotFound)
	_, err = s.SandboxByID(t.Context(), "nobody")
	wantKind(t, err, engine.KindNotFound)
	if err := s.DeleteSandbox(t.Context(), a.ID); err != nil {
		t.Fatal(err)
	}
	counts, err := s.CountSandboxes(t.Context())
	if err != nil || len(counts) != 1 || counts[b.State] != 1 {
		t.Errorf("counted %v, %v", counts, err)
	}
	live, err := s.LiveSandboxes(t.Context())
	if err != nil || len(live) != 1 || live[0].ID != b.ID {
		t.Errorf("got %d live, %v, want only %s", len(live), err, b.ID)
	}
}

func testTouch(t *testing.T, s *store.Store) {
	a, b := insert(t, s, sandbox("a")), insert(t, s, sandbox("b"))
	later := now.Add(time.Minute)
	err := s.TouchSandboxes(t.Context(), map[string]time.Time{a.ID: later, b.ID: now.Add(-time.Hour), "gone": later})
	if err != nil {
		t.Fatal(err)
	}
	// The version is unchanged, and a writer that read before does not undo it.
	if err := s.UpdateSandbox(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]time.Time{a.ID: later, b.ID: now} {
		got, err := s.SandboxByID(t.Context(), id)
		if err != nil || !got.LastActive.Equal(want) {
			t.Errorf("got %v, %v, want %v", got.LastActive, err, want)
		}
	}
}

func testFilters(t *testing.T, s *store.Store) {
	ctx := t.Context()
	add := func(name string, change func(*store.Sandbox)) string {
		sb := sandbox(name)
		change(sb)
		return insert(t, s, sb).Name
	}
	started := add("Web_1", func(sb *store.Sandbox) {
		sb.State, sb.Labels = engine.StateStarted, map[string]string{"a": "1", "b": "2"}
	})
	stopped := add("webx1", func(sb *store.Sandbox) { sb.State, sb.Labels = engine.StateStopped, map[string]string{"a": "1"} })
	plain := add("db", func(sb *store.Sandbox) { sb.State, sb.Labels, sb.Snapshot = engine.StateStarted, nil, "big" })
	failed := add("failed", func(sb *store.Sandbox) { sb.State, sb.Desired = engine.StateError, engine.DesiredDestroyed })
	gone := add("gone", func(sb *store.Sandbox) { sb.State = engine.StateDestroyed })
	add("foreign", func(sb *store.Sandbox) { sb.OrganizationID = "other" })

	for _, c := range []struct {
		name string
		q    engine.SandboxQuery
		want []string
	}{
		{"all", engine.SandboxQuery{}, []string{started, stopped, plain}},
		{"errored and deleted too", engine.SandboxQuery{IncludeErroredDeleted: true}, []string{started, stopped, plain, failed}},
		{"state", engine.SandboxQuery{States: []engine.State{engine.StateStarted}}, []string{started, plain}},
		{"destroyed", engine.SandboxQuery{States: []engine.State{engine.StateDestroyed}}, []string{gone}},
		{"name prefix in any case", engine.SandboxQuery{NamePrefix: "WEB"}, []string{started, stopped}},
		{"name with a wildcard", engine.SandboxQuery{NamePrefix: "web_"}, []string{started}},
		{"name with a percent", engine.SandboxQuery{NamePrefix: "%"}, nil},
		{"label", engine.SandboxQuery{Labels: map[string]string{"a": "1"}}, []string{started, stopped}},
		{"labels", engine.SandboxQuery{Labels: map[string]string{"a": "1", "b": "2"}}, []string{started}},
		{"other label value", engine.SandboxQuery{Labels: map[string]string{"a": "2"}}, nil},
		{"label with a quote", engine.SandboxQuery{IncludeErroredDeleted: true, Labels: map[string]string{`q"uote`: "o'ne"}}, []string{failed}},
		{"snapshot", engine.SandboxQuery{Snapshots: []string{"big", "none"}}, []string{plain}},
		{"id", engine.SandboxQuery{IDPrefix: "zz"}, nil},
	} {
		c.q.OrganizationID, c.q.Sort, c.q.Ascending = "org", "name", true
		page, err := s.ListSandboxes(ctx, c.q)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got, want := names(page.Items), slices.Clone(c.want)
		slices.Sort(got)
		slices.Sort(want)
		if d := cmp.Diff(want, got); d != "" || page.Total != len(c.want) {
			t.Errorf("%s: total %d\n%s", c.name, page.Total, d)
		}
	}
}

func names(items []engine.Sandbox) []string {
	var out []string
	for _, sb := range items {
		out = append(out, sb.Name)
	}
	return out
}

// walk reads all pages and calls between after each.
func walk(t *testing.T, s *store.Store, q engine.SandboxQuery, between func()) []string {
	t.Helper()
	var out []string
	for {
		page, err := s.ListSandboxes(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, names(page.Items)...)
		if page.Next == "" {
			return out
		}
		q.Cursor = page.Next
		between()
	}
}

func testPages(t *testing.T, s *store.Store) {
	for i := range 23 {
		sb := sandbox(fmt.Sprintf("s%02d", i))
		sb.CreatedAt, sb.LastActive = now.Add(time.Duration(i)*time.Second), now.Add(time.Duration(i/5)*time.Second)
		sb.Resources.CPU, sb.Resources.MemoryMiB, sb.Resources.DiskMiB = float64(i%3)/3, int64(i%4), int64(i%5)
		insert(t, s, sb)
	}
	for _, sort := range []string{"", "name", "cpu", "memoryGib", "diskGib", "lastActivityAt", "createdAt"} {
		for _, asc := range []bool{true, false} {
			q := engine.SandboxQuery{OrganizationID: "org", Sort: sort, Ascending: asc}
			all, err := s.ListSandboxes(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			q.Limit = 4
			if d := cmp.Diff(names(all.Items), walk(t, s, q, func() {})); d != "" || all.Total != 23 || all.Next != "" {
				t.Errorf("%s %v: total %d, next %q\n%s", sort, asc, all.Total, all.Next, d)
			}
		}
	}
}

func testPagesUnderInserts(t *testing.T, s *store.Store) {
	var want []string
	for i := range 12 {
		sb := sandbox(fmt.Sprintf("old%02d", 11-i))
		sb.CreatedAt = now.Add(time.Duration(i) * time.Second)
		insert(t, s, sb)
		want = append(want, fmt.Sprintf("old%02d", i))
	}
	n := 0
	got := walk(t, s, engine.SandboxQuery{OrganizationID: "org", Sort: "createdAt", Limit: 3}, func() {
		n++
		sb := sandbox(fmt.Sprintf("new%d", n))
		sb.CreatedAt = now.Add(time.Hour + time.Duration(n))
		insert(t, s, sb)
	})
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func testBadQueries(t *testing.T, s *store.Store) {
	page := func(q engine.SandboxQuery) error {
		q.OrganizationID = "org"
		_, err := s.ListSandboxes(t.Context(), q)
		return err
	}
	insert(t, s, sandbox("a"))
	insert(t, s, sandbox("b"))
	first, err := s.ListSandboxes(t.Context(), engine.SandboxQuery{OrganizationID: "org", Sort: "name", Limit: 1})
	if err != nil || first.Next == "" {
		t.Fatalf("got next %q, %v", first.Next, err)
	}
	for name, q := range map[string]engine.SandboxQuery{
		"sort":             {Sort: "name; drop table sandboxes"},
		"limit below":      {Limit: -1},
		"limit above":      {Limit: 201},
		"cursor":           {Cursor: "!"},
		"cursor not JSON":  {Cursor: "aGVsbG8"},
		"cursor of sort":   {Cursor: first.Next, Sort: "cpu"},
		"cursor of order":  {Cursor: first.Next, Sort: "name", Ascending: true},
		"cursor with null": {Cursor: "bnVsbA"},
	} {
		if got := engine.KindOf(page(q)); got != engine.KindInvalid {
			t.Errorf("%s: got kind %q, want invalid", name, got)
		}
	}
}

func testIdempotency(t *testing.T, s *store.Store) {
	ctx := t.Context()
	sb := sandbox("one")
	key := store.Idempotency{OrganizationID: "org", Key: "k", Fingerprint: "f", Object: sb.ID, ExpiresAt: time.Now().Add(time.Hour).Truncate(time.Microsecond).UTC()}
	if err := s.InsertSandbox(ctx, sb, &key); err != nil {
		t.Fatal(err)
	}
	got, err := s.Idempotency(ctx, "org", "k", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(key, got); d != "" {
		t.Error(d)
	}
	again := key
	again.Object = "other"
	wantKind(t, s.InsertSandbox(ctx, sandbox("two"), &again), engine.KindConflict)
	_, err = s.Sandbox(ctx, engine.SandboxRef{OrganizationID: "org", IDOrName: "two"})
	wantKind(t, err, engine.KindNotFound)

	// A taken name leaves no key behind.
	unused := key
	unused.Key = "unused"
	wantKind(t, s.InsertSandbox(ctx, sandbox("one"), &unused), engine.KindConflict)
	_, err = s.Idempotency(ctx, "org", "unused", time.Now())
	wantKind(t, err, engine.KindNotFound)

	_, err = s.Idempotency(ctx, "org", "k", time.Now().Add(2*time.Hour))
	wantKind(t, err, engine.KindNotFound)
	if err := s.DeleteSandbox(ctx, sb.ID); err != nil {
		t.Fatal(err)
	}
	_, err = s.Idempotency(ctx, "org", "k", time.Now())
	wantKind(t, err, engine.KindNotFound)
	old := store.Idempotency{OrganizationID: "org", Key: "old", Object: "x", ExpiresAt: now.Add(-24 * 365 * time.Hour)}
	for _, name := range []string{"three", "four"} { // an expired key may be used again
		if err := s.InsertSandbox(ctx, sandbox(name), &old); err != nil {
			t.Error(err)
		}
	}
	if err := s.PurgeIdempotency(ctx, time.Now()); err != nil {
		t.Error(err)
	}
}

func snapshot(org, name string) engine.Snapshot {
	return engine.Snapshot{
		ID: uuid.NewString(), OrganizationID: org, Name: name, State: engine.SnapshotPending,
		Image: "i:1", ImageDigest: "sha256:2", Disk: "d", Runner: "r1", User: "u", WorkDir: "/w",
		Env: map[string]string{"A": "1"}, Entrypoint: []string{"x"}, Resources: engine.Resources{CPU: 1, MemoryMiB: 2, DiskMiB: 3, GPU: 4, PIDs: 5},
		SizeBytes: 9, SourceSandbox: "s", Error: "e", CreatedAt: now, UpdatedAt: now, LastUsedAt: now,
	}
}

func testSnapshots(t *testing.T, s *store.Store) {
	ctx := t.Context()
	own, general := snapshot("org", "base"), snapshot("system", "base")
	general.General = true
	for _, sn := range []engine.Snapshot{own, general} {
		if err := s.InsertSnapshot(ctx, sn); err != nil {
			t.Fatal(err)
		}
	}
	wantKind(t, s.InsertSnapshot(ctx, snapshot("org", "base")), engine.KindConflict)
	for _, c := range []struct {
		org, ref string
		want     engine.Snapshot
	}{{"org", "base", own}, {"other", "base", general}, {"org", general.ID, general}, {"org", own.ID, own}} {
		got, err := s.Snapshot(ctx, engine.SnapshotRef{OrganizationID: c.org, IDOrName: c.ref})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s %s: %s", c.org, c.ref, d)
		}
	}
	_, err := s.Snapshot(ctx, engine.SnapshotRef{OrganizationID: "other", IDOrName: own.ID})
	wantKind(t, err, engine.KindNotFound)

	own.State, own.SizeBytes = engine.SnapshotActive, 12
	if err := s.UpdateSnapshot(ctx, own); err != nil {
		t.Fatal(err)
	}
	own.LastUsedAt = now.Add(time.Hour)
	if err := s.UseSnapshot(ctx, own.ID, own.LastUsedAt); err != nil {
		t.Fatal(err)
	}
	all, err := s.AllSnapshots(ctx)
	if err != nil || len(all) != 2 {
		t.Fatalf("got %d snapshots, %v", len(all), err)
	}
	for range 2 { // deleting twice is fine
		if err := s.DeleteSnapshot(ctx, own.ID); err != nil {
			t.Fatal(err)
		}
	}
	wantKind(t, s.UpdateSnapshot(ctx, own), engine.KindNotFound)
}

func testSnapshotPages(t *testing.T, s *store.Store) {
	for i := range 5 {
		sn := snapshot("org", fmt.Sprintf("App%d", i))
		sn.LastUsedAt = now.Add(-time.Duration(i) * time.Minute)
		if err := s.InsertSnapshot(t.Context(), sn); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.InsertSnapshot(t.Context(), snapshot("other", "App9")); err != nil {
		t.Fatal(err)
	}
	page, err := s.ListSnapshots(t.Context(), engine.SnapshotQuery{OrganizationID: "org", Name: "app", Page: 2, Limit: 2})
	if err != nil || page.Total != 5 || len(page.Items) != 2 || page.Items[0].Name != "App2" {
		t.Errorf("got %+v, %v, want App2 and App3 of 5", page, err)
	}
	_, err = s.ListSnapshots(t.Context(), engine.SnapshotQuery{OrganizationID: "org", Page: -1})
	wantKind(t, err, engine.KindInvalid)
}

func testMeta(t *testing.T, s *store.Store) {
	for _, want := range []string{"", "1", "2"} {
		if want != "" {
			if err := s.SetMeta(t.Context(), "k", want); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := s.Meta(t.Context(), "k"); err != nil || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
}

func testPurge(t *testing.T, s *store.Store) {
	for name, age := range map[string]time.Duration{"old": time.Hour, "new": 0} {
		sb := sandbox(name)
		sb.State, sb.UpdatedAt = engine.StateDestroyed, now.Add(-age)
		insert(t, s, sb)
	}
	insert(t, s, sandbox("live"))
	if n, err := s.PurgeSandboxes(t.Context(), now.Add(-time.Minute)); err != nil || n != 1 {
		t.Errorf("got %d, %v, want 1", n, err)
	}
}

func testCanceled(t *testing.T, s *store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantKind(t, s.InsertSandbox(ctx, sandbox("one"), nil), engine.KindCanceled)
	_, err := s.LiveSandboxes(ctx)
	wantKind(t, err, engine.KindCanceled)
}

func testWritersAtOnce(t *testing.T, s *store.Store) {
	errs := make(chan error)
	for i := range 16 {
		go func() {
			sb := sandbox(fmt.Sprint("s", i))
			err := s.InsertSandbox(t.Context(), sb, nil)
			for range 5 {
				if err == nil {
					err = s.UpdateSandbox(t.Context(), sb)
				}
				if err == nil {
					_, err = s.SandboxByID(t.Context(), sb.ID)
				}
			}
			errs <- err
		}()
	}
	for range 16 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "atoll.db")
	s := open(t, path)
	insert(t, s, sandbox("one"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	live, err := open(t, path).LiveSandboxes(t.Context())
	if err != nil || len(live) != 1 {
		t.Errorf("got %d sandboxes, %v, want 1", len(live), err)
	}
}

func TestFilesArePrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "atoll.db")
	if err := os.WriteFile(path, nil, 0o644); err != nil { // as an older server left it
		t.Fatal(err)
	}
	insert(t, open(t, path), sandbox("one"))
	for _, side := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(path + side)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := info.Mode().Perm(), fs.FileMode(0o600); got != want {
			t.Errorf("%s: got mode %v, want %v", path+side, got, want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		url  string
		want engine.Kind
	}{
		"unknown scheme": {"mysql://root:pw@host/x", engine.KindInvalid},
		"no postgres":    {"postgres://nobody@/x?host=/nonexistent", engine.KindUnavailable},
		"no directory":   {"/nonexistent/dir/atoll.db", engine.KindUnavailable},
	} {
		_, err := store.Open(t.Context(), c.url, nil)
		if got := engine.KindOf(err); got != c.want {
			t.Errorf("%s: got kind %q (%v), want %q", name, got, err, c.want)
		}
	}
}

func BenchmarkCreate(b *testing.B) {
	s, err := store.Open(b.Context(), filepath.Join(b.TempDir(), "atoll.db"), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.Run("insert and update", func(b *testing.B) {
		for b.Loop() {
			sb := sandbox(uuid.NewString())
			if err := s.InsertSandbox(b.Context(), sb, nil); err != nil {
				b.Fatal(err)
			}
			if err := s.UpdateSandbox(b.Context(), sb); err != nil {
				b.Fatal(err)
			}
		}
	})
	sb := sandbox("find me")
	if err := s.InsertSandbox(b.Context(), sb, nil); err != nil {
		b.Fatal(err)
	}
	b.Run("find", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Sandbox(b.Context(), engine.SandboxRef{OrganizationID: "org", IDOrName: sb.Name}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
