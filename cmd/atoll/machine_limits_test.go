package main

import (
	"strings"
	"testing"
	"time"
)

func TestMachineLimits(t *testing.T) {
	m := sharedMachine(t)
	a, b := m.create(map[string]any{"name": "a"}), m.create(map[string]any{"name": "b"})

	t.Run("disk", func(t *testing.T) {
		code, out := m.sh(a.ID, "dd if=/dev/zero of=/home/daytona/big bs=1M count=4000 2>&1")
		if code == 0 || !strings.Contains(out, "No space left") {
			t.Errorf("4 GB fit into a disk of 3: exit %d %q", code, out)
		}
		if code, out := m.sh(b.ID, "dd if=/dev/zero of=/home/daytona/f bs=1M count=50 2>&1"); code != 0 {
			t.Errorf("the neighbour cannot write: %q", out)
		}
		if code, _ := m.sh(a.ID, "rm /home/daytona/big && echo ok > /home/daytona/f"); code != 0 {
			t.Error("the disk did not recover")
		}
	})
	t.Run("memory", func(t *testing.T) {
		code, _ := m.sh(a.ID, "python3 -c 'x=bytearray(3<<30)'")
		if code == 0 {
			t.Error("3 GiB fit into 1 GiB of memory")
		}
		if _, out := m.sh(a.ID, "echo alive"); strings.TrimSpace(out) != "alive" {
			t.Errorf("the sandbox did not survive running out of memory: %q", out)
		}
	})
	t.Run("fork bomb", func(t *testing.T) {
		status, body, err := m.call("POST", "/toolbox/"+a.ID+"/process/execute", map[string]any{"command": ":(){ :|:& };:; sleep 3", "timeout": 10})
		t.Logf("fork bomb: %d %.200s %v", status, body, err)
		if _, out := m.sh(b.ID, "echo alive"); strings.TrimSpace(out) != "alive" {
			t.Errorf("the neighbour suffers: %q", out)
		}
		m.must("POST", "/api/sandbox/a/stop?force=true", nil, nil)
		m.must("POST", "/api/sandbox/a/start", nil, nil)
		if _, out := m.sh(a.ID, "echo alive"); strings.TrimSpace(out) != "alive" {
			t.Errorf("after a restart: %q", out)
		}
	})
}

func TestMachineIsolation(t *testing.T) {
	m := sharedMachine(t)
	a, b := m.create(map[string]any{"name": "a"}), m.create(map[string]any{"name": "b"})
	_, addrs := m.sh(b.ID, "hostname -I")
	if len(strings.Fields(addrs)) == 0 {
		t.Fatal("b has no address")
	}
	if code, out := m.sh(b.ID, "nohup python3 -m http.server 8000 --bind :: >/dev/null 2>&1 & until curl -so /dev/null localhost:8000; do sleep 0.05; done"); code != 0 {
		t.Fatalf("b serves nothing: %s", out)
	}
	port := m.addr[strings.LastIndex(m.addr, ":")+1:]
	for _, target := range append(strings.Fields(addrs), "169.254.169.254", "192.0.2.2", "127.0.0.1") {
		host := target
		if strings.Contains(target, ":") {
			host = "[" + target + "]"
		}
		for _, p := range []string{"8000", port, "22", "80"} {
			if code, out := m.sh(a.ID, "curl -s -m 1 -o /dev/null http://"+host+":"+p+"/ && echo reached"); code == 0 {
				t.Errorf("a reaches %s:%s: %s", host, p, out)
			}
		}
	}
	// The gateway is the host: nothing but DNS answers there.
	if code, out := m.sh(a.ID, "gw=$(ip route | awk '/default/{print $3}'); curl -s -m 1 http://$gw:"+port+"/healthz"); code == 0 {
		t.Errorf("a reaches the server by its gateway: %s", out)
	}
	for _, line := range []string{
		"mount -t tmpfs x /mnt", "sudo mount -t tmpfs x /mnt", "sudo unshare -m true", "sudo mknod /tmp/sda b 8 0",
		"sudo sh -c 'echo 1 > /proc/sys/kernel/panic'", "sudo sh -c 'echo c > /proc/sysrq-trigger'", "sudo dmesg",
		"sudo cat /proc/kcore", "sudo sh -c 'echo 1 > /sys/kernel/mm/transparent_hugepage/enabled'",
		"sudo nsenter -t 1 -n true && sudo sysctl -w net.ipv4.ip_forward=1", "sudo chroot /proc/1/root/../.. test -e " + m.home,
		"sudo ls /run/containerd", "sudo insmod x", "sudo swapon /dev/vda", "sudo date -s 2001-01-01",
	} {
		if code, out := m.sh(a.ID, line); code == 0 {
			t.Errorf("%q succeeded: %s", line, out)
		}
	}
}

