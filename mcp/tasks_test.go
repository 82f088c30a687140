package mcp

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/mcp/mcptest"
	"github.com/atoll-sh/atoll/mcp/tasks"
	"github.com/atoll-sh/atoll/mcp/tools"
)

// taskAnswer is an answer about a task.
type taskAnswer struct {
	Result struct {
		ResultType, TaskID, Status string
		Result                     struct{ Content []struct{ Text string } }
		Content                    []struct{ Text string }
	}
	Error *struct{ Code int }
}

// tasked sends a request of a client that knows tasks.
func (a *agent) tasked(ctx context.Context, method string, params map[string]any) (got taskAnswer) {
	a.t.Helper()
	header := http.Header{}
	if id, ok := params["taskId"]; ok {
		header.Set("Mcp-Name", fmt.Sprint(id))
	}
	params["_meta"] = map[string]any{"io.modelcontextprotocol/clientCapabilities": map[string]any{"extensions": map[string]any{tasks.Extension: map[string]any{}}}}
	res := a.post(ctx, map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, header)
	if res == nil {
		return got
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
		a.t.Errorf("%s: status %d: %v", method, res.StatusCode, err)
	}
	return got
}

// until asks for a task until it has the status.
func (a *agent) until(id, status string) (got taskAnswer) {
	a.t.Helper()
	waitFor(a.t, func() bool {
		got = a.tasked(a.t.Context(), "tasks/get", map[string]any{"taskId": id})
		return got.Result.Status == status
	})
	return got
}

// A call that takes long becomes a task of its caller's, and of nobody else's.
func TestTasksBelongToTheirCaller(t *testing.T) {
	_, web := open(t, testTools(), Options{TaskGrace: 20 * time.Millisecond})
	mine, theirs := newAgent(t, web.URL+"/mcp", "mine", modern), newAgent(t, web.URL+"/mcp", "theirs", modern)
	made := mine.tasked(t.Context(), "tools/call", map[string]any{"name": "sleep", "arguments": map[string]any{"ms": 600_000}})
	id := made.Result.TaskID
	if made.Result.ResultType != "task" || id == "" || made.Result.Status != "working" {
		t.Fatalf("got %+v, want a task", made)
	}
	for _, method := range []string{"tasks/get", "tasks/cancel", "tasks/update"} {
		stolen := theirs.tasked(t.Context(), method, map[string]any{"taskId": id})
		absent := theirs.tasked(t.Context(), method, map[string]any{"taskId": "nothing"})
		if stolen.Error == nil || stolen.Error.Code != -32602 || absent.Error == nil || absent.Error.Code != stolen.Error.Code {
			t.Errorf("%s of another's task: got %+v, of none %+v", method, stolen, absent)
		}
	}
	if got := mine.tasked(t.Context(), "tasks/get", map[string]any{"taskId": id}); got.Result.Status != "working" {
		t.Errorf("after a stranger's attempts: %+v", got)
	}
	mine.tasked(t.Context(), "tasks/cancel", map[string]any{"taskId": id})
	mine.until(id, "cancelled")

	short := mine.tasked(t.Context(), "tools/call", map[string]any{"name": "sleep", "arguments": map[string]any{"ms": 1500}}) // far longer than the grace
	if got := mine.until(short.Result.TaskID, "completed"); len(got.Result.Result.Content) != 1 || got.Result.Result.Content[0].Text != "slept" {
		t.Errorf("got %+v, want the tool's answer", got)
	}
}

// Who does not know tasks waits; who knows them gets a fast answer at once.
func TestTasksAreForThoseWhoKnowThem(t *testing.T) {
	_, web := open(t, testTools(), Options{TaskGrace: 50 * time.Millisecond})
	for _, era := range []string{legacy, modern} {
		if got := newAgent(t, web.URL+"/mcp", "org", era).call("sleep", map[string]any{"ms": 200}, nil); got.text() != "slept" {
			t.Errorf("%s: got %+v", era, got)
		}
	}
	_, fast := open(t, testTools(), Options{})
	got := newAgent(t, fast.URL+"/mcp", "org", modern).tasked(t.Context(), "tools/call", map[string]any{"name": "sleep", "arguments": map[string]any{"ms": 1}})
	if got.Result.TaskID != "" || len(got.Result.Content) != 1 || got.Result.Content[0].Text != "slept" {
		t.Errorf("a fast call: got %+v", got)
	}
}

// Of one caller so many tasks are kept; what comes more is waited for.
func TestTasksAreBounded(t *testing.T) {
	_, web := open(t, testTools(), Options{TaskGrace: 5 * time.Millisecond})
	a := newAgent(t, web.URL+"/mcp", "org", modern)
	for i := range 200 {
		if got := a.tasked(t.Context(), "tools/call", map[string]any{"name": "sleep", "arguments": map[string]any{"ms": 600_000}}); got.Result.TaskID == "" {
			t.Fatalf("call %d: got %+v", i, got)
		}
	}
	if got := a.tasked(t.Context(), "tools/call", map[string]any{"name": "sleep", "arguments": map[string]any{"ms": 50}}); got.Result.TaskID != "" || len(got.Result.Content) != 1 {
		t.Errorf("one too many: got %+v, want the answer itself", got)
	}
	if got := newAgent(t, web.URL+"/mcp", "another", modern).tasked(t.Context(), "tools/call", map[string]any{"name": "sleep", "arguments": map[string]any{"ms": 600_000}}); got.Result.TaskID == "" {
		t.Errorf("another caller: got %+v", got)
	}
}

// Cancelling a task, or leaving before there is one, kills the command.
func TestCancelledTasksEndTheirCommand(t *testing.T) {
	for _, way := range []string{"cancel", "leave"} {
		t.Run(way, func(t *testing.T) {
			grace := 20 * time.Millisecond
			if way == "leave" {
				grace = time.Hour
			}
			b := mcptest.New(t)
			_, web := open(t, tools.New(b.Services(), tools.Options{}).Tools(), Options{TaskGrace: grace})
			a := newAgent(t, web.URL+"/mcp", "org", modern)
			a.call("sandbox_create", map[string]any{"name": "box"}, nil)
			file := filepath.Join(t.TempDir(), "pid")
			params := map[string]any{"name": "sandbox_exec", "arguments": map[string]any{
				"id": "box", "command": fmt.Sprintf("echo $BASHPID > %[1]s.tmp; mv %[1]s.tmp %[1]s; exec sleep 1000", file),
			}}
			started := func() bool { _, err := os.Stat(file); return err == nil }
			if way == "cancel" {
				made := a.tasked(t.Context(), "tools/call", params)
				waitFor(t, started)
				a.tasked(t.Context(), "tasks/cancel", map[string]any{"taskId": made.Result.TaskID})
			} else {
				ctx, cancel := context.WithCancel(t.Context())
				go a.tasked(ctx, "tools/call", params)
				waitFor(t, started)
				cancel()
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
			if err != nil {
				t.Fatal(err)
			}
			waitFor(t, func() bool { return ended(pid) })
		})
	}
}
