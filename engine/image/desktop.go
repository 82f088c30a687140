package image

import (
	"bufio"
	"context"
	_ "embed"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/continuity/fs"
	"github.com/opencontainers/go-digest"
)

//go:embed desktop.sh
var desktopScript string // constant

// desktopRecipe is the image with a screen: the default one, a light desktop
// with a browser, and what films it and describes it to assistive technology.
func desktopRecipe(d distribution, on Unpacked) recipe {
	r := defaultRecipe(d)
	r.ref, r.Base, r.base = DesktopRef, digest.Digest(on.Digest), on.Lowers
	r.Variant = ""
	r.Packages = []string{
		"xvfb", "x11vnc", "novnc", "websockify", "ffmpeg",
		"at-spi2-core", "dbus", "dbus-x11", "libatk-adaptor", "libgtk-3-bin",
		"xfce4-session", "xfwm4", "xfdesktop4", "xfce4-panel", "xfce4-settings", "xfce4-terminal", "thunar", "mousepad",
		"chromium", "xdg-utils", "x11-utils", "x11-xserver-utils", "xauth", "xclip",
		"adwaita-icon-theme", "librsvg2-common", "fonts-dejavu-core", "fonts-liberation", "fonts-noto-color-emoji", "fonts-droid-fallback",
	}
	r.Script = desktopScript
	r.Config.Env = append(slices.Clone(r.Config.Env), "DISPLAY=:0")
	r.Config.Labels = maps.Clone(r.Config.Labels)
	r.Config.Labels["org.opencontainers.image.title"] = "atoll desktop"
	return r
}

// make writes what the recipe makes to out, as a tar archive: a whole root, or
// what changes in the image below.
func (r recipe) make(ctx context.Context, dir string, out io.Writer, held []*os.File, progress func(string)) error {
	if r.Base == "" {
		return r.bootstrap(ctx, dir, out, held, progress)
	}
	if err := r.install(ctx, dir, held, progress); err != nil {
		return err
	}
	progress(fmt.Sprintf("building %s: compressing (84%%)", r.ref))
	w := archive.NewChangeWriter(out, filepath.Join(dir, "upper"))
	err := fs.DiffDirChanges(ctx, r.base[0], filepath.Join(dir, "upper"), fs.DiffSourceOverlayFS, w.HandleChange)
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return fmt.Errorf("pack the layer: %w", err)
	}
	return nil
}

// install installs the recipe's packages on top of the image below: what that
// changes lies in dir/upper then. The files held are inherited by the child, so
// that a lock on them lasts as long as it works.
func (r recipe) install(ctx context.Context, dir string, held []*os.File, progress func(string)) error {
	args := []string{"-eu", "-c", r.Script, "desktop.sh", dir, strings.Join(r.base, ":"), strconv.Itoa(3 + len(held))}
	for _, o := range append(hostProxies(), `Acquire::Languages "none"`, `Acquire::Retries "3"`) {
		args = append(args, "-o", strings.Replace(strings.ReplaceAll(o, `"`, ""), " ", "=", 1))
	}
	status, theirs, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start apt: %w", err)
	}
	defer status.Close()
	cmd := exec.CommandContext(ctx, "sh", append(append(args, "--"), r.Packages...)...)
	cmd.Env = append(os.Environ(), "TMPDIR=/tmp", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	said := &lastWords{}
	cmd.Stdout, cmd.Stderr = said, said
	cmd.ExtraFiles = append(slices.Clone(held), theirs)
	// Its mounts vanish with it, whatever happens; and ending it ends apt too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return fmt.Errorf("start apt: %w", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { r.followApt(status, progress) })
	err = cmd.Wait()
	if err != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // whoever did not listen; mostly nobody
	}
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return r.buildError(said.lines(), err)
	}
	return nil
}

// followApt turns apt's status lines, as dlstatus:7:12.5:words, into progress.
func (r recipe) followApt(from io.Reader, progress func(string)) {
	last := ""
	in := bufio.NewScanner(from)
	for in.Scan() {
		f := strings.SplitN(in.Text(), ":", 4)
		if len(f) < 4 {
			continue
		}
		done, err := strconv.ParseFloat(f[2], 64)
		if err != nil {
			continue
		}
		line := ""
		switch f[0] {
		case "dlstatus":
			line = fmt.Sprintf("building %s: downloading packages (%d%%)", r.ref, 2+int(done*0.18))
		case "pmstatus":
			line = fmt.Sprintf("building %s: installing packages (%d%%)", r.ref, 20+int(done*0.6))
		}
		if line != "" && line != last {
			progress(line)
			last = line
		}
	}
	_, _ = io.Copy(io.Discard, from) // a line too long ends the scan, not the build
}

// lastWords keeps the last lines of an output.
type lastWords struct {
	mu  sync.Mutex
	buf []byte
}

// Write keeps p.
func (l *lastWords) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, p...)
	if len(l.buf) > 64<<10 {
		l.buf = slices.Clone(l.buf[len(l.buf)-16<<10:])
	}
	return len(p), nil
}

func (l *lastWords) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(strings.TrimSpace(string(l.buf)), "\n")
}
