package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// bootstrap installs the recipe's packages into a new root below dir and writes
// it to out as a tar archive. The files held are inherited by the child, so
// that a lock on them lasts as long as it works.
func (r recipe) bootstrap(ctx context.Context, dir string, out io.Writer, held []*os.File, progress func(string)) error {
	program, err := exec.LookPath("mmdebstrap")
	if err != nil {
		return engine.Errorf(engine.KindUnavailable, "mmdebstrap is missing, which builds image %s", r.ref).
			WithHint("apt-get install mmdebstrap").Wrap(err)
	}
	cmd := exec.CommandContext(ctx, program, r.arguments()...)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "LC_ALL=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.Stdout = out
	cmd.ExtraFiles = held
	// Its mounts vanish with it, whatever happens; and ending it ends apt too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return fmt.Errorf("start mmdebstrap: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start mmdebstrap: %w", err)
	}
	said := r.follow(stderr, progress)
	err = cmd.Wait()
	if ctx.Err() != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // whoever did not listen; mostly nobody
		return ctx.Err()
	}
	if err != nil {
		return r.buildError(said(), err)
	}
	return nil
}

// arguments are those of mmdebstrap.
func (r recipe) arguments() []string {
	args := []string{
		"--mode=root", "--variant=" + r.Variant, "--format=tar",
		"--include=" + strings.Join(r.Packages, ","),
		`--aptopt=APT::Install-Recommends "false"`,
		`--aptopt=Acquire::Languages "none"`,
		`--aptopt=Acquire::Retries "3"`,
		"--dpkgopt=force-unsafe-io", // the tar is what lasts, not this root
	}
	for _, o := range hostProxies() {
		args = append(args, "--aptopt="+o)
	}
	for _, dir := range []string{"man", "doc", "info", "locale", "lintian", "bug"} {
		args = append(args, "--dpkgopt=path-exclude=/usr/share/"+dir+"/*")
	}
	args = append(args,
		"--dpkgopt=path-include=/usr/share/doc/*/copyright",
		"--customize-hook="+r.Script,
		r.Distribution.Suite, "-")
	return append(args, r.Distribution.Sources...)
}

// hostProxies returns apt's proxy settings of the host. Without apt there are
// none.
func hostProxies() []string {
	out, err := exec.Command("apt-config", "dump", "--format", "%f %v%n", "Acquire::http::Proxy", "Acquire::https::Proxy").Output()
	if err != nil {
		return nil
	}
	var options []string
	for line := range strings.Lines(string(out)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && v != "" && !strings.ContainsAny(v, `";`) {
			options = append(options, fmt.Sprintf("%s %q", k, v))
		}
	}
	return options
}

// buildStages are lines of mmdebstrap with what they mean and how much of the
// time has gone by then, as measured on two cores.
var buildStages = []struct { // constant
	line, text string
	percent    int
}{
	{"running apt-get update", "reading package lists", 1},
	{"downloading packages", "downloading packages", 4},
	{"extracting archives", "unpacking essential packages", 9},
	{"installing essential", "installing essential packages", 12},
	{"installing remaining", "installing packages", 20},
	{"running --customize-hook", "setting up users", 80},
	{"cleaning package lists", "cleaning up", 82},
	{"creating tarball", "compressing", 84},
}

// follow turns mmdebstrap's words into progress. The returned function waits
// for their end and returns the last of them.
func (r recipe) follow(from io.Reader, progress func(string)) (last func() []string) {
	var lines []string
	var wg sync.WaitGroup
	wg.Go(func() {
		in := bufio.NewScanner(from)
		for in.Scan() {
			if lines = append(lines, in.Text()); len(lines) > 50 {
				lines = lines[1:]
			}
			for _, s := range buildStages {
				if strings.HasPrefix(in.Text(), "I: "+s.line) {
					progress(fmt.Sprintf("building %s: %s (%d%%)", r.ref, s.text, s.percent))
				}
			}
		}
		_, _ = io.Copy(io.Discard, from) // a line too long ends the scan, not the build
	})
	return func() []string { wg.Wait(); return lines }
}

// buildError picks the lines that tell what went wrong.
func (r recipe) buildError(lines []string, err error) error {
	text := strings.Join(lines, "\n")
	cause := fmt.Errorf("build: %w\n%s", err, text)
	switch {
	case strings.Contains(text, "No space left on device"):
		return engine.Errorf(engine.KindExhausted, "the disk is full: image %s needs 3 GB while it is built", r.ref).Wrap(cause)
	case strings.Contains(text, "Temporary failure resolving"), strings.Contains(text, "Could not connect"),
		strings.Contains(text, "Failed to fetch"), strings.Contains(text, "Could not resolve"):
		return engine.Errorf(engine.KindUnavailable, "the distribution's mirror does not answer, so image %s cannot be built", r.ref).
			WithHint("check the sources in /etc/apt and that \"apt-get update\" works").Wrap(cause)
	}
	why := "see the server's log"
	for _, l := range lines {
		if strings.HasPrefix(l, "E: ") {
			why = strings.TrimPrefix(l, "E: ")
			break
		}
	}
	return engine.Errorf(engine.KindInternal, "image %s cannot be built: %s", r.ref, why).Wrap(cause)
}

// errNotCached tells that no build of a recipe is in the cache.
var errNotCached = errors.New("not in the cache")
