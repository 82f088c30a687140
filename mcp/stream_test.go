package mcp

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/mcp/mcptest"
	"github.com/atoll-sh/atoll/mcp/reqstream"
	"github.com/atoll-sh/atoll/mcp/tools"
)

// talker tells of each of its steps in two ways.
func talker() tools.Tool {
	return tools.Tool{
		Name: "talk", Set: tools.SetCore, Schema: `{"type":"object","properties":{"n":{"type":"integer"},"tag":{"type":"string"}}}`,
		Handler: func(ctx context.Context, a tools.Args) (tools.Result, error) {
			for i := range a.Int("n", 5) {
				step := fmt.Sprintf("%s%d", a.Str("tag"), i)
				a.Progress(step)
				if _, err := reqstream.Notify(ctx, "notifications/message", map[string]any{"level": "info", "data": step}); err != nil {
					return tools.Result{}, err
				}
			}
			return tools.Text("said"), nil
		},
	}
}

// heard names what a call of talk is told, in order.
func heard(tag string, n int) (want []string) {
	for i := range n {
		step := fmt.Sprintf("%s%d", tag, i)
		want = append(want, "progress "+step, "message "+step)
	}
	return append(want, "said")
}

// name says what a message is, as heard does.
func name(line []byte) string {
	var m struct {
		Method string
		Params struct {
			Message, Data string
			ProgressToken any
		}
		Result struct{ Content []struct{ Text string } }
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return string(line)
	}
	switch m.Method {
	case "notifications/progress":
		return "progress " + m.Params.Message
	case "notifications/message":
		return "message " + m.Params.Data
	case "":
		if len(m.Result.Content) == 1 {
			return m.Result.Content[0].Text
		}
	}
	return string(line)
}

// stream returns what a response holds, in order.
func stream(t *testing.T, res *http.Response) (got []string) {
	t.Helper()
	defer res.Body.Close()
	scan := bufio.NewScanner(res.Body)
	scan.Buffer(nil, 1<<22)
	for scan.Scan() {
		if data, ok := strings.CutPrefix(scan.Text(), "data: "); ok {
			got = append(got, name([]byte(data)))
		}
	}
	return got
}

// Whatever a call says is on its own stream, whole, in order, and before the
// answer. Strangers who use the same ids and tokens at the same time hear
// nothing of it.
func TestStreamsLoseAndMixNothing(t *testing.T) {
	_, web := open(t, []tools.Tool{talker()}, Options{})
	for _, era := range []string{legacy, modern} {
		t.Run(era, func(t *testing.T) {
			var wg sync.WaitGroup
			for _, who := range []string{"ann", "bob"} {
				for w := range 4 {
					a := newAgent(t, web.URL+"/mcp", who, era)
					wg.Go(func() {
						for i := range 20 {
							tag := fmt.Sprintf("%s-%d-%d-", who, w, i)
							res := a.post(t.Context(), map[string]any{"jsonrpc": "2.0", "id": i, "method": "tools/call", "params": map[string]any{
								"name": "talk", "arguments": map[string]any{"n": 5, "tag": tag}, "_meta": map[string]any{"progressToken": i},
							}}, nil)
							if d := cmp.Diff(heard(tag, 5), stream(t, res)); d != "" {
								t.Errorf("%s (-want +got):\n%s", tag, d)
							}
						}
					})
				}
			}
			wg.Wait()
		})
	}
}

// On one pipe the streams of parallel calls lie between each other, but each
// is whole, in order, and ends with its answer.
func TestStdioStreamsOfParallelCalls(t *testing.T) {
	p := dial(t, []tools.Tool{talker()})
	const calls = 100
	go func() {
		for i := range calls {
			_, _ = fmt.Fprintf(p.in, `{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"talk","arguments":{"n":5,"tag":"%d-"},"_meta":{"progressToken":%d}}}`+"\n", i, i, i)
		}
	}()
	got := map[string][]string{}
	for answered := 0; answered < calls; {
		if !p.out.Scan() {
			t.Fatalf("the stream ended: %v", p.out.Err())
		}
		var m struct{ ID *int }
		_ = json.Unmarshal(p.out.Bytes(), &m)
		what := name(p.out.Bytes())
		tag := ""
		if m.ID != nil {
			tag = fmt.Sprintf("%d-", *m.ID)
			answered++
		} else {
			_, step, _ := strings.Cut(what, " ")
			before, _, _ := strings.Cut(step, "-")
			tag = before + "-"
		}
		got[tag] = append(got[tag], what)
	}
	for i := range calls {
		tag := fmt.Sprintf("%d-", i)
		if d := cmp.Diff(heard(tag, 5), got[tag]); d != "" {
			t.Errorf("call %d (-want +got):\n%s", i, d)
		}
	}
}

