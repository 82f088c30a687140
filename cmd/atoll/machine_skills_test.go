package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/skills"
)

// TestMachineSkills runs every command of every skill, file by file in the
// order of the text, as an agent would type it. Blocks in other languages are
// run by those languages' own tests.
func TestMachineSkills(t *testing.T) {
	all, err := skills.All()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"sh": true, "text": true, "ts": true, "python": true}
	for _, skill := range all {
		for _, f := range skill.Files {
			var script strings.Builder
			for _, b := range f.Fences() {
				if !known[b.Language] {
					t.Errorf("%s/%s:%d: nothing runs blocks in %q", skill.Name, f.Path, b.Line, b.Language)
				}
				if b.Language == "sh" {
					fmt.Fprintf(&script, "echo '## line %d' >&2\n%s", b.Line, b.Code)
				}
			}
			if script.Len() > 0 {
				t.Run(skill.Name+"/"+strings.TrimSuffix(f.Path, ".md"), func(t *testing.T) {
					runCommands(t, sharedMachine(t), script.String())
				})
			}
		}
	}
}

func runCommands(t *testing.T, m *machine, script string) {
	t.Helper()
	bin := t.TempDir()
	if err := os.Symlink(m.bin, filepath.Join(bin, "atoll")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+cmd.Dir,
		"ATOLL_URL="+m.url, "ATOLL_HOME="+m.home, "ATOLL_API_KEY="+machineKey)
	cmd.WaitDelay = time.Second // a command that went to the background holds the output
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
		return
	}
	if strings.HasSuffix(script, "atoll down\n") {
		<-m.ended
		m.start()
	}
}
