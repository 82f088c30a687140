package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// firstExec creates a sandbox, runs true in it and returns how long both took.
// The sandbox is removed outside the measured time.
func (b *bench) firstExec(ctx context.Context, body map[string]any) (sandbox, time.Duration, error) {
	begin := time.Now()
	sb, err := b.srv.create(ctx, body)
	if err != nil {
		return sb, 0, err
	}
	err = b.srv.true(ctx, sb.ID)
	took := time.Since(begin)
	if rerr := b.srv.remove(ctx, sb.ID); err == nil {
		err = rerr
	}
	return sb, took, err
}

// calm waits until the pools are full and the one before is cleared away, so
// that a single create is measured. The burst and the empty pool have rows of
// their own.
func (b *bench) calm(ctx context.Context) error {
	err := b.srv.waitWarm(ctx, 2)
	time.Sleep(500 * time.Millisecond)
	return err
}

func (b *bench) warm(ctx context.Context) error {
	var took []time.Duration
	missed := 0
	for i := range 2 * b.n {
		if err := b.calm(ctx); err != nil {
			return err
		}
		sb, d, err := b.firstExec(ctx, map[string]any{
			"name": fmt.Sprintf("warm-%d", i), "env": map[string]string{"N": strconv.Itoa(i)}, "labels": map[string]string{"bench": "warm"},
		})
		if err != nil {
			return err
		}
		if !sb.Warm {
			missed++
			continue
		}
		took = append(took, d)
		b.stage["warm"] = append(b.stage["warm"], sb.Timing)
	}
	detail := fmt.Sprintf("n=%d, pool full, own name, env and labels; %d misses", len(took), missed)
	b.add(row{Name: "create_warm_first_exec_p50_ms", Value: ms(quantile(took, .5)), Unit: "ms", Detail: detail})
	b.add(row{Name: "create_warm_first_exec_p99_ms", Value: ms(quantile(took, .99)), Unit: "ms"})
	return nil
}

func (b *bench) cold(ctx context.Context) error {
	var took []time.Duration
	for range b.n {
		if err := b.calm(ctx); err != nil {
			return err
		}
		sb, d, err := b.firstExec(ctx, map[string]any{"cold": true})
		if err != nil {
			return err
		}
		took = append(took, d)
		b.stage["cold"] = append(b.stage["cold"], sb.Timing)
	}
	b.add(row{Name: "create_cold_first_exec_p50_ms", Value: ms(quantile(took, .5)), Unit: "ms", Detail: fmt.Sprintf("n=%d, min %.1f", len(took), ms(quantile(took, 0)))})
	b.add(row{Name: "create_cold_first_exec_p99_ms", Value: ms(quantile(took, .99)), Unit: "ms"})
	return nil
}

// empty measures creates that come faster than the pool refills.
func (b *bench) empty(ctx context.Context) error {
	var took []time.Duration
	var ids []string
	for len(took) < b.n/2 {
		begin := time.Now()
		sb, err := b.srv.create(ctx, map[string]any{})
		if err != nil {
			return err
		}
		if err := b.srv.true(ctx, sb.ID); err != nil {
			return err
		}
		if !sb.Warm {
			took = append(took, time.Since(begin))
		}
		ids = append(ids, sb.ID)
	}
	for _, id := range ids {
		if err := b.srv.remove(ctx, id); err != nil {
			return err
		}
	}
	b.against(row{Name: "create_pool_empty_first_exec_p50_ms", Value: ms(quantile(took, .5)), Unit: "ms", Detail: fmt.Sprintf("n=%d, back to back, pool drained", len(took))}, "create_cold_first_exec_p50_ms")
	return nil
}

