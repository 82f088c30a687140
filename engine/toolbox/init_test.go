package toolbox

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/atoll-sh/atoll/engine/toolbox/client"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// openInit starts the built program as PID 1 of fresh pid, mount, uts and net
// namespaces, with an /etc and a /run of its own.
func openInit(t *testing.T, env ...string) (*box, *exec.Cmd) {
	t.Helper()
	root := t.TempDir()
	for _, d := range []string{filepath.Dir(root), root} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b := &box{t: t, dir: root + "/work", etc: root + "/etc"}
	write(t, b.etc+"/passwd", "root:x:0:0:root:/root:/bin/bash\ndev:x:41234:41235::"+b.dir+":/bin/bash\nother:x:41239:41239::/:/bin/sh\n")
	write(t, b.etc+"/group", "root:x:0:\ndev:x:41235:\n")
	write(t, b.etc+"/shells", "/bin/bash\n")
	bin := build(t)
	sock, err := os.MkdirTemp("", "tbx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sock) })
	script := `set -e
if [ -n "$CGROUP_PROCS" ]; then echo $$ >"$CGROUP_PROCS"; mount --bind "$CGROUP" "$CGROUP_AT"; fi
mount -t tmpfs tmpfs /run
mount --bind ` + b.etc + ` /etc
mkdir -p ` + root + `/local/bin && mount --bind ` + root + `/local /usr/local
exec ` + bin
	cmd := exec.Command("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts", "--net", "sh", "-c", script)
	cmd.Env = append([]string{
		"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "ATOLL_TOOLBOX_SOCKET=" + sock + "/s/t.sock",
		"ATOLL_USER=dev", "ATOLL_WORKDIR=" + b.dir, "ATOLL_STATE=" + root + "/state",
	}, env...)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	rt := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", sock+"/s/t.sock")
	}}
	t.Cleanup(func() {
		rt.CloseIdleConnections()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	b.Client, b.http = client.New(rt), &http.Client{Transport: rt}
	eventually(t, "the toolbox to answer", func() bool { _, err := b.Status(t.Context()); return err == nil })
	if i, err := os.Stat(sock + "/s"); err != nil || i.Mode().Perm() != 0o700 {
		t.Errorf("socket directory: %v, %v", i.Mode(), err)
	}
	if i, err := os.Stat(sock + "/s/t.sock"); err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", i.Mode(), err)
	}
	return b, cmd
}

// build compiles the program where the sandbox's users can run it.
func build(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tbxbin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir+"/atoll-toolbox", "github.com/atoll-sh/atoll/cmd/atoll-toolbox")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir + "/atoll-toolbox"
}

