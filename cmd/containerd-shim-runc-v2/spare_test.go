package main

import (
	"context"
	"os"
	"strings"
	"testing"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"google.golang.org/protobuf/proto"

	"github.com/atoll-sh/atoll/cmd/containerd-shim-runc-v2/early"
)

// TestBootstrapRefuses leaves to the usual way what a spare shim cannot be.
func TestBootstrapRefuses(t *testing.T) {
	sockets := t.TempDir()
	good := func() *bootapi.BootstrapParams {
		return &bootapi.BootstrapParams{
			InstanceID: "a-1", Namespace: "atoll", ContainerdGrpcAddress: "/run/x.sock", SocketDir: &sockets,
			LogLevel: bootapi.LogLevel_LOG_LEVEL_WARN,
		}
	}
	for name, c := range map[string]struct {
		spec string
		edit func(*bootapi.BootstrapParams)
	}{
		"another container": {"{}", func(p *bootapi.BootstrapParams) { p.InstanceID = "a-2" }},
		"another namespace": {"{}", func(p *bootapi.BootstrapParams) { p.Namespace = "other" }},
		"another daemon":    {"{}", func(p *bootapi.BootstrapParams) { p.ContainerdGrpcAddress = "/run/y.sock" }},
		"debugging":         {"{}", func(p *bootapi.BootstrapParams) { p.LogLevel = bootapi.LogLevel_LOG_LEVEL_DEBUG }},
		"a group":           {`{"annotations":{"io.containerd.runc.v2.group":"g"}}`, func(*bootapi.BootstrapParams) {}},
	} {
		t.Chdir(t.TempDir())
		if err := os.WriteFile("config.json", []byte(c.spec), 0o600); err != nil {
			t.Fatal(err)
		}
		p := good()
		c.edit(p)
		input, err := proto.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		args := strings.Fields("shim -namespace atoll -id a-1 -address /run/x.sock start")
		if _, err := bootstrap(context.Background(), early.Request{Dir: ".", Args: args, Input: input}); err == nil {
			t.Errorf("%s: got an answer, want a refusal", name)
		}
		if left, _ := os.ReadDir(sockets); len(left) != 0 {
			t.Errorf("%s: got sockets %v, want none", name, left)
		}
	}
}
