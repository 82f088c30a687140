package desktop

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var displayText = regexp.MustCompile(`^:[0-9]{1,4}$`)

// server is the X server. The environment may name the display that programs
// will look for; otherwise the first that is free is taken, and kept.
func (d *Desktop) server(width, height int) program {
	wanted := func() string {
		d.mu.Lock()
		defer d.mu.Unlock()
		w := cmp.Or(d.display, strings.TrimSuffix(d.env["DISPLAY"], ".0"))
		if !displayText.MatchString(w) {
			return ""
		}
		return w
	}
	argv := func() []string {
		path, _ := find("Xvfb", d.env["PATH"]) // Start has seen it
		list := []string{path, "-screen", "0", fmt.Sprintf("%dx%dx24", width, height), "-nolisten", "tcp", "-noreset", "-displayfd", "3"}
		if w := wanted(); w != "" {
			list = append(list, w)
		}
		return list
	}
	before := func() {
		if w := wanted(); w != "" {
			clearDisplay(w)
		}
	}
	return program{name: "xvfb", priority: 100, argv: argv, before: before, pipe: true, ready: func(r *running) error {
		number, err := r.readLine(readyWait)
		if err != nil {
			return err
		}
		if _, err := strconv.ParseUint(number, 10, 16); err != nil {
			return fmt.Errorf("it said %q instead of its display", number)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.display = ":" + number
		if d.screen != nil {
			d.screen.Close()
		}
		return nil
	}}
}

// clearDisplay removes what an X server left that ended without cleaning up, as
// with the sandbox: a disk that was copied or started again still has it, and
// the process that the lock names may be any other now.
func clearDisplay(display string) {
	socket, number := socketOf(display), strings.TrimPrefix(display, ":")
	for _, name := range []string{"@" + socket, socket} {
		if conn, err := net.Dial("unix", name); err == nil {
			conn.Close()
			return // somebody's
		}
	}
	os.Remove(socket)
	os.Remove("/tmp/.X" + number + "-lock")
}

// programs are all but the X server.
func (d *Desktop) programs() []program {
	fixed := func(argv ...string) func() []string { return func() []string { return argv } }
	return []program{
		{
			name: "dbus", priority: 110, hidden: true, ready: d.busReady,
			argv: fixed("dbus-daemon", "--session", "--nofork", "--nopidfile", "--nosyslog", "--address=unix:path="+filepath.Join(d.dir, "bus")),
		},
		{name: "xfce4", priority: 200, argv: fixed("xfce4-session")},
		{name: "x11vnc", priority: 300, argv: fixed("x11vnc", "-display", d.display, "-localhost", "-no6", "-rfbport", strconv.Itoa(vncPort),
			"-forever", "-shared", "-nopw", "-quiet", "-xkb", "-noshm")},
		{name: "novnc", priority: 400, argv: fixed("websockify", "--web", "/usr/share/novnc",
			fmt.Sprintf("127.0.0.1:%d", WebPort), fmt.Sprintf("127.0.0.1:%d", vncPort))},
	}
}

// busReady waits for the session bus's socket.
func (d *Desktop) busReady(r *running) error {
	for end := time.Now().Add(readyWait); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		select {
		case <-r.done:
			return errors.New("it ended")
		default:
		}
		if _, err := os.Stat(filepath.Join(d.dir, "bus")); err == nil {
			return nil
		}
	}
	return fmt.Errorf("it was not ready after %s", readyWait)
}

func find(name, path string) (string, bool) {
	if filepath.IsAbs(name) {
		return name, true
	}
	for _, dir := range filepath.SplitList(path) {
		p := filepath.Join(dir, name)
		if info, err := os.Stat(p); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return p, true
		}
	}
	return "", false
}
