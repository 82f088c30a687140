package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// peer is another way to run a command in a fresh container of the same image.
type peer struct {
	name string
	bin  string
	args []string
}

// runPeers measures `run --rm IMAGE true` of every peer that is there. Each
// run is one container made, started, used once and removed: what a create
// and its first exec are for Atoll, plus the removal, which is subtracted
// nowhere because their CLIs offer no other way.
func (b *bench) runPeers(ctx context.Context) error {
	sock, err := containerdSocket(b.srv.home)
	if err != nil {
		return err
	}
	nerdctl := []string{"--address", sock, "--namespace", "atoll", "--data-root", filepath.Join(b.srv.home, "nerdctl")}
	image := "docker.io/library/atoll:default"
	if out, err := exec.CommandContext(ctx, filepath.Join(b.peers, "ctr"), "--address", sock, "-n", "atoll", "images", "ls", "-q").Output(); err == nil {
		for line := range bytes.Lines(out) {
			if bytes.Contains(line, []byte("atoll:default")) {
				image = string(bytes.TrimSpace(line))
			}
		}
	}
	peers := []peer{
		{"nerdctl_run", filepath.Join(b.peers, "nerdctl"), append(nerdctl, "run", "--rm", "--pull", "never", image, "true")},
		{"nerdctl_run_no_network", filepath.Join(b.peers, "nerdctl"), append(nerdctl, "run", "--rm", "--pull", "never", "--net", "none", image, "true")},
		{"ctr_run", filepath.Join(b.peers, "ctr"), []string{"--address", sock, "-n", "atoll", "run", "--rm", image, "%id", "true"}},
	}
	for _, name := range []string{"podman", "docker"} {
		if p, ok := b.imported(ctx, name); ok {
			peers = append(peers, p)
		}
	}
	for _, p := range peers {
		b.measurePeer(ctx, p)
	}
	cold := row{Name: "cold_vs_nerdctl_run_ratio", Value: b.value("create_cold_first_exec_p50_ms"), Unit: "ratio"}
	if v := b.value("nerdctl_run_p50_ms"); v > 0 {
		cold.Value /= v
		cold.Against, cold.Ratio = "nerdctl_run_p50_ms", cold.Value
		b.add(cold)
	}
	for _, name := range []string{"nerdctl_run_no_network", "ctr_run", "podman_run", "docker_run"} {
		if v := b.value(name + "_p50_ms"); v > 0 {
			r := b.value("create_cold_first_exec_p50_ms") / v
			b.add(row{Name: "cold_vs_" + name + "_ratio", Value: r, Unit: "ratio", Against: name + "_p50_ms", Ratio: r})
		}
	}
	return nil
}

func (b *bench) measurePeer(ctx context.Context, p peer) {
	if _, err := os.Stat(p.bin); err != nil {
		fmt.Fprintf(os.Stderr, "  %s is not installed\n", p.name)
		return
	}
	var took []time.Duration
	for i := range max(b.n/2, 5) {
		args := append([]string(nil), p.args...)
		for j, a := range args {
			if a == "%id" {
				args[j] = fmt.Sprintf("bench-%d-%d", os.Getpid(), i)
			}
		}
		cmd := exec.CommandContext(ctx, p.bin, args...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		begin := time.Now()
		if err := cmd.Run(); err != nil {
			fmt.Fprintf(os.Stderr, "  %s does not run here: %v: %s\n", p.name, err, tail(bytes.TrimSpace(out.Bytes()), 300))
			return
		}
		took = append(took, time.Since(begin))
	}
	b.add(row{Name: p.name + "_p50_ms", Value: ms(quantile(took, .5)), Unit: "ms", Detail: fmt.Sprintf("n=%d, min %.1f", len(took), ms(quantile(took, 0)))})
}

// imported loads the server's image into podman or docker, when that is there
// and works.
func (b *bench) imported(ctx context.Context, name string) (peer, bool) {
	bin, err := exec.LookPath(name)
	if err != nil || exec.CommandContext(ctx, bin, "info").Run() != nil {
		fmt.Fprintf(os.Stderr, "  %s is not installed or has no engine\n", name)
		return peer{}, false
	}
	sock, err := containerdSocket(b.srv.home)
	if err != nil {
		return peer{}, false
	}
	tar := filepath.Join(b.srv.home, "image.tar")
	if _, err := os.Stat(tar); err != nil {
		out, err := exec.CommandContext(ctx, filepath.Join(b.peers, "nerdctl"), "--address", sock, "--namespace", "atoll",
			"--data-root", filepath.Join(b.srv.home, "nerdctl"), "save", "-o", tar, "atoll:default").CombinedOutput()
		if err != nil {
			fmt.Fprintf(os.Stderr, "  save for %s: %v: %s\n", name, err, tail(out, 300))
			return peer{}, false
		}
	}
	if out, err := exec.CommandContext(ctx, bin, "load", "-i", tar).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "  %s load: %v: %s\n", name, err, tail(out, 300))
		return peer{}, false
	}
	args := []string{"run", "--rm", "--network", "none"}
	if name == "podman" {
		// podman raises these to the most there is, which a host without
		// CAP_SYS_RESOURCE refuses.
		args = append(args, "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
	}
	return peer{name + "_run", bin, append(args, "atoll:default", "true")}, true
}

// containerdSocket finds the socket of the server's containerd.
func containerdSocket(home string) (string, error) {
	id, err := serverID(home)
	return filepath.Join("/run/atoll", id, "containerd.sock"), err
}

// serverID reads the short id that names everything a server makes.
func serverID(home string) (string, error) {
	b, err := os.ReadFile(filepath.Join(home, "server.json"))
	if err != nil {
		return "", err
	}
	var v struct {
		ID string `json:"id"`
	}
	return v.ID, json.Unmarshal(b, &v)
}
