package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/atoll-sh/atoll/ebpf/enforce"
	"github.com/atoll-sh/atoll/engine"
)

// confined has a list of each kind. Programs may be started from /bin, and from
// a directory that can be written, too.
const confined = `name: confined
exec: {allow: ['/bin/*', '/home/bin/*'], deny: [/bin/refused]}
files:
  read: {deny: [/srv/secret]}
  write: {allow: ['/home/**', '/tmp/**'], deny: ['/**/.git/**']}
egress: {rules: [{name: net, allow: [203.0.113.7], ports: [80/tcp]}]}
`

// TestMachineConfine tries rules about programs and files from inside a sandbox
// of a whole server, over a change of the rules and the server's death.
func TestMachineConfine(t *testing.T) {
	if err := enforce.Supported(); err != nil {
		t.Skipf("%v; ebpf/kernel/vmtest boots kernels that can", err)
	}
	m := startServer(t, nil, noPool...)
	t.Cleanup(m.down)
	m.doctorSays("program and file rules", "enforced by BPF programs at LSM hooks")
	m.doctorSays("process records", "")
	m.doctorSays("network lists", "enforced by programs in the kernel")
	m.must("PUT", "/api/policies/confined", map[string]any{"document": confined}, nil)
	c := &confinement{machine: m}
	c.id = m.create(map[string]any{"image": confinedImage(t), "policy": "confined"}).ID

	c.may("true")
	c.mayNot("/opt/tool", "exec exec /opt/tool exec/default")
	c.mayNot("/bin/refused", "exec exec /bin/refused exec/deny")
	c.mayNot("/bin/script", "exec exec /opt/tool exec/default") // it names that one
	c.mayNot("cp /opt/tool /tmp/copy && /tmp/copy", "exec exec /tmp/copy exec/default")
	c.mayNot("ln -s /opt/tool /home/bin/link && /home/bin/link", "exec exec /opt/tool exec/default")
	c.mayNot("/lib64/ld-linux-x86-64.so.2 /bin/busybox", "exec exec /lib64/ld-linux-x86-64.so.2 exec/default")
	c.mayNot("hidden /bin/busybox true", "exec exec memfd:hidden exec/default")
	c.mayNot("sh -c 'sh -c /opt/tool'", "exec exec /opt/tool exec/default")
	c.mayNot("cp /opt/tool /home/tool && mv /home/tool /home/bin/tool", "file rename /home/tool exec/default")
	c.mayNot("ln /home/tool /home/bin/tool", "file link /home/tool exec/default")
	c.mayNot("ln /bin/refused /tmp/refused", "file link /bin/refused files/write/default")
	c.may("cp /opt/tool /home/bin/tool && /home/bin/tool") // a copy is a new file

	c.mayNot("cat /srv/secret", "file open /srv/secret files/read/deny")
	c.mayNot("ln -s /srv/secret /tmp/secret && cat /tmp/secret", "file open /srv/secret files/read/deny")
	c.mayNot("echo x >/etc/new", "file create /etc/new files/write/default")
	c.mayNot("echo x >>/srv/file", "file open /srv/file files/write/default")
	c.mayNot("rm /srv/file", "file unlink /srv/file files/write/default")
	c.mayNot("mkdir -p /home/p/.git && echo x >/home/p/.git/config", "file create /home/p/.git/config files/write/deny")
	c.may("cat /srv/file && echo x >/home/file && echo x >/dev/null")

	// What the kernel lets out, and what it tells of a process, do not depend on
	// the rules, but on the kernel.
	c.recorded("nc -w 2 203.0.113.9 80 </dev/null; nc -w 2 203.0.113.7 80 </dev/null; echo x >/tmp/told; true",
		record{Kind: "exec", Detail: "nc -w 2 203.0.113.9 80"},
		record{Kind: "deny", Remote: "203.0.113.9:80"},
		record{Kind: "connect", Remote: "203.0.113.7:80"},
		record{Kind: "file", Detail: "/tmp/told"})

	// A process that was there before follows a change, also without a server.
	c.may("(while sleep 1; do cat /srv/file >/dev/null 2>&1 && echo yes || echo no; done >/tmp/asked) >/dev/null 2>&1 &")
	c.eventually("yes")
	m.must("PUT", "/api/policies/confined", map[string]any{"document": strings.Replace(confined, "/srv/secret", "/srv/file", 1)}, nil)
	c.eventually("no")
	c.may("cat /srv/secret")
	m.kill()
	before := c.asked()
	eventually(t, "the process goes on", time.Minute, true, func() bool { return len(c.asked()) > len(before)+2 })
	if more := c.asked()[len(before):]; strings.Contains(strings.Join(more, " "), "yes") {
		t.Errorf("without a server: %v", more)
	}
	m.start()
	c.eventually("no")
	c.mayNot("/opt/tool", "exec exec /opt/tool exec/default")
	c.mayNot("cat /srv/file", "file open /srv/file files/read/deny")
	m.must("PUT", "/api/policies/confined", map[string]any{"document": strings.Replace(confined, "/home/bin/*", "/opt/*", 1)}, nil)
	c.may("/opt/tool && cat /srv/file")
	c.mayNot("/home/bin/tool", "exec exec /home/bin/tool exec/default")
	c.mayNot("cat /srv/secret", "file open /srv/secret files/read/deny")
}