func TestAsInit(t *testing.T) {
	b, cmd := openInit(t, "ATOLL_SUDO=1", "FROM_IMAGE=1")
	ctx := t.Context()

	t.Run("environment", func(t *testing.T) {
		if got := b.run("env | grep -c ATOLL_; true"); got != "0\n" {
			t.Errorf("got %s variables of the toolbox's own", got)
		}
		if got := b.run("echo $FROM_IMAGE $HOME; for i in $(seq 1200); do read n </proc/$$/oom_score_adj; [ $n = 500 ] && break; sleep 0.05; done; cat /proc/self/oom_score_adj /proc/1/comm"); got != "1 "+b.dir+"\n500\natoll-toolbox\n" {
			t.Errorf("got %q", got)
		}
	})

	t.Run("a rehearsal leaves nothing", func(t *testing.T) {
		for range 2 {
			if err := b.Rehearse(ctx); err != nil {
				t.Error(err)
			}
		}
		if st, err := b.Status(ctx); err != nil || st.Processes != 0 || st.Busy != 0 {
			t.Errorf("got %+v, %v", st, err)
		}
	})

	t.Run("large files", func(t *testing.T) {
		for _, size := range []int{5 << 20, 9<<20 + 1} { // the second replaces the first
			data := bytes.Repeat([]byte("0123456789abcdefghij\n"), size/21+1)[:size]
			if err := b.Upload(ctx, "large", bytes.NewReader(data)); err != nil {
				t.Fatal(err)
			}
			f, n, err := b.Download(ctx, "large")
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(f)
			f.Close()
			if err != nil || n != int64(size) || !bytes.Equal(got, data) {
				t.Errorf("got %d of %d bytes, %v; the content is right: %t", len(got), n, err, bytes.Equal(got, data))
			}
		}
	})

	t.Run("orphans are reaped", func(t *testing.T) {
		b.run("for i in $(seq 50); do (sleep 0.01 & ) ; done; (setsid sleep 0.05 &)")
		eventually(t, "orphans to vanish", func() bool {
			return b.run("ps -eo stat,comm | grep -c '^Z' ; true") == "0\n" && b.run("ps -eo comm | grep -c sleep; true") == "0\n"
		})
	})

	t.Run("exit codes survive the reaper", func(t *testing.T) {
		errs := make(chan error, 60)
		for i := range cap(errs) {
			go func() {
				got, err := b.Execute(ctx, wire.ExecuteRequest{Command: fmt.Sprintf("(sleep 0.01 &); exit %d", i)})
				if err == nil && got.ExitCode != i {
					err = fmt.Errorf("got %+v, want %d", got, i)
				}
				errs <- err
			}()
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})

	t.Run("timeout kills the tree", func(t *testing.T) {
		_, err := b.Execute(ctx, wire.ExecuteRequest{Command: "echo part; sleep 300 & setsid sleep 300 & sleep 300", Timeout: 1})
		wantError(t, err, 408, wire.CodeExecTimeout, "")
		if got := b.run("ps -eo comm | grep -c sleep; true"); got != "0\n" {
			t.Errorf("got %s left", got)
		}
	})

	t.Run("a background child does not hang the call", func(t *testing.T) {
		if got := b.run("sleep 300 & echo $!"); got == "" {
			t.Error("no output")
		}
		b.run("pkill sleep")
	})

	t.Run("sudo", func(t *testing.T) { testSudo(t, b) })

	t.Run("ports and proxy", func(t *testing.T) { testPorts(t, b) })

	t.Run("identity", func(t *testing.T) {
		if err := b.SetIdentity(ctx, wire.Identity{Hostname: "claimed", Env: map[string]string{"LATE": "1"}}); err != nil {
			t.Fatal(err)
		}
		if got := b.run("hostname; cat /etc/hostname; getent hosts claimed | cut -d' ' -f1; echo $LATE"); got != "claimed\nclaimed\n127.0.1.1\n1\n" {
			t.Errorf("got %q", got)
		}
	})

	t.Run("status", func(t *testing.T) {
		s, err := b.Status(ctx)
		if err != nil || s.Processes != 0 || s.Busy != 0 || s.User != "dev" || len(s.Warnings) != 0 {
			t.Errorf("got %+v, %v", s, err)
		}
	})

	t.Run("SIGTERM", func(t *testing.T) {
		b.session("s")
		c, err := b.Exec(ctx, "s", wire.SessionExecute{Command: "trap 'echo bye >" + b.dir + "/bye; exit' TERM; echo up; while :; do sleep 0.05; done", RunAsync: true})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the trap to be set", func() bool {
			l, _, err := b.Logs(ctx, "s", c.CmdID, 0, 0)
			return err == nil && l.Stdout == "up\n"
		})
		b.run("setsid sleep 300 & true")
		began := time.Now()
		if err := syscall.Kill(childOf(t, cmd.Process.Pid), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("exit: %v", err)
		}
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("it took %v", took)
		}
		if got := read(t, b.dir+"/bye"); got != "bye\n" {
			t.Errorf("got %q", got)
		}
	})
}

