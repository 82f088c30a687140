package acceptance

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine/enginetest"
	"github.com/atoll-sh/atoll/engine/enginetest/published"
)

// suite is the protocol's own conformance suite. Older Nodes cannot run it.
const suite = "@modelcontextprotocol/conformance@0.2.0-alpha.12"

// revisions are those whose requirements have to be met.
var revisions = []string{"2025-11-25", "2026-07-28"}

// runSuite runs the suite against a server and logs its summary. Every
// scenario that fails, or passes against its baseline, fails the test.
func runSuite(t *testing.T, server string, args ...string) {
	t.Helper()
	all := conformance(t, server, args...)
	_, summary, ok := strings.Cut(all, "=== SUMMARY ===")
	if !ok { // one scenario alone
		_, summary, ok = strings.Cut(all, "Test Results:")
	}
	if !ok {
		t.Fatalf("conformance %v:\n%s", args, all)
	}
	t.Logf("%s", summary)
}

// conformance runs the suite and returns what it says.
func conformance(t *testing.T, server string, args ...string) string {
	t.Helper()
	bin := filepath.Join(published.NPM(t, suite), "node_modules")
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, ".bin", "conformance"),
		append([]string{"server", "--url", server, "--output-dir", t.TempDir()}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(published.Node(t))+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("conformance %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// build compiles a command of this module.
func build(t *testing.T, name string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), name)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "github.com/atoll-sh/atoll/cmd/"+name)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

// start runs a server until the test ends.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
			t.Errorf("wait for %s: %v", cmd.Path, err)
		}
	})
}

// The protocol stack, with the tools that the suite calls.
func TestConformanceRequirements(t *testing.T) {
	server := serveFixtures(t)
	for _, revision := range revisions {
		t.Run(revision, func(t *testing.T) {
			runSuite(t, server, "--requirements", revision)
		})
	}
}

// The extension for long work.
func TestConformanceOfTasks(t *testing.T) {
	server := serveFixtures(t)
	for _, scenario := range []string{
		"lifecycle", "capability-negotiation", "wire-fields", "request-state-removal", "mrtr-input", "request-headers",
		"dispatch-and-envelope", "status-notifications", "required-task-error", "mrtr-composition",
	} {
		t.Run(scenario, func(t *testing.T) {
			out := conformance(t, server, "--scenario", "tasks-"+scenario)
			if !strings.Contains(out, ", 0 failed, 0 warnings") {
				t.Errorf("%s", out)
			}
		})
	}
}

// serveFixtures starts the protocol stack with the suite's fixtures.
func serveFixtures(t *testing.T) string {
	t.Helper()
	cmd := exec.Command(build(t, "mcp-conformance"), "--listen", "127.0.0.1:0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	start(t, cmd)
	server, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(server)
}

// The product as it is served, in every scenario but those in its baseline.
func TestConformanceOfProduct(t *testing.T) {
	server := serveProduct(t)
	for _, revision := range revisions {
		t.Run(revision, func(t *testing.T) {
			runSuite(t, server+"/mcp", "--suite", "all", "--spec-version", revision,
				"--expected-failures", filepath.Join("testdata", "conformance-"+revision+".yml"))
		})
	}
}

// The product's skills, as the extension serves them.
func TestConformanceOfSkills(t *testing.T) {
	server := serveProduct(t)
	for _, part := range []string{"directory", "enumeration", "manifest"} {
		t.Run(part, func(t *testing.T) {
			runSuite(t, server+"/mcp", "--scenario", "sep-2640-skills-"+part)
		})
	}
}

// productKey is the administrator's key of the server that startProduct starts.
const productKey = "atl_conformance_0123456789abcdef0123456789"

// startProduct starts the real server with a home of its own and returns the
// program.
func startProduct(t *testing.T, address string, args ...string) (atoll string) {
	t.Helper()
	home, err := os.MkdirTemp("", "ah") // short, because sockets lie below it
	if err != nil {
		t.Fatal(err)
	}
	atoll = build(t, "atoll")
	t.Cleanup(func() {
		if out, err := exec.Command(atoll, "down", "--home", home).CombinedOutput(); err != nil {
			t.Errorf("down: %v\n%s", err, out)
			return
		}
		os.RemoveAll(home)
	})
	log, err := os.Create(filepath.Join(home, "test-server.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(atoll, append([]string{"serve", "--home", home, "--listen", address, "--ssh-listen", "off", "--pool-size", "0", "--disk-gib", "4"}, args...)...)
	cmd.Env = append(os.Environ(), "ATOLL_API_KEY="+productKey)
	cmd.Stdout, cmd.Stderr = log, log
	start(t, cmd)
	awaitReady(t, "http://"+address+"/readyz", log.Name())
	return atoll
}

// serveProduct starts the real server and returns a URL that adds the key,
// which the suite cannot send.
func serveProduct(t *testing.T) string {
	t.Helper()
	address := enginetest.FreeAddress(t)
	startProduct(t, address)
	target := &url.URL{Scheme: "http", Host: address}
	proxy := httptest.NewServer(&httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host
		r.Out.Header.Set("Authorization", "Bearer "+productKey)
		// Go's server closes a request's body when its answer begins. The proxy
		// may not have read the end of it yet, and then breaks the answer off.
		if body, _ := io.ReadAll(r.In.Body); len(body) > 0 {
			r.Out.Body = io.NopCloser(bytes.NewReader(body))
		}
	}})
	t.Cleanup(func() {
		proxy.CloseClientConnections()
		proxy.Close()
	})
	return proxy.URL
}

func awaitReady(t *testing.T, ready, log string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		res, err := http.Get(ready)
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			out, _ := os.ReadFile(log)
			t.Fatalf("the server is not ready: %v\n%s", err, out)
		}
	}
}