func TestMachineBadInput(t *testing.T) {
	m := sharedMachine(t)
	m.create(map[string]any{"name": "good"})
	before := m.footprint().counts()
	big := strings.Repeat("x", 1<<20+1)
	for _, c := range []struct {
		name, method, path string
		body               any
		status             int
		says               string
	}{
		{"duplicate name", "POST", "/api/sandbox", map[string]any{"name": "good"}, 409, "good"},
		{"wrong type", "POST", "/api/sandbox", map[string]any{"name": 7}, 400, "name"},
		{"bad name", "POST", "/api/sandbox", map[string]any{"name": "a b/../c"}, 400, "name"},
		{"unknown snapshot", "POST", "/api/sandbox", map[string]any{"snapshot": "nope"}, 404, "nope"},
		{"resources with a snapshot", "POST", "/api/sandbox", map[string]any{"snapshot": "atoll-small", "memory": 2}, 400, "snapshot"},
		{"more memory than the host", "POST", "/api/sandbox", map[string]any{"memory": 1 << 20}, 400, "memory"},
		{"bad env key", "POST", "/api/sandbox", map[string]any{"env": map[string]string{"A=B": "c"}}, 400, "env"},
		{"unknown id", "GET", "/api/sandbox/nope", nil, 404, "nope"},
		{"unknown id for exec", "POST", "/toolbox/nope/process/execute", map[string]any{"command": "true"}, 404, "nope"},
		{"empty command", "POST", "/toolbox/good/process/execute", map[string]any{"command": ""}, 400, "command"},
		{"NUL in a command", "POST", "/toolbox/good/process/execute", map[string]any{"command": "a\x00b"}, 400, "NUL"},
		{"a command over the limit", "POST", "/toolbox/good/process/execute", map[string]any{"command": big}, 400, "command"},
		{"internal call", "GET", "/toolbox/good/internal/status", nil, 403, ""},
		{"internal call, encoded", "GET", "/toolbox/good/%69nternal/status", nil, 403, ""},
		{"internal call by dots", "GET", "/toolbox/good/files/..%2finternal/status", nil, 400, ""},
	} {
		status, body, err := m.call(c.method, c.path, c.body)
		if err != nil || status != c.status || !strings.Contains(string(body), c.says) {
			t.Errorf("%s: %d %v %.300s; want %d naming %q", c.name, status, err, body, c.status, c.says)
		}
	}
	eventually(t, "host after bad input", time.Minute, before, func() map[string]int { return m.footprint().counts() })
}

