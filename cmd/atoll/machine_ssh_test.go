package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// visitor is a client's computer.
type visitor struct {
	m   *machine
	dir string
}

// run runs a program there and returns its exit code and output.
func (r visitor) run(program string, args ...string) (int, string) {
	r.m.t.Helper()
	cmd := r.command(program, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		r.m.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

func (r visitor) command(program string, args ...string) *exec.Cmd {
	if program == "atoll" {
		program, args = r.m.bin, append([]string{"--url", r.m.url}, args...)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "HOME="+r.dir, "XDG_CACHE_HOME="+r.dir+"/cache", "ATOLL_API_KEY="+machineKey)
	return cmd
}

// want runs a program that must print want.
func (r visitor) want(want, program string, args ...string) {
	r.m.t.Helper()
	if code, out := r.run(program, args...); code != 0 || strings.TrimSpace(out) != want {
		r.m.t.Errorf("%s %q: exit %d %q, want %q", program, args, code, out, want)
	}
}

func TestMachineSSH(t *testing.T) {
	m := sharedMachine(t)
	box, other := m.create(map[string]any{"name": "box"}), m.create(map[string]any{"name": "other"})
	r := visitor{m, t.TempDir()}
	r.want("atoll /home/daytona 0", "atoll", "ssh", "box", "echo $(id -un) $(pwd) $(sudo -n id -u)")
	code, out := r.run("atoll", "ssh", "box", "-tt", "tty; stty size; exit 9")
	if code != 9 || !strings.Contains(out, "/dev/pts/") || !strings.Contains(out, "24 80") {
		t.Errorf("a terminal: exit %d %q", code, out)
	}

	code, out = r.run("atoll", "ssh", "--config", "box")
	config := filepath.Join(r.dir, "config")
	if err := os.WriteFile(config, []byte(out), 0o600); err != nil || code != 0 {
		t.Fatal(code, out, err)
	}
	if err := os.WriteFile(r.dir+"/file", []byte("hello"), 0o640); err != nil {
		t.Fatal(err)
	}
	r.want("", "scp", "-qF", config, "file", "box:by-scp")
	r.want("", "rsync", "-e", "ssh -F "+config, "file", "box:by-rsync")
	sftp := r.command("sftp", "-qF", config, "-b", "-", "box")
	sftp.Stdin = strings.NewReader("put file by-sftp\nget by-sftp back\n")
	if out, err := sftp.CombinedOutput(); err != nil {
		t.Errorf("sftp: %v\n%s", err, out)
	}
	want := strings.TrimSpace(strings.Repeat("atoll hello\n", 3))
	if _, out := m.sh(box.ID, "for f in by-scp by-rsync by-sftp; do echo $(stat -c %U $f) $(cat $f); done"); strings.TrimSpace(out) != want {
		t.Errorf("files: got %q, want %q", out, want)
	}
	if code, out := r.run("sh", "-c", "echo 'put file /etc/passwd' | sftp -qF "+config+" -b - box"); code == 0 {
		t.Errorf("sftp writes what only root may: %s", out)
	}
	m.sshPorts(t, r, config, box.ID, other.ID)
	m.sshEnds(t, r, config)
}

// sshPorts forwards ports of the sandbox, and nothing else.
func (m *machine) sshPorts(t *testing.T, r visitor, config, box, other string) {
	for _, id := range []string{box, other} {
		m.sh(id, "echo of-$(hostname) > page; nohup python3 -m http.server 8000 >/dev/null 2>&1 & "+
			"until curl -s localhost:8000 >/dev/null; do sleep 0.05; done")
	}
	fetch := func(target string) (int, string) {
		return r.run("sh", "-c", `printf 'GET /page HTTP/1.0\r\n\r\n' | ssh -F "$0" -W "$1" box`, config, target)
	}
	if code, out := fetch("localhost:8000"); code != 0 || !strings.Contains(out, "of-box") {
		t.Errorf("the sandbox's own port: exit %d %q", code, out)
	}
	_, addrs := m.sh(other, "hostname -I")
	_, gateway := m.sh(box, "ip route | awk '/default/{print $3}'")
	targets := append(strings.Fields(addrs), strings.TrimSpace(gateway), "169.254.169.254", "other", "0.0.0.0")
	for _, host := range targets {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		for _, port := range []string{"8000", m.addr[strings.LastIndex(m.addr, ":")+1:], "80"} {
			if code, out := fetch(host + ":" + port); code == 0 || !strings.Contains(out, "only ports of the sandbox") {
				t.Errorf("%s:%s is reached: exit %d %q", host, port, code, out)
			}
		}
	}
	if code, out := fetch("localhost:" + m.addr[strings.LastIndex(m.addr, ":")+1:]); code == 0 || !strings.Contains(out, "nothing listens") {
		t.Errorf("the server's port is reached: exit %d %q", code, out)
	}
}

// sshEnds ends live connections by revoking, stopping and a new start of the
// server, which keeps its host key.
func (m *machine) sshEnds(t *testing.T, r visitor, config string) {
	hold := func() *exec.Cmd {
		t.Helper()
		cmd := r.command("ssh", "-F", config, "box", "echo in; exec sleep 600")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	live := hold()
	m.must("POST", "/api/sandbox/box/stop", nil, nil)
	if live.Wait() == nil {
		t.Error("a stop did not end the connection")
	}
	if code, out := r.run("ssh", "-F", config, "box", "true"); code != 255 || !strings.Contains(out, "is stopped") {
		t.Errorf("a stopped sandbox: exit %d %q", code, out)
	}
	m.must("POST", "/api/sandbox/box/start", nil, nil)
	live = hold()
	m.must("DELETE", "/api/sandbox/box/ssh-access", nil, nil)
	if live.Wait() == nil {
		t.Error("a revocation did not end the connection")
	}
	if code, out := r.run("ssh", "-F", config, "box", "true"); code != 255 || !strings.Contains(out, "not valid") {
		t.Errorf("a revoked token: exit %d %q", code, out)
	}
	key, err := os.ReadFile(m.home + "/ssh_host_ed25519_key")
	if err != nil {
		t.Fatal(err)
	}
	m.stop()
	m.start()
	if again, err := os.ReadFile(m.home + "/ssh_host_ed25519_key"); err != nil || !bytes.Equal(again, key) {
		t.Errorf("the host key is another after a restart: %v", err)
	}
	r.want("hi", "atoll", "ssh", "box", "echo hi")
	if strings.Contains(m.log(), token(t, config)) {
		t.Error("a token is in the log")
	}
}

// token is the one in an entry of ssh's configuration.
func token(t *testing.T, config string) string {
	t.Helper()
	b, err := os.ReadFile(config)
	_, rest, ok := strings.Cut(string(b), "User ")
	if err != nil || !ok {
		t.Fatalf("no user in %q: %v", b, err)
	}
	return strings.Fields(rest)[0]
}

func TestMachineLanguageServers(t *testing.T) {
	m := sharedMachine(t)
	box := m.create(map[string]any{"name": "box"})
	m.sh(box.ID, "mkdir -p proj; printf 'class Basket:\\n    pass\\n' >proj/a.py; printf 'export class Basket {}\\n' >proj/a.ts")
	for language, file := range map[string]string{"python": "proj/a.py", "typescript": "proj/a.ts"} {
		q := map[string]any{"languageId": language, "pathToProject": "proj"}
		m.must("POST", "/toolbox/box/lsp/start", q, nil)
		var symbols []struct{ Name string }
		m.must("GET", "/toolbox/box/lsp/document-symbols?languageId="+language+"&pathToProject=proj&uri=file://"+file, nil, &symbols)
		if len(symbols) != 1 || symbols[0].Name != "Basket" {
			t.Errorf("%s: got %v", language, symbols)
		}
		m.must("POST", "/toolbox/box/lsp/stop", q, nil)
	}
}
