package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

const (
	daemonReady = 5 * time.Second // for a containerd that runs to answer
	daemonStart = time.Minute     // for one that was started to serve; its end is noticed before
	daemonStop  = 5 * time.Second // for containerd to end after SIGTERM
	daemonLog   = 8 << 20         // size at which its log is set aside
)

// Supervisor keeps one containerd running for a home. containerd is a child in
// its own session and outlives us; the next server with the same home adopts
// it.
type Supervisor struct {
	Home     string // containerd's images and records live in Home/containerd
	RunDir   string // sockets and volatile state, below /run; its path is short
	ServerID string
	Binary   string // program whose command "containerd" is the daemon
	ShimDir  string // directory of containerd-shim-runc-v2
	// External is the socket of a containerd that somebody else runs, version
	// 1.6 or later. When set, nothing is started and the rest is unused.
	External string
	Log      *slog.Logger

	mu     sync.Mutex
	cancel context.CancelFunc
	done   chan struct{}
}

// Address is containerd's socket.
func (s *Supervisor) Address() string {
	if s.External != "" {
		return s.External
	}
	return filepath.Join(s.RunDir, "containerd.sock")
}

func (s *Supervisor) path(name string) string { return filepath.Join(s.Home, "containerd", name) }
func (s *Supervisor) pidPath() string         { return filepath.Join(s.RunDir, "containerd.pid") }

// Start adopts the home's containerd or starts it, and returns its socket when
// it serves. From then on it is started again whenever it dies, until Close or
// Stop.
func (s *Supervisor) Start(ctx context.Context) (string, error) {
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.External != "" {
		_, err := daemonVersion(ctx, s.External)
		return s.External, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil {
		return s.Address(), nil
	}
	if err := s.prepare(); err != nil {
		return "", err
	}
	p, err := s.adopt(ctx)
	if p == nil && err == nil {
		p, err = s.launch(ctx)
	}
	if err != nil {
		return "", err
	}
	watch, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel, s.done = cancel, make(chan struct{})
	go func() {
		defer close(s.done)
		s.supervise(watch, p)
	}()
	return s.Address(), nil
}

// Close stops watching and leaves containerd running.
func (s *Supervisor) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel == nil {
		return
	}
	s.cancel()
	<-s.done
	s.cancel = nil
}

// Stop ends containerd, also one that another server started for this home.
// Containers go on, so they are removed before.
func (s *Supervisor) Stop(ctx context.Context) error {
	s.Close()
	if s.External != "" {
		return nil
	}
	p := s.recorded()
	if p == nil {
		return s.clear()
	}
	defer p.close()
	go p.wait()
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := p.signal(sig); err != nil {
			return fmt.Errorf("end containerd: %w", err)
		}
		select {
		case <-p.done:
			return s.clear()
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(daemonStop):
		}
	}
	return engine.Errorf(engine.KindTimeout, "containerd (process %d) does not end", p.pid)
}

func (s *Supervisor) clear() error {
	for _, name := range []string{s.pidPath(), s.Address(), s.Address() + ".ttrpc"} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove containerd's file: %w", err)
		}
	}
	return nil
}

// prepare makes the directories and writes the configuration. Root inside a
// sandbox passes through the state directory to its bundle, so it may be
// entered by all.
func (s *Supervisor) prepare() error {
	for _, dir := range []string{s.path(""), s.RunDir} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("make containerd's directory: %w", err)
		}
	}
	if err := os.WriteFile(s.path("config.toml"), []byte(s.config()), 0o600); err != nil {
		return fmt.Errorf("write containerd's configuration: %w", err)
	}
	return nil
}

// config is for containerd 2: local sockets alone, no CRI, no listeners.
func (s *Supervisor) config() string {
	return fmt.Sprintf(`# Written by atoll at every start; changes are lost.
version = 3
root = %q
state = %q
oom_score = 0

[grpc]
  address = %q

[ttrpc]
  address = %q

[debug]
  level = "warn"

[plugins."io.containerd.shim.v1.manager"]
  socket_dir = %q
`, s.path("root"), filepath.Join(s.RunDir, "containerd"), s.Address(), s.Address()+".ttrpc", s.socketDir())
}

// socketDir is where shims listen. containerd refuses long paths, because the
// names in it have 64 characters; it then uses its common place, where the names
// of different servers differ as well.
func (s *Supervisor) socketDir() string {
	const longest = 106 - 1 - 64
	if dir := filepath.Join(s.RunDir, "s"); len(dir) <= longest {
		return dir
	}
	return ""
}

// recorded returns the process in the pid file when it is this home's
// containerd.
func (s *Supervisor) recorded() *process {
	b, err := os.ReadFile(s.pidPath())
	if err != nil {
		return nil
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return nil
	}
	p, err := openProcess(pid)
	if err != nil {
		return nil
	}
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(args), "\x00"+s.path("config.toml")+"\x00") {
		p.close()
		return nil
	}
	return p
}

