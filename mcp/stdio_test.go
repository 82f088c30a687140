package mcp

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/mcp/mcptest"
	"github.com/atoll-sh/atoll/mcp/tools"
)

// pipe is a stdio client.
type pipe struct {
	t    *testing.T
	in   io.WriteCloser
	out  *bufio.Scanner
	done chan error
}

func dial(t *testing.T, list []tools.Tool) *pipe {
	t.Helper()
	s, err := newServer(list, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return dialServer(t, s)
}

func dialServer(t *testing.T, s *Server) *pipe {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	p := &pipe{t: t, in: inW, out: bufio.NewScanner(outR), done: make(chan error, 1)}
	p.out.Buffer(nil, 1<<22)
	go func() {
		err := s.ServeStdio(t.Context(), inR, outW)
		outW.Close()
		p.done <- err
	}()
	t.Cleanup(func() {
		inW.Close()
		go io.Copy(io.Discard, outR)
		if err := <-p.done; err != nil {
			t.Errorf("serve: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return p
}

func (p *pipe) send(format string, args ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pipe) next() (m answer) {
	p.t.Helper()
	if !p.out.Scan() {
		p.t.Fatalf("the stream ended: %v", p.out.Err())
	}
	if err := json.Unmarshal(p.out.Bytes(), &m); err != nil {
		p.t.Fatalf("not a message: %q", p.out.Text())
	}
	return m
}

func TestStdioProgressComesBeforeTheAnswer(t *testing.T) {
	p := dial(t, testTools())
	p.send(`{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
	p.next()
	p.send(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	for i := range 200 {
		tag := fmt.Sprintf("%d-", i)
		p.send(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"count","arguments":{"n":5,"tag":%q},"_meta":{"progressToken":%d}}}`, i+1, tag, i)
		var got []string
		m := p.next()
		for ; m.Method == "notifications/progress"; m = p.next() {
			got = append(got, m.Params.Message)
		}
		if d := cmp.Diff(wantProgress(tag, 5), got); d != "" || m.text() != "counted" {
			t.Fatalf("call %d: %q, progress (-want +got):\n%s", i, m.text(), d)
		}
	}
}

func TestStdioSpeaksTheNewEra(t *testing.T) {
	p := dial(t, testTools())
	p.send(`{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}`)
	if m := p.next(); len(m.Result.Tools) != 3 {
		t.Errorf("got %+v, want three tools", m)
	}
}

func TestStdioCancelPassesBusyCalls(t *testing.T) {
	p := dial(t, testTools())
	for i := range 80 { // more than run at once
		p.send(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"sleep","arguments":{"ms":600000}}}`, i+1)
	}
	seen := 0
	answered := map[float64]bool{}
	go func() {
		for {
			for i := range 80 {
				if _, err := fmt.Fprintf(p.in, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%d}}`+"\n", i+1); err != nil {
					return
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	for ; seen < 80; seen++ {
		answered[p.next().ID.(float64)] = true
	}
	if len(answered) != 80 {
		t.Errorf("%d calls ended, want 80", len(answered))
	}
}

func TestStdioAnswersBeforeItEnds(t *testing.T) {
	s, err := newServer(testTools(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var out strings.Builder
	in := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"sleep","arguments":{"ms":50}}}` + "\nnonsense\n"
	if err := s.ServeStdio(t.Context(), strings.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "slept") || !strings.Contains(out.String(), "-32700") {
		t.Errorf("got %q, want the answer and a parse error", out.String())
	}
}

func TestStdioEndsWithItsContext(t *testing.T) {
	s, err := newServer(testTools(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error)
	go func() { done <- s.ServeStdio(ctx, r, io.Discard) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	w.Close()
}

func TestStdioEndToEnd(t *testing.T) {
	b := mcptest.New(t)
	p := dial(t, tools.New(b.Services(), tools.Options{}).Tools())
	call := func(id int, tool, args string) answer {
		p.send(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":%q,"arguments":%s}}`, id, tool, args)
		return p.next()
	}
	if m := call(1, "sandbox_create", `{"name":"web"}`); m.Result.IsError {
		t.Fatal(m.text())
	}
	if m := call(2, "sandbox_exec", `{"id":"web","command":"echo $((6*7)); exit 3"}`); !strings.HasPrefix(m.text(), "exit 3 · ") || !strings.HasSuffix(m.text(), "\n42") {
		t.Errorf("got %q, want the exit code on the first line and 42", m.text())
	}
}
