package image

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine/driver/container/daemon"
)

// asContainerd in the environment makes the test binary run containerd.
const asContainerd = "ATOLL_TEST_AS_CONTAINERD"

func TestMain(m *testing.M) {
	if config := os.Getenv(asContainerd); config != "" {
		if err := daemon.Main([]string{"--config", config}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// containerdProcess is a real containerd with a state of its own.
type containerdProcess struct {
	t      *testing.T
	dir    string
	socket string
	cmd    *exec.Cmd
}

func startContainerd(t *testing.T) *containerdProcess {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctr") // t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	p := &containerdProcess{t: t, dir: dir, socket: filepath.Join(dir, "c.sock")}
	config := fmt.Sprintf("version = 3\nroot = %q\nstate = %q\n[grpc]\naddress = %q\n[ttrpc]\naddress = %q\n[debug]\nlevel = \"warn\"\n",
		filepath.Join(dir, "root"), filepath.Join(dir, "state"), p.socket, p.socket+".ttrpc")
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	t.Cleanup(p.stop)
	return p
}

func (p *containerdProcess) start() {
	p.t.Helper()
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), asContainerd+"="+filepath.Join(p.dir, "config.toml"))
	p.cmd.Stderr = &bytes.Buffer{}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	for range 1200 {
		s, err := Open(p.t.Context(), Config{Address: p.socket})
		if err == nil {
			s.Close()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.stop()
	p.t.Fatalf("containerd does not answer: %s", p.cmd.Stderr)
}

func (p *containerdProcess) stop() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // killed
}

// open connects a store whose cache is cacheDir, or an empty one.
func (p *containerdProcess) open(cacheDir string) *Store {
	p.t.Helper()
	if cacheDir == "" {
		cacheDir = p.t.TempDir()
	}
	s, err := Open(p.t.Context(), Config{Address: p.socket, Cache: cacheDir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { s.Close() })
	return s
}

// snapshots lists what the snapshotter holds.
func (s *Store) snapshots(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(filepath.Dir(s.config.Address), "root/io.containerd.snapshotter.v1.overlayfs/snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// run runs a shell command in a root directory and returns its output.
func inRoot(ctx context.Context, root, user, command string) (string, error) {
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--fork", "sh", "-ec", `
mount --bind "$1" "$1"; cd "$1"
mount -t proc proc proc; mount -t tmpfs tmp tmp; mount --rbind /dev dev
exec chroot . setpriv --reuid="$2" --regid=1000 --clear-groups env -i HOME=/home/daytona PATH=/home/daytona/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 bash -ec 'cd "$HOME"; eval "$1"' bash "$3"`, "sh", root, user, command)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}
