package cli

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/atoll-sh/atoll/engine"
)

// daemon is a server's process that we started.
type daemon struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// startDaemon starts a server in a session of its own, so that it outlives us.
func (a *app) startDaemon(where string, flags []string) (*daemon, error) {
	listen, err := listenAddress(where)
	if err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, engine.Errorf(engine.KindDenied, "no server answers at %s, and starting one needs root", where).
			WithHint("it makes mounts, network namespaces and cgroups; run sudo atoll up")
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	d := &daemon{log: filepath.Join(a.home, "logs", "server.log"), done: make(chan struct{})}
	if err := os.MkdirAll(filepath.Dir(d.log), 0o711); err != nil {
		return nil, localError(d.log, err)
	}
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, localError(d.log, err)
	}
	defer log.Close()
	args := append([]string{"serve", "--home", a.home, "--listen", listen}, flags...)
	d.cmd = exec.Command(exe, args...) //nolint:gosec,noctx // ourselves; it outlives this command
	d.cmd.Dir, d.cmd.Stdout, d.cmd.Stderr = "/", log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := d.cmd.Start(); err != nil {
		return nil, engine.Errorf(engine.KindInternal, "cannot start the server").Wrap(err)
	}
	go func() { _ = d.cmd.Wait(); close(d.done) }()
	return d, os.WriteFile(pidFile(a.home), []byte(strconv.Itoa(d.cmd.Process.Pid)+"\n"), 0o644)
}

func pidFile(home string) string { return filepath.Join(home, "server.pid") }

// listenAddress turns the server's URL into what it must listen on. Only an
// address of this machine can be served.
func listenAddress(where string) (string, error) {
	u, err := url.Parse(where)
	if err != nil || u.Scheme != "http" || u.Host == "" {
		return "", engine.Errorf(engine.KindUnavailable, "no server answers at %s", where).
			WithHint("a server can only be started for a plain http URL of this machine")
	}
	host, port := u.Hostname(), orElse(u.Port(), "80")
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if ip, err := netip.ParseAddr(host); err != nil || !local(ip) {
		return "", engine.Errorf(engine.KindUnavailable, "no server answers at %s", where).
			WithHint("it is not an address of this machine, so none was started")
	}
	return net.JoinHostPort(host, port), nil
}

func local(ip netip.Addr) bool {
	if ip.IsLoopback() || ip.IsUnspecified() {
		return true
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range own {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == ip {
			return true
		}
	}
	return false
}

// ended tells whether the process is over; never for a server of others.
func (d *daemon) ended() bool {
	if d == nil {
		return false
	}
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// release lets the server go on without us.
func (d *daemon) release() {
	if !d.ended() {
		return
	}
	<-d.done
}

func (d *daemon) lookAtLog() string {
	if d == nil {
		return "look at the server's log"
	}
	return "look at " + d.log
}

// lastLines is the end of the server's log.
func (d *daemon) lastLines() string {
	f, err := os.Open(d.log)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	const end = 4 << 10
	if fi, err := f.Stat(); err == nil && fi.Size() > end {
		_, _ = f.Seek(-end, io.SeekEnd)
	}
	b, _ := io.ReadAll(io.LimitReader(f, end))
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}

// serverPID finds the process that the pid file names, 0 when there is none.
// A number that another program has by now is not taken for ours.
func serverPID(home string) (int, error) {
	b, err := os.ReadFile(pidFile(home))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return 0, nil
	}
	if !serves(pid, home) {
		return 0, nil
	}
	return pid, nil
}