func TestMachineResize(t *testing.T) {
	m := sharedMachine(t)
	sb := m.create(map[string]any{"name": "grow"})
	if code, _ := m.sh(sb.ID, "python3 -c 'x=bytearray(1500<<20)'"); code == 0 {
		t.Error("1.5 GB fit into 1 GiB of memory")
	}
	m.must("POST", "/api/sandbox/grow/resize", map[string]any{"cpu": 2, "memory": 2}, nil)
	if code, out := m.sh(sb.ID, "python3 -c 'x=bytearray(1500<<20)'"); code != 0 {
		t.Errorf("1.5 GB do not fit into 2 GiB after a live resize: %s", out)
	}
	for name, body := range map[string]map[string]any{
		"less memory while it runs": {"memory": 1}, "another disk while it runs": {"disk": 5}, "no change": {"cpu": 2, "memory": 2},
	} {
		if status, b, err := m.call("POST", "/api/sandbox/grow/resize", body); err != nil || status != 400 {
			t.Errorf("%s: %d %s %v; want 400", name, status, b, err)
		}
	}
	m.sh(sb.ID, "echo kept > /home/daytona/f")
	m.must("POST", "/api/sandbox/grow/stop", nil, nil)
	m.must("POST", "/api/sandbox/grow/resize", map[string]any{"cpu": 1, "memory": 1, "disk": 5}, nil)
	m.must("POST", "/api/sandbox/grow/start", nil, nil)
	code, out := m.sh(sb.ID, "cat /home/daytona/f; df --output=size -B1G / | tail -1; bash -c 'python3 -c \"x=bytearray(1500<<20)\"; exit $?' >/dev/null 2>&1 || echo small")
	if want := "kept 5 small"; code != 0 || strings.Join(strings.Fields(out), " ") != want {
		t.Errorf("after a cold resize: exit %d %q; want %q", code, out, want)
	}
}

func TestMachineEphemeral(t *testing.T) {
	m := sharedMachine(t)
	before := m.footprint().counts()
	sb := m.create(map[string]any{"name": "brief", "autoDeleteInterval": 0, "networkBlockAll": true})
	if code, _ := m.sh(sb.ID, "getent hosts example.org || curl -s -m 2 http://198.51.100.1/"); code == 0 {
		t.Error("a sandbox without network resolves or reaches something")
	}
	m.must("POST", "/api/sandbox/brief/stop", nil, nil)
	if status, _, _ := m.call("GET", "/api/sandbox/brief", nil); status != 404 {
		t.Errorf("an ephemeral sandbox is still there after its stop: %d", status)
	}
	eventually(t, "host after the stop", time.Minute, before, func() map[string]int { return m.footprint().counts() })
}

// TestMachinePoolFull promises more disk than there is and lets two sandboxes
// take it. Writers are stopped; a neighbour's disk stays whole.
func TestMachinePoolFull(t *testing.T) {
	m := newMachine(t, "--pool-size", "0", "--disk-gib", "4")
	for _, name := range []string{"quiet", "greedy1", "greedy2"} {
		m.create(map[string]any{"name": name})
	}
	for _, name := range []string{"greedy1", "greedy2"} {
		m.sh(name, "nohup dd if=/dev/urandom of=/home/daytona/big bs=1M count=2900 >/dev/null 2>&1 &")
	}
	eventually(t, "a greedy sandbox in error", 5*time.Minute, true, func() bool {
		if code, out := m.sh("quiet", "dd if=/dev/urandom of=/home/daytona/f bs=64k count=4 conv=fsync 2>&1"); code != 0 {
			t.Fatalf("the neighbour cannot write: %s", out)
		}
		for _, sb := range m.sandboxes() {
			if sb.State == "error" && strings.Contains(sb.ErrorReason, "pool is full") {
				return true
			}
		}
		return false
	})
	if code, out := m.sh("quiet", "echo ok > /home/daytona/g && cat /home/daytona/g"); code != 0 || strings.TrimSpace(out) != "ok" {
		t.Errorf("the neighbour: exit %d %q", code, out)
	}
	status, body, err := m.call("POST", "/api/sandbox", map[string]any{"name": "late"})
	if err != nil || status != 400 || !strings.Contains(string(body), "disk") {
		t.Errorf("create on a full pool: %d %s %v; want 400 naming the disk", status, body, err)
	}
	m.must("DELETE", "/api/sandbox/greedy1", nil, nil)
	m.must("DELETE", "/api/sandbox/greedy2", nil, nil)
	eventually(t, "a create once there is room again", time.Minute, 200, func() int {
		status, _, _ := m.call("POST", "/api/sandbox", map[string]any{"name": "after"})
		return status
	})
}