// doctorSays compares a line of the server's own report.
func (m *machine) doctorSays(name, detail string) {
	m.t.Helper()
	var report struct {
		Checks []engine.Check
	}
	m.must("GET", "/api/doctor", nil, &report)
	for _, c := range report.Checks {
		if c.Name == name {
			if !c.OK || !strings.Contains(c.Detail, detail) {
				m.t.Errorf("doctor: %+v; want %q", c, detail)
			}
			return
		}
	}
	b, _ := json.Marshal(report)
	m.t.Errorf("doctor says nothing of %s: %s", name, b)
}

// confinement is a sandbox under the policy.
type confinement struct {
	*machine
	id string
}

func (c *confinement) may(line string) {
	c.t.Helper()
	if code, out := c.sh(c.id, line); code != 0 {
		c.t.Errorf("%s: exit %d, %q", line, code, out)
	}
}

// mayNot wants a record of the refusal, as kind, operation, path and rule.
func (c *confinement) mayNot(line, record string) {
	c.t.Helper()
	start := time.Now()
	code, out := c.sh(c.id, line)
	if code == 0 || !strings.Contains(strings.ToLower(out), "not permitted") {
		c.t.Errorf("%s: exit %d, %q", line, code, out)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		found, all := c.refusals(record, start)
		if found {
			return
		}
		if time.Now().After(deadline) {
			c.t.Errorf("%s: no record %q in %v", line, record, all)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// recorded wants records of a command that come of its call.
func (c *confinement) recorded(line string, want ...record) {
	c.t.Helper()
	_, out := c.sh(c.id, `echo "$ATOLL_CALL"; `+line)
	call, _, _ := strings.Cut(out, "\n")
	for _, w := range want {
		eventually(c.t, fmt.Sprintf("%+v", w), time.Minute, true, func() bool {
			return slices.ContainsFunc(c.records(c.id), func(r record) bool {
				return r.Call == call && r.Kind == w.Kind && strings.Contains(r.Detail, w.Detail) && strings.HasPrefix(r.Remote, w.Remote) && r.Process != ""
			})
		})
	}
}

// refusals tells whether there is such a record since then, and all there are.
func (c *confinement) refusals(want string, since time.Time) (found bool, all []string) {
	c.t.Helper()
	var page struct {
		Items []struct {
			Kind, Operation, Detail, Verdict, Rule string
			Time                                   time.Time
		}
	}
	c.must("GET", "/api/sandbox/"+c.id+"/activity?newest=true&limit=1000", nil, &page)
	for _, r := range page.Items {
		if r.Verdict != "deny" {
			continue
		}
		s := strings.Join([]string{r.Kind, r.Operation, r.Detail, r.Rule}, " ")
		all = append(all, s)
		found = found || s == want && !r.Time.Before(since)
	}
	return found, all
}

// asked are the lines that the process in the background wrote, also when there
// is no server to ask.
func (c *confinement) asked() []string {
	procs, _ := filepath.Glob("/sys/fs/cgroup/atoll-" + c.machine.id() + "/*/cgroup.procs")
	for _, file := range procs {
		b, _ := os.ReadFile(file)
		if pids := strings.Fields(string(b)); len(pids) > 0 {
			b, _ := os.ReadFile("/proc/" + pids[0] + "/root/tmp/asked")
			return strings.Fields(string(b))
		}
	}
	return nil
}

// eventually waits for the last answer.
func (c *confinement) eventually(want string) {
	c.t.Helper()
	eventually(c.t, "what the process may", time.Minute, want, func() string {
		if lines := c.asked(); len(lines) > 0 {
			return lines[len(lines)-1]
		}
		return ""
	})
}

// confinedImage is an image in a registry: busybox and what the rules are about.
func confinedImage(t *testing.T) string {
	t.Helper()
	reg := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(reg.Close)
	hidden := filepath.Join(os.Getenv(testPrograms), "hidden")
	if os.Getenv(testPrograms) == "" {
		hidden = filepath.Join(t.TempDir(), "hidden")
		c := exec.Command("go", "build", "-o", hidden, "./testdata/hidden")
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	read := func(path string) []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	program := read(hidden)
	files := []imageFile{
		{name: "bin/busybox", mode: 0o755, data: read("/bin/busybox")},
		{name: "bin/hidden", mode: 0o755, data: program},
		{name: "bin/refused", mode: 0o755, data: program},
		{name: "opt/tool", mode: 0o755, data: program},
		{name: "bin/script", mode: 0o755, data: []byte("#!/opt/tool\n")},
		{name: "lib64/ld-linux-x86-64.so.2", mode: 0o755, data: read("/lib64/ld-linux-x86-64.so.2")},
		{name: "srv/file", mode: 0o644, data: []byte("file\n")},
		{name: "srv/secret", mode: 0o644, data: []byte("secret\n")},
		{name: "home/bin/.keep", mode: 0o644},
		{name: "tmp/.keep", mode: 0o644},
		{name: "etc/passwd", mode: 0o644, data: []byte("root:x:0:0::/home:/bin/sh\n")},
	}
	for _, name := range []string{"sh", "cat", "cp", "echo", "ln", "mkdir", "mv", "nc", "rm", "sleep", "true"} {
		files = append(files, imageFile{name: "bin/" + name, mode: 0o777, link: "busybox"})
	}
	ref := strings.TrimPrefix(reg.URL, "http://") + "/tools/confined:1.0"
	push(t, ref, imageOf(t, files))
	return ref
}
