package store_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/atoll-sh/atoll/engine"
)

// A database of before there were users keeps its key, which may go on doing
// everything.
func TestUpgradeKeepsTheAdminKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "atoll.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile("migrations/0001_init.sql")
	if err != nil {
		t.Fatal(err)
	}
	const hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b" // of "secret"
	for _, stmt := range append(strings.Split(string(first), ";\n"),
		"CREATE TABLE migrations (name TEXT PRIMARY KEY, applied_at BIGINT NOT NULL)",
		"INSERT INTO migrations VALUES ('0001_init.sql', 1)",
		"INSERT INTO organizations VALUES ('"+engine.DefaultOrganization+"', 'Default', 7)",
		"INSERT INTO api_keys VALUES ('k', '"+engine.DefaultOrganization+"', 'admin', '"+hash+"', 'sec', '', TRUE, 7, 0, 0)",
		"INSERT INTO api_keys VALUES ('k2', '"+engine.DefaultOrganization+"', 'poor', 'other', 'sec', '[\"read:volumes\"]', FALSE, 7, 0, 0)",
	) {
		if _, err := db.ExecContext(t.Context(), stmt); err != nil {
			t.Fatalf("%s: %v", stmt, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := open(t, path)
	k, err := s.KeyBySecret(t.Context(), "secret")
	if err != nil || !k.Admin || !k.Unrestricted || k.UserID != engine.DefaultUser {
		t.Errorf("got %+v, %v", k, err)
	}
	if k, err := s.KeyByName(t.Context(), engine.DefaultOrganization, engine.DefaultUser, "poor"); err != nil || k.Unrestricted || len(k.Permissions) != 1 {
		t.Errorf("got %+v, %v", k, err)
	}
	if o, err := s.Organization(t.Context(), engine.DefaultOrganization); err != nil || o.Name != "Default" || o.Suspension != nil {
		t.Errorf("got %+v, %v", o, err)
	}
}
