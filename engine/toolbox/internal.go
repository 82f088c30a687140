package toolbox

import (
	"errors"
	"net/http"
	"os"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

func (t *Toolbox) status(w http.ResponseWriter, _ *http.Request) error {
	busy, last := t.activity.now()
	s := wire.Status{
		Version: t.config.Version, StartedAt: t.started, Busy: busy, LastActivity: last,
		Processes: process.CountProcesses(), User: t.runner.User().Name,
	}
	if warning := t.runner.Warning(); warning != "" {
		s.Warnings = append(s.Warnings, warning)
	}
	return writeJSON(w, http.StatusOK, s)
}

// rehearse does what a first command needs, so that the sandbox's own first one
// finds everything in memory. Nothing of the image's is run: a member of the
// warm pool has no policy yet. What only the start needed is given back first,
// and at the end the program's pages, which stay in memory for all sandboxes and
// are quick to map again.
func (t *Toolbox) rehearse(w http.ResponseWriter, r *http.Request) error {
	if t.config.Trim {
		trim()
		defer unmapProgram()
	}
	if err := t.runner.Rehearse(r.Context()); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?$`)

// identity makes a pooled sandbox somebody's: names, environment, user, work
// directory and the image's own program. It may be called again.
func (t *Toolbox) identity(w http.ResponseWriter, r *http.Request) error {
	var q wire.Identity
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	if q.Hostname != "" && !hostName.MatchString(q.Hostname) {
		return wire.BadRequest("hostname: %.80q is not a host name; use letters, digits, dots and hyphens", q.Hostname)
	}
	if err := t.runner.UpdateEnv(wire.UpdateEnv{Set: q.Env}); err != nil {
		return err
	}
	if err := t.trust(q.Trust); err != nil {
		return err
	}
	if q.User != "" {
		t.runner.SetUser(q.User)
	}
	if q.WorkDir != "" {
		t.runner.SetWorkDir(q.WorkDir)
		t.makeWorkDir()
	}
	if q.Hostname != "" {
		t.rename(q.Hostname)
	}
	if len(q.Entrypoint) > 0 {
		if err := t.sessions.StartEntrypoint(q.Entrypoint); err != nil {
			return err
		}
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// rename tells the sandbox its host name. The kernel's name is usually set by
// the runner, because the toolbox lacks the privilege; files that an image
// keeps read-only stay as they are.
func (t *Toolbox) rename(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hostname = name
	if t.config.Init && administers() {
		if err := unix.Sethostname([]byte(name)); err != nil && !errors.Is(err, unix.EPERM) {
			t.log.Warn("set the host name", "err", err)
		}
	}
	hosts, _ := os.ReadFile(t.config.EtcDir + "/hosts")
	for file, text := range map[string]string{"/hostname": name + "\n", "/hosts": hostsFile(string(hosts), name)} {
		if err := os.WriteFile(t.config.EtcDir+file, []byte(text), 0o644); err != nil {
			t.log.Warn("write "+file, "err", err)
		}
	}
}

// administers tells whether the kernel could let this process change names and
// the like. Trying what is going to be refused would be recorded.
func administers() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	err := unix.Capget(&header, &have[0])
	return err == nil && have[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// hostsTag marks our line in /etc/hosts; other lines are the user's.
const hostsTag = "# set by atoll"

func hostsFile(old, name string) string {
	var lines []string
	local := map[string]bool{}
	for line := range strings.Lines(old) {
		line = strings.TrimRight(line, "\r\n")
		if strings.HasSuffix(line, hostsTag) {
			continue
		}
		if f := strings.Fields(line); len(f) > 1 {
			local[f[0]] = true
		}
		lines = append(lines, line)
	}
	if !local["127.0.0.1"] {
		lines = append(lines, "127.0.0.1 localhost")
	}
	if !local["::1"] {
		lines = append(lines, "::1 localhost ip6-localhost ip6-loopback")
	}
	lines = append(lines, "127.0.1.1 "+name+" "+hostsTag)
	return strings.Join(lines, "\n") + "\n"
}
