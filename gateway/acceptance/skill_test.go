package acceptance

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine/enginetest/published"
	"github.com/atoll-sh/atoll/skills"
)

// runSkill runs the programs in the skill about SDKs with the published ones.
func (s *server) runSkill() {
	s.Helper()
	all, err := skills.All()
	if err != nil {
		s.Fatal(err)
	}
	i := slices.IndexFunc(all, func(k skills.Skill) bool { return k.Name == "atoll-sdk" })
	if i < 0 {
		s.Fatal("the skill atoll-sdk is not there")
	}
	ran := map[string]int{}
	for _, f := range all[i].Files {
		for _, b := range f.Fences() {
			switch b.Language {
			case "ts":
				s.example(published.Node(s.T), "example.mjs", b, "42\ndata\ntrue\n")
			case "python":
				s.example(published.Python(s.T, filepath.Join("programs", "requirements.txt")), "example.py", b, "42\ndata\n")
			}
			ran[b.Language]++
		}
	}
	if ran["ts"] == 0 || ran["python"] == 0 {
		s.Errorf("the skill has programs in %v", ran)
	}
}

// example runs one program, which has no types that Node would not read.
func (s *server) example(interpreter, name string, b skills.Fence, want string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 2*time.Minute)
	defer cancel()
	cmd := s.command(ctx, interpreter, name)
	if err := os.WriteFile(filepath.Join(cmd.Dir, name), []byte(b.Code), 0o600); err != nil {
		s.Fatal(err)
	}
	modules := filepath.Join(published.NPM(s.T, sdks[0].pkg+"@"+sdks[0].version), "node_modules")
	if err := os.Symlink(modules, filepath.Join(cmd.Dir, "node_modules")); err != nil {
		s.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), want) {
		s.Errorf("the skill's program at line %d: %v, it printed\n%s", b.Line, err, out)
	}
}
