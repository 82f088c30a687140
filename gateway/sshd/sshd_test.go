package sshd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/toolbox"
	"github.com/atoll-sh/atoll/engine/toolbox/sftp"
	"github.com/atoll-sh/atoll/gateway/gatewaytest"
	"github.com/atoll-sh/atoll/gateway/sshd"
)

// TestMain lets the toolbox find the SFTP server in this program, as it does
// in its own.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == sftp.Command {
		os.Exit(sftp.Main())
	}
	os.Exit(m.Run())
}

// rig is a gateway before a sandbox "one" whose toolbox is real and runs on
// this computer.
type rig struct {
	*testing.T
	engine *gatewaytest.Engine
	door   engine.SSHDoor
	server *sshd.Server
	key    ssh.Signer
	home   string // of the sandbox's user
	dir    string // of the client
	token  string
	log    *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newRig(t *testing.T, limits ...sshd.Limits) *rig {
	t.Helper()
	r := &rig{T: t, home: t.TempDir(), dir: t.TempDir(), log: &syncBuffer{}}
	tools, err := toolbox.New(toolbox.Config{
		Version: "test", User: "root", WorkDir: r.home, EtcDir: "/etc", StateDir: t.TempDir(),
		Env: map[string]string{"PATH": os.Getenv("PATH"), "HOME": r.home}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tools.Close(0) })
	r.engine = gatewaytest.NewWith(t, tools.Handler())
	for _, name := range []string{"one", "two", "stopped"} {
		state := engine.StateStarted
		if name == "stopped" {
			state = engine.StateStopped
		}
		r.engine.AddSandbox(engine.Sandbox{ID: name, Name: name, OrganizationID: engine.DefaultOrganization, State: state})
	}
	r.door = r.engine.SSH()
	r.key, err = sshd.HostKey(filepath.Join(r.dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	c := sshd.Config{
		Listen: "127.0.0.1:0", Door: r.door, Toolboxes: r.engine, HostKey: r.key,
		Log: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, l := range limits {
		c.Limits = l
	}
	r.server, err = sshd.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := r.server.Close(ctx); err != nil {
			t.Error(err)
		}
		if strings.Contains(r.log.String(), "ssh_") {
			t.Error("a token is in the log")
		}
	})
	r.token = r.grant("one")
	known := fmt.Sprintf("[127.0.0.1]:%d %s\n", r.port(), sshd.PublicKey(r.key))
	if err := os.WriteFile(r.dir+"/known_hosts", []byte(known), 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) port() int { return r.server.Addr().Port }

func (r *rig) grant(sandbox string) string {
	r.Helper()
	_, token, err := r.door.Grant(r.Context(), engine.Principal{KeyID: "k"}, gatewaytest.Ref(sandbox), time.Hour)
	if err != nil {
		r.Fatal(err)
	}
	return token
}

// options are those that make OpenSSH's programs ask nobody anything.
func (r *rig) options() []string {
	return []string{
		"-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=" + r.dir + "/known_hosts",
		"-o", "GlobalKnownHostsFile=none", "-o", "IdentityFile=none", "-o", "IdentityAgent=none", "-o", "LogLevel=INFO",
		"-o", "Port=" + strconv.Itoa(r.port()),
	}
}

func (r *rig) host() string { return r.token + "@127.0.0.1" }

// result is how a client's program ended.
type result struct {
	out, err string
	code     int
}

func (r *rig) client(stdin io.Reader, program string, args ...string) result {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append(r.options(), args...)...)
	cmd.Env = append(os.Environ(), "HOME="+r.dir, "LC_TEST=from the client", "LD_TEST=no")
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	cmd.Dir = r.dir
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.Fatalf("%s: %v", program, err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

func (r *rig) ssh(stdin string, args ...string) result {
	r.Helper()
	return r.client(strings.NewReader(stdin), "ssh", args...)
}

func TestExec(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		name, stdin string
		args        []string
		want        result
	}{
		{"streams and code", "", []string{r.host(), "echo out; echo err >&2; exit 7"}, result{"out\n", "err\n", 7}},
		{"plain words", "", []string{r.host(), "uname"}, result{"Linux\n", "", 0}},
		{"stdin", "abc", []string{r.host(), "wc -c; echo done"}, result{"3\ndone\n", "", 0}},
		{"no stdin", "abc", []string{"-n", r.host(), "cat"}, result{"", "", 0}},
		{"shell that reads", "echo hi\nexit 4\n", []string{"-T", r.host()}, result{"hi\n", "", 4}},
		{"allowed variable", "", []string{"-o", "SendEnv=LC_TEST", r.host(), "echo $LC_TEST"}, result{"from the client\n", "", 0}},
		{"other variable", "", []string{"-o", "SendEnv=LD_TEST", r.host(), "echo [$LD_TEST]"}, result{"[]\n", "", 0}},
		{"where", "", []string{r.host(), "pwd"}, result{r.home + "\n", "", 0}},
		{"not found", "", []string{r.host(), "exec no-such-program 2>/dev/null"}, result{"", "", 127}},
		{"unknown subsystem", "", []string{"-s", r.host(), "nothing"}, result{"", "subsystem request failed on channel 0\r\n", 255}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := r.ssh(c.stdin, c.args...); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB
	if got := r.client(bytes.NewReader(big), "ssh", r.host(), "cat"); got.code != 0 || got.out != string(big) {
		t.Errorf("4 MiB through cat: got %d bytes, code %d, %s", len(got.out), got.code, got.err)
	}
}

func TestTerminal(t *testing.T) {
	r := newRig(t)
	got := r.ssh("stty size; tty; echo T=$TERM; shopt login_shell; exit 3\n", "-tt", "-o", "SetEnv=TERM=vt100", r.host())
	if got.code != 3 {
		t.Errorf("got %+v, want code 3", got)
	}
	for _, want := range []string{"24 80", "/dev/pts/", "T=vt100", "login_shell"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("got %q, want %q in it", got.out, want)
		}
	}
}

// dial connects with another implementation, which can do what ssh does not.
func (r *rig) dial(token string) (*ssh.Client, error) {
	return ssh.Dial("tcp", r.server.Addr().String(), &ssh.ClientConfig{
		User: token, HostKeyCallback: ssh.FixedHostKey(r.key.PublicKey()), Timeout: time.Minute,
	})
}

func (r *rig) mustDial() *ssh.Client {
	r.Helper()
	c, err := r.dial(r.token)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { c.Close() })
	return c
}

func TestSignalsAndSizes(t *testing.T) {
	r := newRig(t)
	c := r.mustDial()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestPty("xterm", 30, 100, nil); err != nil {
		t.Fatal(err)
	}
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(`trap 'stty size; exit 5' WINCH; stty size; while :; do sleep 0.05; done`); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if n, err := out.Read(buf); err != nil || !strings.Contains(string(buf[:n]), "30 100") {
		t.Fatalf("got %q, %v", buf[:n], err)
	}
	if err := s.WindowChange(40, 120); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(out)
	var exit *ssh.ExitError
	if err := s.Wait(); !errors.As(err, &exit) || exit.ExitStatus() != 5 || !strings.Contains(string(rest), "40 120") {
		t.Errorf("got %q, %v", rest, err)
	}

	s, err = c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err = s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("echo ready; exec sleep 600"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, buf[:6]); err != nil {
		t.Fatal(err)
	}
	if err := s.Signal(ssh.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(); !errors.As(err, &exit) || exit.Signal() != "TERM" {
		t.Errorf("got %v, want the signal TERM", err)
	}
}

// TestLeaving closes a connection under a program, which ends with it.
func TestLeaving(t *testing.T) {
	r := newRig(t)
	c := r.mustDial()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("echo $$; exec sleep 600"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 20)
	n, err := out.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	waitFor(t, "the program ends", func() bool {
		_, err := os.Stat("/proc/" + strings.TrimSpace(string(buf[:n])) + "/cwd")
		return err != nil
	})
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestFiles(t *testing.T) {
	r := newRig(t)
	data := bytes.Repeat([]byte("line\n"), 100_000)
	if err := os.WriteFile(r.dir+"/file", data, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(r.dir+"/tree/deep", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.dir+"/tree/deep/x", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	same := func(a string, want []byte) {
		t.Helper()
		got, err := os.ReadFile(a)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %d bytes, %v, want %d", a, len(got), err, len(want))
		}
	}
	batch := "mkdir sub\nput file sub/up\nget sub/up down\nrename sub/up sub/moved\nchmod 600 sub/moved\nln -s moved sub/link\nls -l sub\npwd\n"
	got := r.client(strings.NewReader(batch), "sftp", "-b", "-", r.host())
	if got.code != 0 || !strings.Contains(got.out, "working directory: "+r.home) {
		t.Errorf("sftp: got %+v", got)
	}
	same(r.home+"/sub/moved", data)
	same(r.home+"/sub/link", data)
	same(r.dir+"/down", data)
	for _, legacy := range []string{"-s", "-O"} { // the new protocol and the old
		t.Run("scp"+legacy, func(t *testing.T) {
			if got := r.client(nil, "scp", legacy, "-r", "tree", r.host()+":tree"+legacy); got.code != 0 {
				t.Fatalf("got %+v", got)
			}
			same(r.home+"/tree"+legacy+"/deep/x", []byte("x"))
			if got := r.client(nil, "scp", legacy, r.host()+":sub/moved", "back"+legacy); got.code != 0 {
				t.Fatalf("got %+v", got)
			}
			same(r.dir+"/back"+legacy, data)
		})
	}
	if got := r.client(strings.NewReader("get nothing\n"), "sftp", "-b", "-", r.host()); got.code == 0 || !strings.Contains(got.err, "not found") {
		t.Errorf("a missing file: got %+v", got)
	}
	transport := "ssh " + strings.Join(r.options(), " ")
	for _, c := range [][]string{
		{"rsync", "-a", "-e", transport, "tree/", r.host() + ":synced"},
		{"git", "clone", "-q", r.token + "@127.0.0.1:repo", "cloned"},
	} {
		if c[0] == "git" {
			if got := r.ssh("", r.host(), "git init -q repo && cd repo && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m first"); got.code != 0 {
				t.Fatalf("got %+v", got)
			}
		}
		cmd := exec.CommandContext(t.Context(), c[0], c[1:]...)
		cmd.Dir, cmd.Env = r.dir, append(os.Environ(), "GIT_SSH_COMMAND="+transport)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", c[0], err, out)
		}
	}
	same(r.home+"/synced/deep/x", []byte("x"))
	if _, err := os.Stat(r.dir + "/cloned/.git"); err != nil {
		t.Error(err)
	}
}

func TestForwarding(t *testing.T) {
	r := newRig(t)
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "from inside") }))
	defer inside.Close()
	// What the engine's ports lead to is the sandbox's; the port's number and
	// the server's address are nobody's on this computer.
	r.engine.Ports = func(sandbox string, port int) string {
		if sandbox == "one" && port == 8080 {
			return inside.Listener.Addr().String()
		}
		return "127.0.0.1:1"
	}
	const ask = "GET / HTTP/1.0\r\n\r\n"
	for _, host := range []string{"localhost", "127.0.0.1", "[::1]", "app.localhost", "LOCALHOST"} {
		if got := r.ssh(ask, "-W", host+":8080", r.host()); !strings.Contains(got.out, "from inside") {
			t.Errorf("%s: got %+v", host, got)
		}
	}
	for _, host := range []string{
		"169.254.169.254", "10.0.0.1", "0.0.0.0", "[::]", "two", "example.com", "localhost.example.com", "host.docker.internal",
		"127.0.0.1.nip.io", "[::ffff:10.0.0.1]", "metadata.google.internal",
	} {
		if got := r.ssh(ask, "-W", host+":8080", r.host()); got.code == 0 || got.out != "" || !strings.Contains(got.err, "only ports of the sandbox") {
			t.Errorf("%s: got %+v, want a refusal", host, got)
		}
	}
	if got := r.ssh(ask, "-W", "localhost:9", r.host()); got.code == 0 || !strings.Contains(got.err, "nothing listens on port 9") {
		t.Errorf("a closed port: got %+v", got)
	}
	if got := r.ssh("", "-o", "ExitOnForwardFailure=yes", "-R", "0:localhost:22", r.host(), "true"); got.code == 0 {
		t.Errorf("a port of the server: got %+v, want a refusal", got)
	}
	r.localForward()
}

// localForward is what people do most.
func (r *rig) localForward() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	cmd := exec.CommandContext(r.Context(), "ssh", append(r.options(), "-N", "-L", addr+":localhost:8080", r.host())...)
	if err := cmd.Start(); err != nil {
		r.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	waitFor(r.T, "the forwarded page", func() bool {
		res, err := http.Get("http://" + addr)
		if err != nil {
			return false
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return string(b) == "from inside"
	})
}

func TestTokens(t *testing.T) {
	r := newRig(t)
	good := r.token
	for token, want := range map[string]string{
		"ssh_unknown":      "not valid or has expired",
		"root":             "not valid or has expired",
		r.grant("stopped"): "sandbox stopped is stopped",
	} {
		r.token = token
		if got := r.ssh("", r.host(), "true"); got.code != 255 || !strings.Contains(got.err, want) {
			t.Errorf("got %+v, want %q", got, want)
		}
	}
	// Any key and any password will do, since the token is the secret.
	_, err := ssh.Dial("tcp", r.server.Addr().String(), &ssh.ClientConfig{
		User: good, HostKeyCallback: ssh.FixedHostKey(r.key.PublicKey()), Auth: []ssh.AuthMethod{ssh.Password("x"), ssh.PublicKeys(r.key)},
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRevocationEndsConnections(t *testing.T) {
	r := newRig(t)
	mine, other := r.mustDial(), r.grant("two")
	theirs, err := r.dial(other)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	if _, err := r.door.Revoke(t.Context(), gatewaytest.Ref("one"), r.token); err != nil {
		t.Fatal(err)
	}
	_ = mine.Wait() // returns when the connection is closed
	if _, err := r.dial(r.token); err == nil {
		t.Error("a revoked token lets in")
	}
	if s, err := theirs.NewSession(); err != nil || s.Run("true") != nil {
		t.Errorf("the other sandbox's connection: %v", err)
	}
}

func TestLimits(t *testing.T) {
	r := newRig(t, sshd.Limits{PerSandbox: 2, PerAddress: 3, Channels: 5, Failures: 1, Slow: 20 * time.Millisecond, Handshake: 5 * time.Second})
	c := r.mustDial()
	for i := range 6 {
		s, err := c.NewSession()
		switch {
		case i < 5 && err != nil:
			t.Fatal(err)
		case i == 5 && err == nil:
			t.Error("a channel too many was opened")
		case err == nil:
			if err := s.Start("sleep 600"); err != nil {
				t.Error(err)
			}
		}
	}
	second := r.mustDial()
	third, err := r.dial(r.token)
	if err == nil { // it is let in; the server puts out whom it counts last
		out := make(chan error, 2)
		for _, c := range []*ssh.Client{second, third} {
			go func() { out <- c.Wait() }()
		}
		<-out
	}
	var silent [4]net.Conn
	for i := range silent {
		if silent[i], err = net.Dial("tcp", r.server.Addr().String()); err != nil {
			t.Fatal(err)
		}
		defer silent[i].Close()
	}
	// The last is one too many and hears nothing; the others have their time.
	if b, _ := io.ReadAll(silent[3]); len(b) != 0 {
		t.Errorf("one too many heard %q", b)
	}
	for _, s := range silent[:3] {
		if b, _ := io.ReadAll(s); !strings.HasPrefix(string(b), "SSH-2.0-Atoll\r\n") {
			t.Errorf("a silent client heard %q", b)
		}
	}
	for range 3 {
		if _, err := r.dial("ssh_wrong"); err == nil {
			t.Error("a wrong token lets in")
		}
	}
	r.token = r.grant("two")
	r.mustDial() // others' failures are not its own
	if s, err := c.NewSession(); err == nil {
		s.Close()
		t.Error("a channel too many was opened")
	}
}

func TestHostKeyIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	first, err := sshd.HostKey(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := sshd.HostKey(path)
	if err != nil || sshd.Fingerprint(again) != sshd.Fingerprint(first) || !strings.HasPrefix(sshd.PublicKey(first), "ssh-ed25519 ") {
		t.Errorf("got %v, %v", again, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", info.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sshd.HostKey(path); engine.KindOf(err) != engine.KindInvalid {
		t.Errorf("got %v, want a refusal", err)
	}
}

// TestManyChannels is what editors do: many programs at once, all of one
// connection.
func TestManyChannels(t *testing.T) {
	r := newRig(t)
	c := r.mustDial()
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			s, err := c.NewSession()
			if err != nil {
				t.Error(err)
				return
			}
			if out, err := s.Output(fmt.Sprintf("echo %d; cat /dev/null", i)); err != nil || string(out) != fmt.Sprintf("%d\n", i) {
				t.Errorf("program %d: got %q, %v", i, out, err)
			}
		})
	}
	all.Wait()
}

// TestDeadClient answers nothing that the server asks.
func TestDeadClient(t *testing.T) {
	r := newRig(t, sshd.Limits{KeepAlive: 20 * time.Millisecond})
	raw, err := net.Dial("tcp", r.server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, _, _, err := ssh.NewClientConn(raw, "", &ssh.ClientConfig{User: r.token, HostKeyCallback: ssh.FixedHostKey(r.key.PublicKey())})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // nobody serves what comes of requests, and the server gives up
}
