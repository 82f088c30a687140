package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/atoll-sh/atoll/engine/enginetest"
)

// TestMachineUp is what `make up` and `make down` do, twice, and once more
// after the server was killed.
func TestMachineUp(t *testing.T) {
	t.Parallel()
	url := "http://" + enginetest.FreeAddress(t)
	home, err := os.MkdirTemp("", "au")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, bin: binary(t), home: home, url: url}
	t.Cleanup(m.down)
	up := func(when string) {
		t.Helper()
		out, err := exec.Command(m.bin, "--home", home, "--url", url, "up").CombinedOutput()
		if err != nil {
			t.Fatalf("up %s: %v\n%s", when, err, out)
		}
		for _, want := range []string{"6 * 7 = 42", "identity", "atoll mcp init", "DAYTONA_API_URL=" + url + "/api"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("up %s does not say %q:\n%s", when, want, out)
			}
		}
	}
	up("from nothing")
	up("again")
	pid, err := os.ReadFile(filepath.Join(home, "server.pid"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	if err != nil || syscall.Kill(n, syscall.SIGKILL) != nil {
		t.Fatalf("kill the server %q: %v", pid, err)
	}
	up("after a crash")
	if out, err := exec.Command(m.bin, "down", "--home", home).CombinedOutput(); err != nil {
		t.Fatalf("down: %v\n%s", err, out)
	}
	if left := m.leftovers(); len(left) > 0 {
		t.Errorf("left after down:\n%s", strings.Join(left, "\n"))
	}
	up("after down")
}