func (b *bench) exec(ctx context.Context) error {
	sb, err := b.srv.create(ctx, map[string]any{})
	if err != nil {
		return err
	}
	defer b.srv.remove(context.WithoutCancel(ctx), sb.ID)
	var took []time.Duration
	for range 500 {
		begin := time.Now()
		if err := b.srv.true(ctx, sb.ID); err != nil {
			return err
		}
		took = append(took, time.Since(begin))
	}
	b.add(row{Name: "exec_http_p50_ms", Value: ms(quantile(took, .5)), Unit: "ms", Detail: "true, n=500"})
	b.add(row{Name: "exec_http_p99_ms", Value: ms(quantile(took, .99)), Unit: "ms"})
	time.Sleep(5 * time.Second) // idle is after the work, too
	id, err := serverID(b.srv.home)
	if err != nil {
		return err
	}
	pss, err := toolboxPSS(id)
	if err != nil {
		return err
	}
	b.add(row{Name: "toolbox_pss_mb", Value: pss, Unit: "MB", Detail: "the largest, idle for 5 s after those execs"})
	return nil
}

func (b *bench) execMCP(ctx context.Context) error {
	sb, err := b.srv.create(ctx, map[string]any{})
	if err != nil {
		return err
	}
	defer b.srv.remove(context.WithoutCancel(ctx), sb.ID)
	var took []time.Duration
	for i := range 300 {
		begin := time.Now()
		var answer bytes.Buffer
		err := b.srv.call(ctx, "POST", "/mcp", map[string]any{
			"jsonrpc": "2.0", "id": i + 1, "method": "tools/call",
			"params": map[string]any{
				"name": "sandbox_exec", "arguments": map[string]any{"id": sb.ID, "command": "true"},
				"_meta": map[string]any{
					"io.modelcontextprotocol/protocolVersion":    "2026-07-28",
					"io.modelcontextprotocol/clientInfo":         map[string]any{"name": "atoll-bench", "version": "1"},
					"io.modelcontextprotocol/clientCapabilities": map[string]any{},
				},
			},
		}, &answer)
		if err != nil {
			return err
		}
		took = append(took, time.Since(begin))
		if !strings.Contains(answer.String(), "exit 0") {
			return fmt.Errorf("unexpected answer: %s", tail(answer.Bytes(), 400))
		}
	}
	b.against(row{Name: "exec_mcp_p50_ms", Value: ms(quantile(took, .5)), Unit: "ms", Detail: "sandbox_exec over HTTP, n=300"}, "exec_http_p50_ms")
	return nil
}

