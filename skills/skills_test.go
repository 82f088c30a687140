package skills

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestFormat holds the skills against the format's limits.
func TestFormat(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 7 {
		t.Errorf("got %d skills, want 7", len(all))
	}
	name := regexp.MustCompile(`^atoll-[a-z0-9]+$`)
	link := regexp.MustCompile(`\]\(([^)#]+)\)`)
	for _, s := range all {
		if s.Frontmatter["name"] != s.Name || !name.MatchString(s.Name) || len(s.Name) > 64 {
			t.Errorf("%s: the name in the file is %v", s.Name, s.Frontmatter["name"])
		}
		if len(s.Description) < 80 || len(s.Description) > 1024 || !strings.Contains(s.Description, "Use ") {
			t.Errorf("%s: the description has to say what it is and when to use it, in at most 1024 bytes: %q", s.Name, s.Description)
		}
		for key := range s.Frontmatter {
			if !slices.Contains([]string{"name", "description", "license", "compatibility", "metadata", "allowed-tools"}, key) {
				t.Errorf("%s: unknown key %s", s.Name, key)
			}
		}
		for _, f := range s.Files {
			text := string(f.Data)
			if lines := strings.Count(text, "\n"); f.Path == Main && lines > 300 {
				t.Errorf("%s has %d lines", s.Name, lines)
			}
			for _, m := range link.FindAllStringSubmatch(text, -1) {
				if strings.Contains(m[1], "://") {
					continue
				}
				if to := path.Join(path.Dir(f.Path), m[1]); !slices.ContainsFunc(s.Files, func(o File) bool { return o.Path == to }) {
					t.Errorf("%s/%s names %s, which is not there", s.Name, f.Path, m[1])
				}
			}
			for _, other := range regexp.MustCompile(`\batoll-[a-z]+\b`).FindAllString(text, -1) {
				if !slices.ContainsFunc(all, func(o Skill) bool { return o.Name == other }) && other != "atoll-desktop" {
					t.Errorf("%s/%s names the skill %s, which is not there", s.Name, f.Path, other)
				}
			}
		}
	}
}
