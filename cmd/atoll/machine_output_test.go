package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// mcpSession is an agent of the older era, whose session outlives the server.
type mcpSession struct {
	m  *machine
	id string
	n  int
}

func (m *machine) session() *mcpSession {
	m.t.Helper()
	s := &mcpSession{m: m}
	s.ask("initialize", map[string]any{"protocolVersion": "2025-11-25", "capabilities": map[string]any{}, "clientInfo": map[string]any{"name": "t", "version": "1"}}, nil)
	return s
}

// ask sends a request and decodes its result.
func (s *mcpSession) ask(method string, params, result any) {
	s.m.t.Helper()
	s.n++
	body, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": s.n, "method": method, "params": params})
	if err != nil {
		s.m.t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, s.m.url+"/mcp", bytes.NewReader(body))
	if err != nil {
		s.m.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+machineKey)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	if s.id != "" {
		req.Header.Set("Mcp-Session-Id", s.id)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.m.t.Fatal(err)
	}
	defer res.Body.Close()
	if s.id == "" {
		s.id = res.Header.Get("Mcp-Session-Id")
	}
	var last string
	scan := bufio.NewScanner(res.Body)
	scan.Buffer(nil, 1<<22)
	for scan.Scan() {
		if line := strings.TrimPrefix(scan.Text(), "data: "); strings.HasPrefix(line, "{") {
			last = line
		}
	}
	var answer struct{ Result json.RawMessage }
	if err := json.Unmarshal([]byte(last), &answer); err != nil || answer.Result == nil {
		s.m.t.Fatalf("%s: %d %s, %v", method, res.StatusCode, last, err)
	}
	if result != nil {
		if err := json.Unmarshal(answer.Result, result); err != nil {
			s.m.t.Fatal(err)
		}
	}
}

// toolAnswer is what a tool says, with what it says to machines about a
// process.
type toolAnswer struct {
	Content []struct{ Text string }
	IsError bool
	Meta    struct {
		Process struct {
			Process  string
			Offset   int
			ExitCode *int
		} `json:"sh.atoll/process"`
	} `json:"_meta"`
}

func (s *mcpSession) call(tool string, args map[string]any) (a toolAnswer) {
	s.m.t.Helper()
	s.ask("tools/call", map[string]any{"name": tool, "arguments": args}, &a)
	if len(a.Content) != 1 || a.IsError {
		s.m.t.Fatalf("%s %v: got %+v", tool, args, a)
	}
	return a
}

// The output of a long command is read piece by piece over a server that is
// killed and started again in between, in the same session: every byte once.
func TestMachineOutputSurvivesTheServer(t *testing.T) {
	m := sharedMachine(t)
	sb := m.create(map[string]any{"name": "long"})
	agent := m.session()
	// 1.1 MB with characters of several bytes, half of it after the kill.
	const lines = 20000
	command := fmt.Sprintf(`line() { printf '%%06d zwölf Boxkämpfer jagen Viktor über den Deich ✓\n' $1; }
for ((i = 0; i < %[1]d / 2; i++)); do line $i; done
until [ -e /tmp/go ]; do sleep 0.05; done
for ((; i < %[1]d; i++)); do line $i; done; exit 7`, lines)
	var want strings.Builder
	for i := range lines {
		fmt.Fprintf(&want, "%06d zwölf Boxkämpfer jagen Viktor über den Deich ✓\n", i)
	}
	started := agent.call("sandbox_exec", map[string]any{"id": "long", "command": command, "background": true})
	process := started.Meta.Process.Process

	var got strings.Builder
	offset := 0
	read := func() (code *int, more bool) {
		t.Helper()
		a := agent.call("sandbox_process", map[string]any{"id": "long", "process": process, "offset": offset})
		if _, text, _ := strings.Cut(a.Content[0].Text, "\n"); a.Meta.Process.Offset > offset {
			got.WriteString(text)
		}
		more = a.Meta.Process.Offset > offset
		offset = a.Meta.Process.Offset
		return a.Meta.Process.ExitCode, more
	}
	for got.Len() < 300_000 {
		read()
	}
	m.kill()
	m.start()
	m.sh(sb.ID, "touch /tmp/go")
	code, more := read()
	for code == nil || more {
		code, more = read()
	}
	if *code != 7 {
		t.Errorf("exit %d, want 7", *code)
	}
	if got.String() != want.String() {
		at := 0
		for at < min(got.Len(), want.Len()) && got.String()[at] == want.String()[at] {
			at++
		}
		t.Errorf("got %d bytes, want %d; they differ at %d: %.80q", got.Len(), want.Len(), at, got.String()[at:])
	}
}
