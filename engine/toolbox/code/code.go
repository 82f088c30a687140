// Package code runs programs given as text, each in a process of its own.
package code

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// maxCharts bounds the charts of one program, in bytes.
const maxCharts = 32 << 20

//go:embed run.py
var runPython string

//go:embed charts.py
var chartsPython string

//go:embed run-ts.js
var runTypeScript string

// Runner runs programs.
type Runner struct {
	runner *process.Runner
}

// New returns a Runner.
func New(r *process.Runner) *Runner { return &Runner{runner: r} }

// Run runs a program to its end, as process.Runner does with a command, and
// returns the charts that it showed; never nil.
func (r *Runner) Run(ctx context.Context, q wire.CodeRunRequest, in process.Input) (wire.ExecuteResponse, []wire.Chart, error) {
	argv, charts, err := r.command(q)
	if err != nil {
		return wire.ExecuteResponse{}, nil, err
	}
	in.Stdin = q.Code
	res, err := r.runner.Run(ctx, process.Command{Argv: append(argv, q.Argv...), Env: q.Envs}, in)
	return res, r.collect(charts), err
}

// command returns what reads a program of q's language from stdin, and the file
// that it leaves charts in, if any.
func (r *Runner) command(q wire.CodeRunRequest) (argv []string, charts string, err error) {
	switch q.Language {
	case "python":
		env := r.runner.Environ(r.runner.User(), q.Envs)
		if _, err := process.LookPath("python3", "/", env); err != nil {
			return []string{"python", "-u", "-"}, "", nil
		}
		charts = filepath.Join(os.TempDir(), ".charts-"+strings.ToLower(rand.Text()))
		return []string{"python3", "-u", "-c", runPython + "boot(" + quote(chartsPython) + ")", charts}, charts, nil
	case "javascript":
		return []string{"node", "-"}, "", nil
	case "typescript":
		return []string{"node", "-e", runTypeScript, "--"}, "", nil
	case "":
		return nil, "", wire.BadRequest("language: it is missing; use python, javascript or typescript")
	}
	return nil, "", wire.BadRequest("language: %q is not known; use python, javascript or typescript", q.Language)
}

// quote makes a Python literal of ASCII text.
func quote(s string) string { return strconv.QuoteToASCII(s) }

// collect reads and removes the charts that a program left.
func (r *Runner) collect(path string) []wire.Chart {
	charts := []wire.Chart{}
	if path == "" {
		return charts
	}
	defer os.Remove(path)
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return charts
	}
	defer f.Close()
	if !r.theirs(f) {
		return charts
	}
	b, err := io.ReadAll(io.LimitReader(f, maxCharts))
	if err != nil {
		return charts
	}
	for line := range bytes.Lines(b) {
		var c wire.Chart
		if json.Unmarshal(line, &c) == nil { // the last one may be cut
			charts = append(charts, c)
		}
	}
	return charts
}

// theirs tells whether the user wrote the file: a program must not have us read
// what it cannot read itself.
func (r *Runner) theirs(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink == 1 && (os.Geteuid() != 0 || st.Uid == r.runner.User().UID)
}