// Streams that only listen are kept awake too.
func TestListeningStreamsAreKeptAlive(t *testing.T) {
	_, web := open(t, testTools(), Options{KeepAlive: 20 * time.Millisecond})
	old := newAgent(t, web.URL+"/mcp", "org", legacy)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	get, _ := http.NewRequestWithContext(ctx, http.MethodGet, web.URL+"/mcp", nil)
	get.Header.Set("Accept", "text/event-stream")
	get.Header.Set("Authorization", "Bearer org")
	get.Header.Set(sessionHeader, old.session)
	first, err := http.DefaultClient.Do(get)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Body.Close()
	second := newAgent(t, web.URL+"/mcp", "org", modern).post(ctx, map[string]any{"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": map[string]any{
		"notifications": map[string]any{"toolsListChanged": true},
	}}, nil)
	defer second.Body.Close()
	for what, res := range map[string]*http.Response{"GET": first, "listen": second} {
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d", what, res.StatusCode)
			continue
		}
		for r, comments := bufio.NewReader(res.Body), 0; comments < 3; {
			line, err := r.ReadString('\n')
			if err != nil {
				t.Errorf("%s: %v", what, err)
				break
			}
			if strings.HasPrefix(line, ":") {
				comments++
			}
		}
	}
}

// Nobody ends another's call, whatever form the attempt takes: not with another
// key, not in another session of the same key, not in the other era.
func TestCancellationStaysWithItsOwner(t *testing.T) {
	_, web := open(t, testTools(), Options{})
	for _, era := range []string{legacy, modern} {
		t.Run(era, func(t *testing.T) {
			victim := newAgent(t, web.URL+"/mcp", "victim", era)
			done := make(chan answer, 1)
			go func() { done <- victim.call("sleep", map[string]any{"ms": 500}, 1) }()

			cancelled := `"method":"notifications/cancelled","params":{"requestId":1`
			inBody := `,"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}`
			bodies := []string{
				`{"jsonrpc":"2.0",` + cancelled + `}}`,
				`{"jsonrpc":"2.0",` + cancelled + inBody + `}}`,
				`[{"jsonrpc":"2.0",` + cancelled + `}}]`,
				`{"jsonrpc":"2.0","method":"ping",` + cancelled + `}}`,
				`{"jsonrpc":"2.0","METHOD":"notifications/cancelled","params":{"requestId":1` + inBody + `}}`,
				`{"jsonrpc":"2.0","id":1,` + cancelled + inBody + `}}`,
				`{"jsonrpc":"2.0",` + strings.Replace(cancelled, "/cancelled", `\u002fcancelled`, 1) + inBody + `}}`,
			}
			for range 10 {
				for _, key := range []string{"stranger", "victim"} {
					another := newAgent(t, web.URL+"/mcp", key, legacy)
					for _, header := range []map[string]string{
						{sessionHeader: another.session},
						{sessionHeader: another.session, "Mcp-Protocol-Version": modern, "Mcp-Method": "notifications/cancelled"},
						{"Mcp-Protocol-Version": modern, "Mcp-Method": "notifications/cancelled"},
						{sessionHeader: victim.session + "x"},
						{},
					} {
						for _, body := range bodies {
							req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, web.URL+"/mcp", strings.NewReader(body))
							req.Header.Set("Content-Type", "application/json")
							req.Header.Set("Accept", "application/json, text/event-stream")
							req.Header.Set("Authorization", "Bearer "+key)
							for k, v := range header {
								req.Header.Set(k, v)
							}
							res, err := http.DefaultClient.Do(req)
							if err != nil {
								t.Fatal(err)
							}
							res.Body.Close()
						}
					}
				}
			}
			if got := <-done; got.text() != "slept" {
				t.Errorf("the victim's call ended with %+v, want slept", got)
			}
		})
	}
}

