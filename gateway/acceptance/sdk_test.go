package acceptance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine/enginetest/published"
)

// sdks are the versions of the TypeScript SDK. The old one still has the
// package's first name, runs code through commands and pages through lists.
var sdks = []struct{ pkg, version string }{
	{"@daytona/sdk", "0.216.0"},
	{"@daytonaio/sdk", "0.143.0"},
}

// line is one line that the program prints.
type line struct {
	Method string
	Result string // ok, missing, absent, failed
	Ms     float64
	Error  string
}

// driveSDKs runs program.cjs with every version and returns its table, which
// is docs/sdk.md.
func (s *server) driveSDKs(image string) *table {
	s.Helper()
	table := newTable()
	for i, p := range sdks {
		dir := published.NPM(s.T, p.pkg+"@"+p.version)
		for _, l := range s.drive(p.pkg, published.Node(s.T), []string{"program.cjs", dir, p.pkg}, image) {
			s.judge(p.pkg+" "+p.version, l)
			table.add(i, l)
		}
	}
	return table
}

// judge fails the test for a line that says so.
func (s *server) judge(client string, l line) {
	s.Helper()
	switch l.Result {
	case "failed":
		s.Errorf("%s: %s: %s", client, l.Method, l.Error)
	case "missing":
		s.Logf("%s: %s is missing: %s", client, l.Method, l.Error)
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

// drive runs a program of this folder against the server and returns what it
// prints.
func (s *server) drive(client, interpreter string, args []string, image string) []line {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 10*time.Minute)
	defer cancel()
	program, err := filepath.Abs(args[0])
	if err != nil {
		s.Fatal(err)
	}
	cmd := s.command(ctx, interpreter, append([]string{program}, args[1:]...)...)
	cmd.Env = append(cmd.Env, "IMAGE="+image)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		s.Errorf("%s: %v\n%s", client, err, errs.String())
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

// command prepares a client's program: an empty home, and the two variables
// that choose the server.
func (s *server) command(ctx context.Context, interpreter string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, interpreter, args...)
	cmd.Dir = s.TempDir() // some versions read .env files
	cmd.Env = []string{
		"HOME=" + cmd.Dir, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + cmd.Dir, "PYTHONDONTWRITEBYTECODE=1",
		"DAYTONA_API_URL=http://" + s.addr + "/api", "DAYTONA_API_KEY=" + apiKey,
	}
	return cmd
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
		b.results[l.Method] = make([]string, len(sdks))
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
	for _, p := range sdks {
		fmt.Fprintf(&out, " `%s` %s |", p.pkg, p.version)
	}
	out.WriteString("\n| --- |" + strings.Repeat(" --- |", len(sdks)) + "\n")
	for _, m := range b.rows {
		fmt.Fprintf(&out, "| %s |", m)
		for _, r := range b.results[m] {
			out.WriteString(" " + cell(r) + " |")
		}
		out.WriteString("\n")
	}
	out.WriteString("\n")
	for i, p := range sdks {
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
