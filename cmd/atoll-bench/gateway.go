package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// overhead measures what the gateway adds to a call: the same one by way of it
// and straight to the toolbox's socket, in turns.
func (b *bench) overhead(ctx context.Context) error {
	sb, err := b.srv.create(ctx, map[string]any{})
	if err != nil {
		return err
	}
	defer b.srv.remove(context.WithoutCancel(ctx), sb.ID)
	_, socket, err := b.instance(sb.ID)
	if err != nil {
		return err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	straight := &server{url: "http://toolbox", client: &http.Client{Transport: &http.Transport{DialContext: dial}}}
	var direct, through []time.Duration
	for range 1000 {
		d, err := timed(func() error { return straight.call(ctx, "GET", "/version", nil, nil) })
		if err != nil {
			return err
		}
		direct = append(direct, d)
		d, err = timed(func() error { return b.srv.call(ctx, "GET", "/toolbox/"+sb.ID+"/version", nil, nil) })
		if err != nil {
			return err
		}
		through = append(through, d)
	}
	straightMS, throughMS := ms(quantile(direct, .5)), ms(quantile(through, .5))
	b.add(row{Name: "gateway_overhead_p50_ms", Value: throughMS - straightMS, Unit: "ms", Detail: fmt.Sprintf("GET /version, n=1000: %.3f through HTTP, %.3f on the toolbox's socket", throughMS, straightMS)})
	return nil
}

// instance finds a sandbox's instance and its toolbox's socket.
func (b *bench) instance(sandbox string) (id, socket string, err error) {
	srv, err := serverID(b.srv.home)
	if err != nil {
		return "", "", err
	}
	records, _ := filepath.Glob(filepath.Join(b.srv.home, "instances", "*.json"))
	for _, path := range records {
		if data, err := os.ReadFile(path); err == nil && bytes.Contains(data, []byte(`"sandbox":"`+sandbox+`"`)) {
			id = strings.TrimSuffix(filepath.Base(path), ".json")
			return id, filepath.Join("/run/atoll", srv, "i", id, "ctl", "toolbox.sock"), nil
		}
	}
	return "", "", fmt.Errorf("no record of sandbox %s", sandbox)
}

// sockets measures the server's memory with a thousand idle WebSockets: half of
// them at a terminal, half at the events.
func (b *bench) sockets(ctx context.Context) error {
	const n = 1000
	sb, err := b.srv.create(ctx, map[string]any{})
	if err != nil {
		return err
	}
	defer b.srv.remove(context.WithoutCancel(ctx), sb.ID)
	if err := b.srv.call(ctx, "POST", "/toolbox/"+sb.ID+"/process/pty", map[string]any{"id": "bench"}, nil); err != nil {
		return err
	}
	pid := strconv.Itoa(b.srv.cmd.Process.Pid)
	before := memory(pid, "VmRSS:")
	var open []*websocket.Conn
	defer func() {
		var wg sync.WaitGroup
		for _, c := range open {
			wg.Go(func() { _ = c.CloseNow() })
		}
		wg.Wait()
	}()
	base := "ws" + strings.TrimPrefix(b.srv.url, "http")
	for i := range n {
		url, first := base+"/toolbox/"+sb.ID+"/process/pty/bench/connect", ""
		if i%2 == 1 {
			url, first = base+"/api/socket.io/?EIO=4&transport=websocket", `40{"token":"`+apiKey+`"}`
		}
		c, err := connect(ctx, url, first)
		if err != nil {
			return fmt.Errorf("WebSocket %d: %w", i, err)
		}
		open = append(open, c)
	}
	time.Sleep(3 * time.Second)
	after := memory(pid, "VmRSS:")
	b.add(row{Name: "ws_1000_idle_mb", Value: after - before, Unit: "MB", Detail: fmt.Sprintf("%d at a terminal, %d at the events; the server grew from %.0f to %.0f", n/2, n/2, before, after)})
	return nil
}

// connect opens a WebSocket, reads its first message, and if there is something
// to say first, says it and reads the answer.
func connect(ctx context.Context, url, first string) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + apiKey}}})
	if err != nil {
		return nil, err
	}
	_, _, err = c.Read(ctx)
	if err == nil && first != "" {
		if err = c.Write(ctx, websocket.MessageText, []byte(first)); err == nil {
			_, _, err = c.Read(ctx)
		}
	}
	return c, err
}

// streaming measures by how much the server and the toolbox grow while 1 GB
// goes up and comes down.
func (b *bench) streaming(ctx context.Context) error {
	const size = 1 << 30
	sb, err := b.srv.create(ctx, map[string]any{})
	if err != nil {
		return err
	}
	defer b.srv.remove(context.WithoutCancel(ctx), sb.ID)
	id, _, err := b.instance(sb.ID)
	if err != nil {
		return err
	}
	box, err := toolboxPID(id)
	if err != nil {
		return err
	}
	pids := []string{strconv.Itoa(b.srv.cmd.Process.Pid), box}
	before := make([]float64, len(pids))
	for i, pid := range pids {
		before[i] = memory(pid, "VmRSS:")
		if err := os.WriteFile("/proc/"+pid+"/clear_refs", []byte("5"), 0); err != nil { // resets the peak
			return err
		}
	}
	const path = "?path=/home/daytona/large"
	if err := b.srv.send(ctx, "POST", "/toolbox/"+sb.ID+"/files/upload-v2"+path, "application/octet-stream", io.LimitReader(zeros{}, size), nil); err != nil {
		return err
	}
	var n counter
	if err := b.srv.send(ctx, "GET", "/toolbox/"+sb.ID+"/files/download"+path, "application/json", nil, &n); err != nil {
		return err
	}
	if n != size {
		return fmt.Errorf("%d of %d bytes came back", n, size)
	}
	for i, name := range []string{"stream_1gb_server_mb", "stream_1gb_toolbox_mb"} {
		peak := memory(pids[i], "VmHWM:")
		b.add(row{Name: name, Value: peak - before[i], Unit: "MB", Detail: fmt.Sprintf("growth at the peak, %.0f to %.0f, up and down", before[i], peak)})
	}
	return nil
}

type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type counter int64

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// memory reads a size of a process, in MB; 0 when it is gone.
func memory(pid, name string) float64 {
	b, _ := os.ReadFile(filepath.Join("/proc", pid, "status"))
	return field(string(b), name) / 1000
}

// toolboxPID finds the toolbox of an instance.
func toolboxPID(instance string) (string, error) {
	all := pids()
	i := slices.IndexFunc(all, func(pid string) bool {
		args, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
		group, _ := os.ReadFile(filepath.Join("/proc", pid, "cgroup"))
		return bytes.HasPrefix(args, []byte("/.atoll/toolbox")) && bytes.Contains(group, []byte(instance))
	})
	if i < 0 {
		return "", errors.New("the toolbox's process was not found")
	}
	return all[i], nil
}
