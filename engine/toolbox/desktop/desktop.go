package desktop

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

const (
	// WebPort is where noVNC listens, on loopback: the toolbox forwards to it.
	WebPort = 6080
	// vncPort is where x11vnc listens, on loopback.
	vncPort = 5900
	// readyWait is how long the X server may take to start, managerWait how
	// long the window manager is waited for.
	readyWait   = 20 * time.Second
	managerWait = 15 * time.Second
	// defaultSize is the screen's size unless the environment says otherwise.
	defaultWidth, defaultHeight = 1280, 800
	// Sizes that an X server takes and a picture of which fits into memory.
	minSide, maxSide = 64, 4096
)

// SizeVariable is the environment variable that sets the screen's size, as
// 1280x800.
const SizeVariable = "VNC_RESOLUTION"

// Desktop is the desktop of a sandbox. Its methods may be called at the same
// time.
type Desktop struct {
	env  map[string]string // of the sandbox's commands
	home string

	change sync.Mutex // held by Start and Stop

	mu      sync.Mutex
	dir     string // for sockets; empty: not started
	display string
	keepers []*keeper
	screen  *Screen
	films   *films
	access  *access
}

// New returns a desktop that is not started. It gives its programs env.
func New(env map[string]string, home string) *Desktop {
	d := &Desktop{env: env, home: home}
	d.films = newFilms(filepath.Join(home, ".atoll", "recordings"))
	return d
}

// Missing returns an error that says so when the image has no desktop.
func Missing(path string) error {
	for _, dir := range filepath.SplitList(path) {
		if info, err := os.Stat(filepath.Join(dir, "Xvfb")); err == nil && info.Mode()&0o111 != 0 {
			return nil
		}
	}
	return wire.Errorf(http.StatusServiceUnavailable, wire.CodeNoDesktop,
		"this sandbox has no desktop (Xvfb is not installed): create one from the snapshot atoll-desktop")
}

// NotStarted is the error of calls that need a started desktop.
func NotStarted() error {
	return wire.Errorf(http.StatusServiceUnavailable, wire.CodeNoDesktop, "the desktop is not started: call POST /computeruse/start first")
}

// Names are the processes that callers know, in the order of their start.
func Names() []string { return []string{"xvfb", "xfce4", "x11vnc", "novnc"} }

// Stopped is the status of a desktop that is not started.
func Stopped() map[string]wire.DesktopProcess {
	all := map[string]wire.DesktopProcess{}
	for i, n := range Names() {
		all[n] = wire.DesktopProcess{Priority: 100 * (i + 1), AutoRestart: true}
	}
	return all
}

var sizeText = regexp.MustCompile(`^([0-9]{2,4})x([0-9]{2,4})(x[0-9]{1,2})?$`)

// size reads the wanted size of the screen.
func size(text string) (width, height int, err error) {
	if text == "" {
		return defaultWidth, defaultHeight, nil
	}
	m := sizeText.FindStringSubmatch(text)
	if m != nil {
		width, _ = strconv.Atoi(m[1])
		height, _ = strconv.Atoi(m[2])
	}
	if width < minSide || height < minSide || width > maxSide || height > maxSide {
		return 0, 0, wire.BadRequest("%s: %.40q is no size of a screen; write it as 1280x800, each side from %d to %d", SizeVariable, text, minSide, maxSide)
	}
	return width, height, nil
}

// Start starts what the image has of a desktop, in order, and waits until it
// can be used. It does nothing for what runs already. Without an X server
// nothing is left running.
func (d *Desktop) Start(ctx context.Context) error {
	d.change.Lock()
	defer d.change.Unlock()
	if err := Missing(d.env["PATH"]); err != nil {
		return err
	}
	if !d.started() {
		if err := d.open(); err != nil {
			return err
		}
	}
	for _, k := range d.all() {
		if err := k.start(); err != nil && k.name == "xvfb" {
			d.close()
			return wire.Errorf(http.StatusInternalServerError, wire.CodeInternal, "%v", err)
		} else if err != nil {
			fmt.Fprintf(&k.stderr, "\n%v\n", err)
		}
	}
	d.awaitManager(ctx)
	return nil
}

func (d *Desktop) started() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dir != ""
}

func (d *Desktop) all() []*keeper {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.keepers)
}

// open makes the place for sockets and says what to run, which starts nothing.
// The X server is different: its display's number is needed by all others.
func (d *Desktop) open() error {
	width, height, err := size(d.env[SizeVariable])
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "atoll-desktop-")
	if err != nil {
		return wire.Errorf(http.StatusInternalServerError, wire.CodeInternal, "make a directory for the desktop's sockets: %v", err)
	}
	x := &keeper{program: d.server(width, height), env: environ(d.env, nil)}
	if err := x.start(); err != nil {
		os.RemoveAll(dir)
		d.display = ""
		return wire.Errorf(http.StatusInternalServerError, wire.CodeInternal, "%v", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dir = dir
	d.screen = NewScreen(d.display)
	d.access = newAccess("unix:path=" + filepath.Join(dir, "bus"))
	d.keepers = []*keeper{x}
	for _, p := range d.programs() {
		if path, ok := find(p.argv()[0], d.env["PATH"]); ok {
			argv := append([]string{path}, p.argv()[1:]...)
			p.argv = func() []string { return argv }
			d.keepers = append(d.keepers, &keeper{program: p, env: environ(d.env, d.sessionLocked())})
		}
	}
	return nil
}

// awaitManager waits for the window manager, where there is to be one: what is
// asked next is mostly a picture.
func (d *Desktop) awaitManager(ctx context.Context) {
	k, err := d.keeper("xfce4")
	if err != nil || k == nil {
		return
	}
	for end := time.Now().Add(managerWait); time.Now().Before(end) && ctx.Err() == nil && k.pid() != 0; time.Sleep(20 * time.Millisecond) {
		if ok, err := d.screen.Managed(); ok || err != nil {
			return
		}
	}
}

// Session is the environment that brings a program onto the desktop, nil while
// it is not started.
func (d *Desktop) Session() map[string]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dir == "" {
		return nil
	}
	return d.sessionLocked()
}

func (d *Desktop) sessionLocked() map[string]string {
	return map[string]string{
		"DISPLAY":                  d.display,
		"DBUS_SESSION_BUS_ADDRESS": "unix:path=" + filepath.Join(d.dir, "bus"),
		"XDG_RUNTIME_DIR":          d.dir,
		// These make toolkits describe themselves to assistive technology.
		"ACCESSIBILITY_ENABLED":            "1",
		"QT_ACCESSIBILITY":                 "1",
		"QT_LINUX_ACCESSIBILITY_ALWAYS_ON": "1",
		"GTK_MODULES":                      "gail:atk-bridge",
		"LIBGL_ALWAYS_SOFTWARE":            "1",
		"XDG_SESSION_TYPE":                 "x11",
	}
}

// environ puts an environment together.
func environ(base, more map[string]string) []string {
	var list []string
	for k, v := range base {
		if _, ok := more[k]; !ok {
			list = append(list, k+"="+v)
		}
	}
	for k, v := range more {
		list = append(list, k+"="+v)
	}
	return list
}

// Stop ends recordings and all processes, the last first.
func (d *Desktop) Stop() {
	d.change.Lock()
	defer d.change.Unlock()
	d.close()
}

func (d *Desktop) close() {
	d.films.stopAll()
	keepers := d.all()
	slices.Reverse(keepers)
	for _, k := range keepers {
		k.end()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dir == "" {
		return
	}
	d.screen.Close()
	d.access.close()
	os.RemoveAll(d.dir)
	d.dir, d.display, d.keepers, d.screen, d.access = "", "", nil, nil, nil
}

// Processes describes the processes, by name.
func (d *Desktop) Processes() map[string]wire.DesktopProcess {
	all := Stopped()
	for n, p := range all {
		p.AutoRestart = false
		all[n] = p
	}
	for _, k := range d.all() {
		if !k.hidden {
			pid := k.pid()
			all[k.name] = wire.DesktopProcess{Running: pid != 0, AutoRestart: true, Priority: k.priority, PID: pid}
		}
	}
	return all
}

// Status is the state in one word. What the image lacks does not count.
func (d *Desktop) Status() string {
	running, keepers := 0, d.all()
	for _, k := range keepers {
		if k.pid() != 0 {
			running++
		}
	}
	switch {
	case running == 0:
		return wire.DesktopInactive
	case running < len(keepers):
		return wire.DesktopPartial
	}
	return wire.DesktopActive
}

// CheckName refuses a name that no process has.
func CheckName(name string) error {
	if !slices.Contains(Names(), name) {
		return wire.Errorf(http.StatusNotFound, wire.CodeNotFound, "there is no desktop process %.40q; they are %s", name, strings.Join(Names(), ", "))
	}
	return nil
}

// keeper finds a process; it is nil when the image does not have it.
func (d *Desktop) keeper(name string) (*keeper, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	for _, k := range d.all() {
		if k.name == name {
			return k, nil
		}
	}
	return nil, nil
}

// Running tells whether a process runs.
func (d *Desktop) Running(name string) (bool, error) {
	k, err := d.keeper(name)
	return k != nil && k.pid() != 0, err
}

// Restart ends a process and starts it again, also one that had failed for
// good. The others follow a new X server by themselves.
func (d *Desktop) Restart(name string) error {
	d.change.Lock()
	defer d.change.Unlock()
	k, err := d.keeper(name)
	if err != nil {
		return err
	}
	if k == nil {
		return wire.Errorf(http.StatusServiceUnavailable, wire.CodeNoDesktop, "the program of %s is not installed in this sandbox: use the snapshot atoll-desktop", name)
	}
	if err := k.restart(); err != nil {
		return wire.Errorf(http.StatusInternalServerError, wire.CodeInternal, "%v", err)
	}
	return nil
}

// Output returns the end of what a process wrote. It is empty for one that the
// image does not have.
func (d *Desktop) Output(name string) (stdout, stderr string, err error) {
	k, err := d.keeper(name)
	if err != nil || k == nil {
		return "", "", err
	}
	return k.stdout.String(), k.stderr.String(), nil
}

// Screen is the screen, for those who look and act.
func (d *Desktop) Screen() (*Screen, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.screen == nil {
		return nil, NotStarted()
	}
	return d.screen, nil
}

// ffmpeg returns where it is.
func (d *Desktop) ffmpeg() (string, error) {
	if p, ok := find("ffmpeg", cmp.Or(d.env["PATH"], os.Getenv("PATH"))); ok {
		return p, nil
	}
	return "", wire.Errorf(http.StatusServiceUnavailable, wire.CodeNoFFmpeg, "ffmpeg is not installed in this sandbox: install it, or use the snapshot atoll-desktop")
}

func start(c *exec.Cmd) error {
	if err := c.Start(); err != nil {
		return fmt.Errorf("start %s: %w", filepath.Base(c.Path), err)
	}
	return nil
}
