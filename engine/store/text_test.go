package store_test

import (
	"testing"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/store"
)

// A NUL in a path once made the database answer with a fault of its own.
func testOddText(t *testing.T, s *store.Store) {
	for _, odd := range []string{"a\x00b", "\xff\xfe", "x' OR '1'='1\x00", `\'; --`} {
		_, err := s.Sandbox(t.Context(), engine.SandboxRef{OrganizationID: "org", IDOrName: odd})
		wantKind(t, err, engine.KindNotFound)
		_, err = s.Snapshot(t.Context(), engine.SnapshotRef{OrganizationID: "org", IDOrName: odd})
		wantKind(t, err, engine.KindNotFound)
		_, err = s.ListSandboxes(t.Context(), engine.SandboxQuery{
			OrganizationID: "org", NamePrefix: odd, Labels: map[string]string{odd: odd},
		})
		wantKind(t, err, "")
	}
	sb := sandbox("odd")
	sb.Error = "the toolbox said \x00\xff"
	insert(t, s, sb)
	got, err := s.SandboxByID(t.Context(), sb.ID)
	if want := "the toolbox said \uFFFD\uFFFD"; err != nil || got.Error != want {
		t.Errorf("got %q, %v, want %q", got.Error, err, want)
	}
}
