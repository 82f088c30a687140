package skills

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestInstall(t *testing.T) {
	for _, links := range []bool{true, false} {
		tree := Tree{Root: t.TempDir(), Copy: !links}
		s := Skill{Name: "atoll-x", Files: []File{{Main, []byte("one\n")}, {"references/a.md", []byte("two\n")}}}
		other := filepath.Join(tree.Root, ".claude", "skills", "theirs", Main)
		write(t, other, "theirs\n")

		dry := tree
		dry.DryRun = true
		want(t, dry.Install, s, Added, Added)
		if _, err := os.Stat(filepath.Join(tree.Root, ".agents")); !os.IsNotExist(err) {
			t.Errorf("a dry run wrote: %v", err)
		}
		want(t, tree.Install, s, Added, Added)
		want(t, tree.Install, s, Unchanged, Unchanged)
		for _, dir := range []string{".agents", ".claude"} {
			if got := content(t, filepath.Join(tree.Root, dir, "skills", s.Name, "references", "a.md")); got != "two\n" {
				t.Errorf("%s: got %q", dir, got)
			}
		}

		newer := Skill{Name: s.Name, Files: []File{{Main, []byte("three\n")}}}
		second := Changed
		if links {
			second = Unchanged // it leads to the first
		}
		want(t, tree.Install, newer, Changed, second)
		if got := content(t, filepath.Join(tree.Root, ".claude", "skills", s.Name, Main)); got != "three\n" {
			t.Errorf("got %q", got)
		}

		// What the user changed stays.
		mine := filepath.Join(tree.Root, ".agents", "skills", s.Name, Main)
		write(t, mine, "my own\n")
		if _, err := tree.Install(s); !errors.Is(err, ErrForeign) {
			t.Errorf("install over a changed file: %v", err)
		}
		if _, err := tree.Remove(s.Name); !errors.Is(err, ErrForeign) {
			t.Errorf("remove a changed file: %v", err)
		}
		if got := content(t, mine); got != "my own\n" {
			t.Errorf("got %q", got)
		}
		tree.Force = true
		if _, err := tree.Install(s); err != nil {
			t.Errorf("install with force: %v", err)
		}
		tree.Force = false

		remove := func(s Skill) ([]Outcome, error) { return tree.Remove(s.Name) }
		want(t, remove, s, Removed, Removed)
		want(t, remove, s, Absent, Absent)
		if got := content(t, other); got != "theirs\n" {
			t.Errorf("a neighbour has become %q", got)
		}
		left, err := filepath.Glob(filepath.Join(tree.Root, ".*", "skills", ".atoll-*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

func want(t *testing.T, do func(Skill) ([]Outcome, error), s Skill, actions ...string) {
	t.Helper()
	out, err := do(s)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range out {
		got = append(got, o.Action)
	}
	slices.Sort(got)
	slices.Sort(actions)
	if diff := cmp.Diff(actions, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
