package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const apiKey = "atl_bench_0123456789abcdef0123456789"

// server is the measured process with its own home.
type server struct {
	bin, home, url string
	cmd            *exec.Cmd
	client         *http.Client
}

// sandbox is the part of the answer that the bench reads.
type sandbox struct {
	ID     string      `json:"id"`
	State  string      `json:"state"`
	Warm   bool        `json:"warm"`
	Timing []waterStep `json:"timing"`
}

type waterStep struct {
	Name  string  `json:"name"`
	Start float64 `json:"startMs"`
	Took  float64 `json:"tookMs"`
}

type waterfall []waterStep

func startServer(ctx context.Context, bin string) (*server, error) {
	home, err := os.MkdirTemp("", "atoll-bench-")
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	s := &server{bin: bin, home: home, url: "http://" + addr, client: &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 64, ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10, // as the product's own client
	}}}
	log, err := os.Create(filepath.Join(home, "bench-server.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s.cmd = exec.CommandContext(ctx, bin, "serve", "--home", home, "--listen", addr)
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) }
	s.cmd.Env = append(os.Environ(), "ATOLL_API_KEY="+apiKey)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := s.ready(ctx); err != nil {
		text, _ := os.ReadFile(log.Name())
		s.stop()
		return nil, fmt.Errorf("%w\n%s", err, tail(text, 2000))
	}
	return s, nil
}

// ready waits until a sandbox can be made: the first start of a machine also
// builds the default image.
func (s *server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	for {
		sb, err := s.create(ctx, map[string]any{})
		if err == nil {
			return s.remove(ctx, sb.ID)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the server did not become ready: %w", err)
		case <-time.After(time.Second):
		}
		if s.cmd.ProcessState != nil {
			return fmt.Errorf("the server ended: %w", err)
		}
	}
}

// stop ends the server, tears its host side down and removes its home.
func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait()
	down := exec.Command(s.bin, "down", "--home", s.home)
	if out, err := down.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "atoll-bench: down: %v\n%s", err, out)
		return
	}
	_ = os.RemoveAll(s.home)
}

// call sends JSON and decodes the answer into out unless that is nil.
func (s *server) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	return s.send(ctx, method, path, "application/json", body, out)
}

// mcpHeaders are what the stateless revision of MCP wants beside the body of a
// call of the exec tool.
var mcpHeaders = map[string]string{"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "sandbox_exec"}

func (s *server) send(ctx context.Context, method, path, contentType string, body io.Reader, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, body)
	if err != nil {
		return err
	}
	if f, ok := body.(*os.File); ok {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		req.ContentLength = info.Size()
	}
	req.Header.Set("Authorization", "Bearer "+apiKey)
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Accept", "application/json, text/event-stream")
	if path == "/mcp" {
		for k, v := range mcpHeaders {
			req.Header.Set(k, v)
		}
	}
	res, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		b, _ := io.ReadAll(io.LimitReader(res.Body, 2000))
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, bytes.TrimSpace(b))
	}
	if w, ok := out.(io.Writer); ok {
		_, err = io.CopyBuffer(w, struct{ io.Reader }{res.Body}, make([]byte, 256<<10))
		return err
	}
	if out != nil {
		err = json.NewDecoder(res.Body).Decode(out)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	return err
}

func (s *server) create(ctx context.Context, body map[string]any) (sandbox, error) {
	var sb sandbox
	err := s.call(ctx, "POST", "/api/sandbox", body, &sb)
	return sb, err
}

func (s *server) remove(ctx context.Context, id string) error {
	return s.call(ctx, "DELETE", "/api/sandbox/"+id, nil, nil)
}

// true runs the cheapest command in a sandbox.
func (s *server) true(ctx context.Context, id string) error {
	var out struct {
		ExitCode int `json:"exitCode"`
	}
	err := s.call(ctx, "POST", "/toolbox/"+id+"/process/execute", map[string]any{"command": "true"}, &out)
	if err == nil && out.ExitCode != 0 {
		err = fmt.Errorf("true exited with %d", out.ExitCode)
	}
	return err
}

// warmReady reads how many pool members wait.
func (s *server) warmReady(ctx context.Context) (int, error) {
	var b bytes.Buffer
	if err := s.send(ctx, "GET", "/metrics", "text/plain", nil, &b); err != nil {
		return 0, err
	}
	n := 0
	for line := range strings.Lines(b.String()) {
		if strings.HasPrefix(line, "atoll_pool_ready") {
			var v float64
			if _, err := fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &v); err == nil {
				n += int(v)
			}
		}
	}
	return n, nil
}

// waitWarm waits until the pool holds at least n members.
func (s *server) waitWarm(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		have, err := s.warmReady(ctx)
		if err != nil || have >= n {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the warm pool holds %d of %d members after a minute", have, n)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }
