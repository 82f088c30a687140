package acceptance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/sdk.md")

// node is the program that runs the SDKs.
const node = "node@24.21.0"

// published are the versions of the SDK. The old one still has the package's
// first name, runs code through commands and pages through lists.
var published = []struct{ pkg, version string }{
	{"@daytona/sdk", "0.216.0"},
	{"@daytonaio/sdk", "0.143.0"},
}

// line is one line that the program prints.
type line struct {
	Method  string
	Result  string // ok, missing, absent, failed
	Ms      float64
	Error   string
	Measure string
	Times   []float64
	Warm    int // how many of the times are of warm starts
}

// TestSDK fails on a method that fails. What the server says it does not have
// is listed as missing in docs/sdk.md, which must be as the run has found it.
func TestSDK(t *testing.T) {
	dirs := make([]string, len(published))
	for i, p := range published {
		dirs[i] = install(t, p.pkg+"@"+p.version)
	}
	s := start(t)
	s.buildDesktop()
	image := serveImage(t)
	table := newTable()
	for i, p := range published {
		for _, l := range s.drive(dirs[i], p.pkg, image) {
			switch {
			case l.Measure != "" && len(l.Times) > 0:
				slices.Sort(l.Times)
				t.Logf("%s %s: %s, median %v ms of %v, %d of them warm", p.pkg, p.version, l.Measure, l.Times[len(l.Times)/2], l.Times, l.Warm)
				continue
			case l.Result == "failed":
				t.Errorf("%s %s: %s: %s", p.pkg, p.version, l.Method, l.Error)
			case l.Result == "missing":
				t.Logf("%s %s: %s is missing: %s", p.pkg, p.version, l.Method, l.Error)
			}
			table.add(i, l)
		}
	}
	if !t.Failed() {
		compare(t, filepath.Join("..", "..", "docs", "sdk.md"), table.page())
	}
}

func compare(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs from the run (-file +run); run this test with -update:\n%s", path, diff)
	}
}

// drive runs the program against the server.
func (s *server) drive(dir, pkg, image string) []line {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 5*time.Minute)
	defer cancel()
	program, err := filepath.Abs("program.cjs")
	if err != nil {
		s.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "node_modules", "node", "bin", "node"), program, dir, pkg)
	cmd.Dir = s.TempDir() // some versions read .env files
	cmd.Env = []string{
		"HOME=" + cmd.Dir, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + cmd.Dir,
		"DAYTONA_API_URL=http://" + s.addr + "/api", "DAYTONA_API_KEY=" + apiKey, "IMAGE=" + image, "WARM=1",
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		s.Errorf("%s: %v\n%s", pkg, err, errs.String())
	}
	var lines []line
	for scanner := bufio.NewScanner(bytes.NewReader(out)); scanner.Scan(); {
		var l line
		if json.Unmarshal(scanner.Bytes(), &l) == nil { // versions may print warnings of their own
			lines = append(lines, l)
		}
	}
	return lines
}

// install returns the directory with a published package.
func install(t *testing.T, pkg string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = "/var/cache"
	}
	dir := filepath.Join(cache, "atoll-acceptance", strings.NewReplacer("/", "_", "@", "_").Replace(node+"+"+pkg))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	done := filepath.Join(dir, "installed")
	if _, err := os.Stat(done); err == nil {
		return dir
	}
	if err := os.WriteFile(filepath.Join(dir, "package.json"), []byte(`{"private":true}`), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "npm", "install", "--no-audit", "--no-fund", node, pkg)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm install: %v\n%s", err, out)
	}
	if err := os.WriteFile(done, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// table is what was found: rows in the order of the run.
type table struct {
	rows    []string
	results map[string][]string // method → result per version
}

func newTable() *table { return &table{results: map[string][]string{}} }

func (b *table) add(version int, l line) {
	if b.results[l.Method] == nil {
		b.rows = append(b.rows, l.Method)
		b.results[l.Method] = make([]string, len(published))
	}
	b.results[l.Method][version] = l.Result
}

func (b *table) page() string {
	var out strings.Builder
	out.WriteString("# The TypeScript SDK\n\n" +
		"This page is generated: `go generate ./gateway/acceptance` drives a server with the published, unmodified packages " +
		"and writes down what it finds. A method is *ok* when it did its work, *missing* when the server answered 501 " +
		"and the SDK's error says so, and *–* when that version of the SDK does not have it. A method that fails fails the test.\n\n" +
		"Set `DAYTONA_API_URL` to the server's URL with `/api`, and `DAYTONA_API_KEY` to a key.\n\n")
	out.WriteString("| method |")
	for _, p := range published {
		fmt.Fprintf(&out, " `%s` %s |", p.pkg, p.version)
	}
	out.WriteString("\n| --- |" + strings.Repeat(" --- |", len(published)) + "\n")
	for _, m := range b.rows {
		fmt.Fprintf(&out, "| %s |", m)
		for _, r := range b.results[m] {
			out.WriteString(" " + cell(r) + " |")
		}
		out.WriteString("\n")
	}
	out.WriteString("\n")
	for i, p := range published {
		count := map[string]int{}
		for _, r := range b.results {
			count[r[i]]++
		}
		fmt.Fprintf(&out, "%s %s: %d ok, %d missing.\n\n", p.pkg, p.version, count["ok"], count["missing"])
	}
	return strings.TrimSuffix(out.String(), "\n")
}

func cell(result string) string {
	if result == "absent" || result == "" {
		return "–"
	}
	return result
}