// files compares a 100 MB upload and download with the cp command on the
// host's disk: a file to a new file, from the page cache, without a sync. The
// three take turns, each round tells what share of cp's speed the others have,
// and the middle of those counts, so that a busy moment disturbs all alike.
func (b *bench) files(ctx context.Context) error {
	const size, rounds = 100 << 20, 21
	dir, err := os.MkdirTemp("", "atoll-bench-cp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	src, dst := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	data := make([]byte, size)
	_, _ = rand.Read(data)
	if err := os.WriteFile(src, data, 0o600); err != nil {
		return err
	}
	sb, err := b.srv.create(ctx, map[string]any{})
	if err != nil {
		return err
	}
	defer b.srv.remove(context.WithoutCancel(ctx), sb.ID)
	const blob = "?path=/home/daytona/blob"
	took := map[string][]time.Duration{}
	for range rounds {
		for _, step := range []struct {
			name string
			run  func() error
		}{
			{"cp", func() error {
				return exec.CommandContext(ctx, "cp", "--reflink=never", src, dst).Run()
			}},
			{"up", func() error {
				f, err := os.Open(src)
				if err != nil {
					return err
				}
				defer f.Close()
				return b.srv.send(ctx, "POST", "/toolbox/"+sb.ID+"/files/upload-v2"+blob, "application/octet-stream", f, nil)
			}},
			{"down", func() error {
				var n counter
				err := b.srv.send(ctx, "GET", "/toolbox/"+sb.ID+"/files/download"+blob, "application/json", nil, &n)
				if err == nil && n != size {
					err = fmt.Errorf("%d of %d bytes came back", n, size)
				}
				return err
			}},
		} {
			d, err := timed(step.run)
			if err != nil {
				return err
			}
			took[step.name] = append(took[step.name], d)
		}
		// The next copies are new files, too.
		if err := os.Remove(dst); err != nil {
			return err
		}
		if err := b.srv.call(ctx, "DELETE", "/toolbox/"+sb.ID+"/files"+blob, nil, nil); err != nil {
			return err
		}
	}
	speed := func(ds []time.Duration) float64 { return 100 / quantile(ds, .5).Seconds() }
	b.add(row{Name: "cp_100mb_mb_s", Value: speed(took["cp"]), Unit: "MiB/s", Detail: fmt.Sprintf("n=%d, page cache, no sync", rounds)})
	for _, way := range []string{"up", "down"} {
		var shares []float64
		for i, d := range took[way] {
			shares = append(shares, float64(took["cp"][i])/float64(d))
		}
		slices.Sort(shares)
		b.add(row{
			Name: way + "load_100mb_mb_s", Value: speed(took[way]), Unit: "MiB/s", Against: "cp_100mb_mb_s", Ratio: shares[rounds/2],
			Detail: fmt.Sprintf("the middle of %d rounds; a quarter of them below %.2f", rounds, shares[rounds/4]),
		})
	}
	return nil
}

// fork measures a disk snapshot and a fork, small and with 1 GiB of data.
func (b *bench) fork(ctx context.Context) error {
	sb, err := b.srv.create(ctx, map[string]any{})
	if err != nil {
		return err
	}
	defer b.srv.remove(context.WithoutCancel(ctx), sb.ID)
	measure := func(tag string) error {
		d, err := timed(func() error {
			return b.srv.call(ctx, "POST", "/api/sandbox/"+sb.ID+"/snapshot", map[string]any{"name": "bench-" + tag}, nil)
		})
		if err != nil {
			return err
		}
		b.add(row{Name: "snapshot_" + tag + "_ms", Value: ms(d), Unit: "ms"})
		var forked sandbox
		d, err = timed(func() error {
			return b.srv.call(ctx, "POST", "/api/sandbox/"+sb.ID+"/fork", map[string]any{"name": "fork-" + tag}, &forked)
		})
		if err != nil {
			return err
		}
		b.add(row{Name: "fork_" + tag + "_ms", Value: ms(d), Unit: "ms", Detail: "until the fork is started"})
		return b.srv.remove(ctx, forked.ID)
	}
	if err := measure("empty"); err != nil {
		return err
	}
	err = b.srv.call(ctx, "POST", "/toolbox/"+sb.ID+"/process/execute", map[string]any{
		"command": "head -c 1073741824 /dev/urandom > big && sync", "timeout": 120,
	}, nil)
	if err != nil {
		return err
	}
	return measure("1gib")
}

func (b *bench) burst(ctx context.Context) error {
	const n = 50
	if err := b.srv.waitWarm(ctx, 2); err != nil {
		return err
	}
	took, ids, errs := make([]time.Duration, n), make([]string, n), make([]error, n)
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range n {
		wg.Go(func() {
			at := time.Now()
			sb, err := b.srv.create(ctx, map[string]any{})
			if err == nil {
				err = b.srv.true(ctx, sb.ID)
			}
			took[i], ids[i], errs[i] = time.Since(at), sb.ID, err
		})
	}
	wg.Wait()
	wall := time.Since(begin)
	failed := 0
	for i, err := range errs {
		if err != nil {
			failed++
			fmt.Fprintln(os.Stderr, "burst:", err)
		}
		if ids[i] != "" {
			if err := b.srv.remove(ctx, ids[i]); err != nil {
				return err
			}
		}
	}
	b.add(row{Name: "burst50_wall_s", Value: wall.Seconds(), Unit: "s", Detail: fmt.Sprintf("%d of %d succeeded, each with its first exec", n-failed, n)})
	b.add(row{Name: "burst50_p99_ms", Value: ms(quantile(took, .99)), Unit: "ms"})
	return nil
}

// idle measures the server and its containerd once the pool is full.
func (b *bench) idle(ctx context.Context) error {
	if err := b.srv.waitWarm(ctx, 2); err != nil {
		return err
	}
	time.Sleep(2 * time.Second)
	id, err := serverID(b.srv.home)
	if err != nil {
		return err
	}
	mb, detail, err := serverMemory(b.srv.home, id, b.srv.cmd.Process.Pid)
	if err != nil {
		return err
	}
	b.add(row{Name: "server_idle_mb", Value: mb, Unit: "MB", Detail: detail})
	return nil
}

func timed(f func() error) (time.Duration, error) {
	begin := time.Now()
	err := f()
	return time.Since(begin), err
}