// A stranger's stream is not ended, and a stranger does not hear it.
func TestSubscriptionsStayWithTheirOwner(t *testing.T) {
	s, web := open(t, testTools(), Options{KeepAlive: 20 * time.Millisecond})
	listen := func(who string) *bufio.Reader {
		res := newAgent(t, web.URL+"/mcp", who, modern).post(t.Context(), map[string]any{"jsonrpc": "2.0", "id": 7, "method": "subscriptions/listen", "params": map[string]any{
			"notifications": map[string]any{"toolsListChanged": true},
		}}, nil)
		t.Cleanup(func() { res.Body.Close() })
		return bufio.NewReader(res.Body)
	}
	mine := listen("mine")
	for range 3 {
		stranger := newAgent(t, web.URL+"/mcp", "stranger", modern)
		res := stranger.post(t.Context(), map[string]any{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": map[string]any{"requestId": 7}}, nil)
		res.Body.Close()
		listen("stranger")
	}
	// What the server says to all still arrives.
	said := false
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline) && !said; {
		s.inner.SendNotificationToAllClients("notifications/tools/list_changed", nil)
		for range 6 {
			line, err := mine.ReadString('\n')
			if err != nil {
				t.Fatalf("the stream ended: %v", err)
			}
			said = said || strings.Contains(line, "notifications/tools/list_changed")
		}
	}
	if !said {
		t.Error("nothing was heard on the stream")
	}
}

// Cancelling a call kills the whole process group that it runs in the sandbox.
func TestCancellationReachesTheProcess(t *testing.T) {
	for _, way := range []string{"legacy", "modern", "stdio"} {
		t.Run(way, func(t *testing.T) {
			b := mcptest.New(t)
			kit := tools.New(b.Services(), tools.Options{})
			dir := t.TempDir()
			command := fmt.Sprintf(`sleep 1000 & echo $! > %[1]s/child; (echo $BASHPID > %[1]s/group.tmp; mv %[1]s/group.tmp %[1]s/group; exec sleep 1000)`, dir)
			started := func() bool { _, err := os.Stat(filepath.Join(dir, "group")); return err == nil }
			args := map[string]any{"id": "box", "command": command}
			switch way {
			case "stdio":
				p := dial(t, kit.Tools())
				p.send(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"sandbox_create","arguments":{"name":"box"}}}`)
				p.next()
				body, _ := json.Marshal(args)
				p.send(`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"sandbox_exec","arguments":%s}}`, body)
				waitFor(t, started)
				go p.out.Scan() // the answer to the call, if there is one
				p.send(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}`)
			default:
				era := map[string]string{"legacy": legacy, "modern": modern}[way]
				_, web := open(t, kit.Tools(), Options{})
				a := newAgent(t, web.URL+"/mcp", "org", era)
				a.call("sandbox_create", map[string]any{"name": "box"}, nil)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() {
					if res := a.post(ctx, map[string]any{"jsonrpc": "2.0", "id": 99, "method": "tools/call", "params": map[string]any{"name": "sandbox_exec", "arguments": args}}, nil); res != nil {
						res.Body.Close()
					}
				}()
				waitFor(t, started)
				if era == modern {
					cancel()
					break
				}
				res := a.post(t.Context(), map[string]any{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": map[string]any{"requestId": 99}}, nil)
				res.Body.Close()
			}
			for _, file := range []string{"child", "group"} {
				text, err := os.ReadFile(filepath.Join(dir, file))
				if err != nil {
					t.Fatal(err)
				}
				pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
				if err != nil {
					t.Fatal(err)
				}
				waitFor(t, func() bool { return ended(pid) })
			}
		})
	}
}

// ended tells whether a process is gone or waits to be reaped.
func ended(pid int) bool {
	if syscall.Kill(pid, 0) == syscall.ESRCH {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}