// adopt takes over a containerd that runs already. One that does not serve is
// ended, and nil returned.
func (s *Supervisor) adopt(ctx context.Context) (*process, error) {
	p := s.recorded()
	if p == nil {
		return nil, nil
	}
	err := s.await(ctx, nil)
	if err == nil {
		s.Log.Info("containerd adopted", "pid", p.pid)
		go p.wait()
		return p, nil
	}
	s.Log.Warn("containerd does not answer, starting it anew", "pid", p.pid, "err", err)
	go p.wait()
	if err := p.signal(unix.SIGKILL); err != nil {
		return nil, fmt.Errorf("end containerd: %w", err)
	}
	<-p.done
	p.close()
	return nil, ctx.Err()
}

// launch starts containerd and waits until it serves.
func (s *Supervisor) launch(ctx context.Context) (*process, error) {
	log, err := s.openLog()
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(s.Binary, "containerd", "--config", s.path("config.toml"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + s.ShimDir + ":" + defaultPath}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, engine.Errorf(engine.KindUnavailable, "containerd could not be started").Wrap(err)
	}
	p, err := openProcess(cmd.Process.Pid)
	if err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	go func() {
		p.wait()
		if p.gone {
			_ = cmd.Wait() // it was our child; its state is in the log
		}
	}()
	if err := os.WriteFile(s.pidPath(), []byte(strconv.Itoa(p.pid)), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("write pid file: %w", err), p.signal(unix.SIGKILL))
	}
	if err := s.await(ctx, p); err != nil {
		_ = p.signal(unix.SIGKILL)
		return nil, err
	}
	s.Log.Info("containerd started", "pid", p.pid)
	return p, nil
}

func (s *Supervisor) openLog() (*os.File, error) {
	name := s.path("log")
	if st, err := os.Stat(name); err == nil && st.Size() > daemonLog {
		if err := os.Rename(name, name+".1"); err != nil {
			return nil, fmt.Errorf("set containerd's log aside: %w", err)
		}
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open containerd's log: %w", err)
	}
	return f, nil
}

// await returns when containerd serves. p, when it was just started, is watched
// for its end.
func (s *Supervisor) await(ctx context.Context, p *process) error {
	var ended <-chan struct{}
	limit := daemonReady
	if p != nil {
		ended, limit = p.done, daemonStart
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answer := make(chan error, 1)
	go func() {
		_, err := daemonVersion(ctx, s.Address())
		answer <- err
	}()
	select {
	case err := <-answer:
		return err
	case <-ended:
		cancel()
		<-answer
		return engine.Errorf(engine.KindUnavailable, "containerd ended at once").
			WithHint("see %s", s.path("log"))
	}
}

// supervise starts containerd again whenever it ends, at growing intervals
// when it does not stay.
func (s *Supervisor) supervise(ctx context.Context, p *process) {
	const longest = 10 * time.Second
	wait, since := time.Duration(0), time.Now()
	for {
		select {
		case <-ctx.Done():
			p.close()
			<-p.done
			return
		case <-p.done:
		}
		p.close()
		if time.Since(since) > time.Minute {
			wait = 0
		}
		s.Log.Warn("containerd ended, starting it again", "pid", p.pid)
		for {
			if sleep(ctx, wait) != nil {
				return
			}
			wait = min(max(2*wait, 250*time.Millisecond), longest)
			next, err := s.launch(ctx)
			if err == nil {
				p, since = next, time.Now()
				break
			}
			if ctx.Err() != nil {
				return
			}
			s.Log.Error("containerd does not start", "err", err)
		}
	}
}

// daemonVersion waits until containerd answers and checks that it is new
// enough and can run containers.
func daemonVersion(ctx context.Context, address string) (string, error) {
	client, err := connect(address, "atoll")
	if err != nil {
		return "", err
	}
	defer client.Close()
	v, err := client.Version(ctx)
	if err != nil {
		return "", engine.Errorf(engine.KindUnavailable, "containerd does not answer").Wrap(err)
	}
	if !atLeast(v.Version, 1, 6) {
		return "", engine.Errorf(engine.KindUnsupported, "containerd %s is too old", v.Version).
			WithHint("1.6 or later is needed; or let atoll run its own")
	}
	if _, err := client.TaskService().List(ctx, &tasks.ListTasksRequest{}); err != nil {
		return "", engine.Errorf(engine.KindUnavailable, "containerd cannot run containers").
			WithHint("its log says why").Wrap(err)
	}
	return v.Version, nil
}

// atLeast compares the first two numbers of a version, as "v2.1.3" or
// "1.6.20~ds1". Text without numbers, a development build, counts as new.
func atLeast(version string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(strings.TrimPrefix(version, "v"), "%d.%d", &a, &b); n < 2 {
		return true
	}
	return a > major || a == major && b >= minor
}