func childOf(t *testing.T, pid int) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(read(t, fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func testSudo(t *testing.T, b *box) {
	tests := []struct {
		command, want string
		code          int
	}{
		{"sudo id -u", "0\n", 0},
		{"sudo -n -E sh -c 'echo $KEEP $SUDO_USER $HOME'", "kept dev " + b.dir + "\n", 0},
		{"sudo sh -c 'echo [$KEEP] $HOME; pwd'", "[] /root\n" + b.dir + "\n", 0},
		{"sudo -H A=1 B=2 sh -c 'echo $A$B $USER'", "12 root\n", 0},
		{"sudo -u dev -- id -un", "dev\n", 0},
		{"sudo -u '#41239' id -u", "41239\n", 0},
		{"sudo -g dev id -g", "41235\n", 0},
		{"echo in | sudo cat", "in\n", 0},
		{"sudo sh -c 'echo out; echo err >&2; exit 9'", "out\nerr\n", 9},
		{"sudo -s echo '$HOME' \"a  b\"", "/root a  b\n", 0},
		{"sudo -i pwd", "/root\n", 0},
		{"sudo -v && sudo -k && echo ok", "ok\n", 0},
		{"sudo no-such-program", "sudo: no-such-program: command not found\n", 1},
		{"sudo -u nobody-here id", "sudo: unknown user or group nobody-here\n", 1},
		{"sudo -Q id", "sudo: invalid option -- 'Q'\n", 1},
		{"sudo sh -c 'kill -TERM $$'", "", 143},
	}
	for _, tt := range tests {
		got, err := b.Execute(t.Context(), wire.ExecuteRequest{Command: tt.command, Envs: map[string]string{"KEEP": "kept"}})
		if err != nil || got.Result != tt.want || got.ExitCode != tt.code {
			t.Errorf("%s: got %q %d %v, want %q %d", tt.command, got.Result, got.ExitCode, err, tt.want, tt.code)
		}
	}
	got, err := b.Execute(t.Context(), wire.ExecuteRequest{Command: "sudo id -u", User: "other"})
	if err != nil || got.ExitCode != 1 || !strings.Contains(got.Result, "may not use sudo") {
		t.Errorf("another user: got %+v, %v", got, err)
	}
	// A signal to the client reaches the command, and its end ends the command.
	got, err = b.Execute(t.Context(), wire.ExecuteRequest{Command: "sudo sh -c 'trap \"echo caught; exit 5\" INT; touch trapped; while :; do sleep 0.02; done' & until [ -e trapped ]; do sleep 0.02; done; kill -INT $!; wait $!"})
	if err != nil || got.Result != "caught\n" || got.ExitCode != 5 {
		t.Errorf("signal: got %+v, %v", got, err)
	}
	b.run("sudo sleep 301 & until pgrep -xf 'sleep 301' >/dev/null; do sleep 0.02; done; kill -9 $!")
	eventually(t, "the command of a dead client to end", func() bool { return b.run("pgrep -c -f 'sleep 30[1]'; true") == "0\n" })
}

func testPorts(t *testing.T, b *box) {
	ctx := t.Context()
	b.run("sudo ip link set lo up")
	b.session("web")
	if _, err := b.Exec(ctx, "web", wire.SessionExecute{Command: "mkdir w && echo page >'w/a b' && cd w && exec /usr/bin/python3 -m http.server 3456 --bind ::1", RunAsync: true}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server to listen", func() bool { p, err := b.Ports(ctx); return err == nil && len(p) == 1 && p[0] == 3456 })
	if _, _, got := b.send("GET", "/port/3456/in-use", nil); got != `{"isInUse":true}` {
		t.Errorf("got %s", got)
	}
	if status, _, got := b.send("GET", "/proxy/3456/a%20b?x=1", nil); status != 200 || got != "page\n" {
		t.Errorf("got %d %q", status, got)
	}
	if status, _, got := b.send("GET", "/proxy/3457/", nil); status != 502 || !strings.Contains(got, "nothing listens on port 3457") {
		t.Errorf("got %d %q", status, got)
	}
	if err := b.EndSession(ctx, "web"); err != nil {
		t.Fatal(err)
	}
}

// TestProxyWebSocket passes an upgrade through to a service.
func TestProxyWebSocket(t *testing.T) {
	b := open(t)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Forwarded-Host") != "preview.example" || !strings.HasPrefix(r.Host, "localhost:") {
			t.Errorf("got host %s, headers %v", r.Host, r.Header)
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		kind, m, err := c.Read(r.Context())
		if err == nil {
			_ = c.Write(r.Context(), kind, append([]byte("echo "), m...))
			_ = c.Close(websocket.StatusNormalClosure, "")
		}
	}))
	defer service.Close()
	_, port, _ := net.SplitHostPort(service.Listener.Addr().String())
	c, _, err := websocket.Dial(t.Context(), "http://toolbox/proxy/"+port+"/ws", &websocket.DialOptions{HTTPClient: b.http, HTTPHeader: http.Header{"X-Forwarded-Host": {"preview.example"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if err := c.Write(t.Context(), websocket.MessageText, []byte("hi")); err != nil {
		t.Fatal(err)
	}
	if _, m, err := c.Read(t.Context()); err != nil || string(m) != "echo hi" {
		t.Errorf("got %q, %v", m, err)
	}
}

// TestOOMKilled runs into the memory limit of a cgroup and is told so. Where
// the machine has no memory cgroup at the place a sandbox sees, the mount
// namespace puts one there.
func TestOOMKilled(t *testing.T) {
	v1, v2 := "/sys/fs/cgroup/memory", "/sys/fs/cgroup"
	name := filepath.Base(t.TempDir()) + strconv.Itoa(os.Getpid())
	group, limit := v1+"/tbx-"+name, "memory.limit_in_bytes"
	at := v1
	if _, err := os.Stat(v1); err != nil {
		group, limit, at = v2+"/tbx-"+name, "memory.max", v2
	}
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		eventually(t, "the cgroup to empty", func() bool { return os.Remove(group) == nil })
	})
	write(t, group+"/"+limit, "67108864")
	_ = os.WriteFile(group+"/memory.swap.max", []byte("0"), 0)
	b, _ := openInit(t, "CGROUP_PROCS="+group+"/cgroup.procs", "CGROUP="+group, "CGROUP_AT="+at)
	got, err := b.Execute(t.Context(), wire.ExecuteRequest{Command: "/usr/bin/python3 -c 'x = bytearray(200 << 20)'; exit $?"})
	if err != nil || got.ExitCode != 137 || !got.OOMKilled {
		t.Errorf("got %+v, %v, want 137 and killed for memory", got, err)
	}
	got, err = b.Execute(t.Context(), wire.ExecuteRequest{Command: "kill -9 $$"})
	if err != nil || got.ExitCode != 137 || got.OOMKilled {
		t.Errorf("got %+v, %v, want 137 for another reason", got, err)
	}
}
