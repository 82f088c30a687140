package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/atoll-sh/atoll/cmd/containerd-shim-runc-v2/early"
)

// What a spare shim leaves to the usual way.
var (
	errUnlike  = errors.New("the parameters and the command line name different containers")
	errSpecial = errors.New("debugging, groups and control groups of shims need the usual way")
)

// bootstrap does in this process what the manager's Start does for a new one:
// it listens where containerd will call, and returns containerd's answer.
func bootstrap(ctx context.Context, r early.Request) ([]byte, error) {
	var p bootapi.BootstrapParams
	if err := proto.Unmarshal(r.Input, &p); err != nil {
		return nil, err
	}
	id, ns, address := early.Flag(r.Args, "-id"), early.Flag(r.Args, "-namespace"), early.Flag(r.Args, "-address")
	if id == "" || ns == "" || p.GetInstanceID() != id || p.GetNamespace() != ns || p.GetContainerdGrpcAddress() != address {
		return nil, errUnlike
	}
	if err := plain(&p); err != nil {
		return nil, err
	}
	if dir := p.GetSocketDir(); dir != "" {
		if err := linkSockets(dir); err != nil {
			return nil, err
		}
	}
	socket, err := socketOf(ctx, &p)
	if err != nil {
		return nil, err
	}
	outlast(socket)
	if err := listen(socket); err != nil {
		return nil, err
	}
	return proto.Marshal(&bootapi.BootstrapResult{Version: 3, Protocol: "ttrpc", Address: socket})
}

// plain refuses what is not the plain case.
func plain(p *bootapi.BootstrapParams) error {
	var o options.Options
	if _, err := p.FindExtension(&o); err != nil {
		return err
	}
	spec, err := os.ReadFile("config.json")
	if err != nil {
		return err
	}
	grouped := bytes.Contains(spec, []byte("io.containerd.runc.v2.group")) || bytes.Contains(spec, []byte("io.kubernetes.cri.sandbox-id"))
	if grouped || o.GetShimCgroup() != "" || p.GetLogLevel() <= bootapi.LogLevel_LOG_LEVEL_DEBUG || os.Getenv("SCHED_CORE") != "" {
		return errSpecial
	}
	return nil
}

// socketOf is where containerd calls the shim of a container without a group.
func socketOf(ctx context.Context, p *bootapi.BootstrapParams) (string, error) {
	dir := p.GetSocketDir()
	if dir == "" {
		dir = filepath.Join(defaults.DefaultStateDir, "s")
	}
	return shim.CreateSocketAddress(namespaces.WithNamespace(ctx, p.GetNamespace()), dir, p.GetContainerdGrpcAddress(), p.GetInstanceID(), false)
}

// starter starts shims as containerd's own manager does, once the shim of the
// container's earlier life is gone.
type starter struct{ shim.Shim }

func (s starter) Start(ctx context.Context, p *bootapi.BootstrapParams) (*bootapi.BootstrapResult, error) {
	if socket, err := socketOf(ctx, p); err == nil {
		outlast(socket)
	}
	return s.Shim.Start(ctx, p)
}

// outlast waits until no other shim listens at a container's socket. The one of
// its earlier life ends a moment after containerd has deleted the task: it
// would be taken for the new one as long as it answers, and removes the socket
// before it goes, whoever's that is. One that refuses connections and leaves
// its socket for long was killed, and one that goes on answering is left to the
// caller.
func outlast(socket string) {
	const (
		limit  = 2 * time.Second
		killed = 100 * time.Millisecond
	)
	path := strings.TrimPrefix(socket, "unix://")
	begin := time.Now()
	answered := begin
	for now := begin; now.Sub(begin) < limit && now.Sub(answered) < killed; now = time.Now() {
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
			return
		}
		if shim.CanConnect(socket) {
			answered = time.Now()
		}
		time.Sleep(time.Millisecond)
	}
}

// linkSockets leaves in the bundle where the socket is, for the clean-up at
// the shim's end.
func linkSockets(dir string) error {
	const link = "s"
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Symlink(dir, link)
}

// listen opens the shim's socket as the descriptor that a new shim inherits.
func listen(address string) error {
	l, err := shim.NewSocket(address)
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	f, err := l.File()
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Dup3(int(f.Fd()), listenerFD, unix.O_CLOEXEC)
}
