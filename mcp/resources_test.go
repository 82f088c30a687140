package mcp

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	mcpgo "github.com/mark3labs/mcp-go/mcp"

	"github.com/atoll-sh/atoll/mcp/tools"
)

// reply is the answer to a request about resources, prompts or completion.
type reply struct {
	Result struct {
		Resources         []struct{ URI, Name string }
		ResourceTemplates []struct{ URITemplate string }
		Contents          []struct{ URI, MimeType, Text, Blob string }
		Completion        struct{ Values []string }
		Prompts           []struct {
			Name, Title, Description string
			Arguments                []struct {
				Name     string
				Required bool
			}
		}
		Messages []struct{ Content struct{ Text string } }
		TTLMs    *int `json:"ttlMs"`
	}
	Error *struct {
		Code    int
		Message string
	}
	Method string
	Params struct {
		URI  string         `json:"uri"`
		Meta map[string]any `json:"_meta"`
	}
}

func (a *agent) ask(method string, params map[string]any) reply {
	a.t.Helper()
	header := http.Header{}
	for _, key := range []string{"uri", "name"} {
		if v, ok := params[key].(string); ok && a.era == modern {
			header.Set("Mcp-Name", v)
		}
	}
	res := a.post(a.t.Context(), map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, header)
	defer res.Body.Close()
	var r reply
	body := bufio.NewScanner(res.Body)
	body.Buffer(nil, 8<<20)
	for body.Scan() {
		line, _ := strings.CutPrefix(body.Text(), "data: ")
		if strings.HasPrefix(line, "{") {
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				a.t.Fatalf("%s: %v: %s", method, err, line)
			}
		}
	}
	return r
}

func (a *agent) must(tool string, args map[string]any) string {
	a.t.Helper()
	got := a.call(tool, args, nil)
	if got.Result.IsError || got.Error != nil {
		a.t.Fatalf("%s: %+v", tool, got)
	}
	return got.text()
}

func TestResources(t *testing.T) {
	_, backend, url := openAll(t, Options{})
	for _, era := range []string{legacy, modern} {
		t.Run(era, func(t *testing.T) {
			a, stranger := newAgent(t, url, "org-"+era, era), newAgent(t, url, "stranger", era)
			box := "box-" + era
			a.must("sandbox_create", map[string]any{"name": box})
			dir := backend.Box(box).Dir
			a.must("sandbox_write", map[string]any{"id": box, "path": "a b.txt", "content": "hello\n"})
			a.must("sandbox_write", map[string]any{"id": box, "path": "x.bin", "content": "AAEC/w==", "encoding": "base64"})
			started := a.must("sandbox_exec", map[string]any{"id": box, "command": "echo ready; sleep 1000", "background": true})
			process := strings.Fields(started)[2]

			listed := func(a *agent) (boxes []string) {
				t.Helper()
				got := a.ask("resources/list", nil)
				if got.Error != nil {
					t.Errorf("resources: %+v", got.Error)
				}
				for _, r := range got.Result.Resources {
					if !strings.HasPrefix(r.URI, skillScheme) {
						boxes = append(boxes, r.URI)
					}
				}
				return boxes
			}
			if got := listed(a); !slices.Equal(got, []string{"sandbox://" + box + "/"}) {
				t.Errorf("resources: %v, want the sandbox", got)
			}
			if got := listed(stranger); len(got) != 0 {
				t.Errorf("a stranger's resources: %v, want none", got)
			}
			skill := skillScheme + "atoll-sandbox/SKILL.md"
			if got := stranger.ask("resources/read", map[string]any{"uri": skill}); len(got.Result.Contents) != 1 || !strings.Contains(got.Result.Contents[0].Text, "sandbox_exec") {
				t.Errorf("skill: %+v", got)
			}
			if got := a.ask("resources/templates/list", nil); len(got.Result.ResourceTemplates) != 2 {
				t.Errorf("templates: %+v", got)
			}
			uri := fmt.Sprintf("sandbox://%s%s/a%%20b.txt", box, dir)
			got := a.ask("resources/read", map[string]any{"uri": uri})
			if len(got.Result.Contents) != 1 || got.Result.Contents[0].Text != "hello\n" || got.Result.Contents[0].URI != uri {
				t.Errorf("file: %+v", got)
			}
			if era == modern && (got.Result.TTLMs == nil || *got.Result.TTLMs != 0) {
				t.Errorf("a file may be kept for %v ms, want 0", got.Result.TTLMs)
			}
			got = a.ask("resources/read", map[string]any{"uri": fmt.Sprintf("sandbox://%s%s/x.bin", box, dir)})
			if len(got.Result.Contents) != 1 || got.Result.Contents[0].Blob != "AAEC/w==" {
				t.Errorf("binary file: %+v", got)
			}
			got = a.ask("resources/read", map[string]any{"uri": "sandbox://" + box + dir})
			if len(got.Result.Contents) != 1 || !strings.Contains(got.Result.Contents[0].Text, uri) {
				t.Errorf("directory: %+v, want %s in it", got, uri)
			}
			waitFor(t, func() bool {
				got = a.ask("resources/read", map[string]any{"uri": "sandbox://" + box + "/logs/" + process})
				return len(got.Result.Contents) == 1 && strings.Contains(got.Result.Contents[0].Text, "ready\n")
			})

			code := map[string]int{legacy: -32002, modern: -32602}[era]
			for _, bad := range []string{"sandbox://" + box + "/none", "sandbox://nope/x", "sandbox://" + box + "/logs/p-none", "nonsense://x/y"} {
				if got := a.ask("resources/read", map[string]any{"uri": bad}); got.Error == nil || got.Error.Code != code {
					t.Errorf("%s: %+v, want error %d", bad, got, code)
				}
			}
			mine, none := stranger.ask("resources/read", map[string]any{"uri": uri}), stranger.ask("resources/read", map[string]any{"uri": strings.ReplaceAll(uri, box, "nope")})
			if mine.Error == nil || none.Error == nil || mine.Error.Code != code || strings.ReplaceAll(none.Error.Message, "nope", box) != mine.Error.Message {
				t.Errorf("another's file: %+v, want the answer about none: %+v", mine.Error, none.Error)
			}

			complete := func(a *agent, ref map[string]any, name, value string, known map[string]any) []string {
				t.Helper()
				got := a.ask("completion/complete", map[string]any{"ref": ref, "argument": map[string]any{"name": name, "value": value}, "context": map[string]any{"arguments": known}})
				if got.Error != nil {
					t.Errorf("complete %s: %+v", name, got.Error)
				}
				return got.Result.Completion.Values
			}
			file := map[string]any{"type": "ref/resource", "uri": tools.FileTemplate}
			if got := complete(a, file, "id", "box", nil); !slices.Equal(got, []string{box}) {
				t.Errorf("ids: %v", got)
			}
			typed := strings.TrimPrefix(dir, "/") + "/a"
			if got := complete(a, file, "path", typed, map[string]any{"id": box}); !slices.Equal(got, []string{typed + " b.txt"}) {
				t.Errorf("paths: %v", got)
			}
			if got := complete(a, map[string]any{"type": "ref/resource", "uri": tools.LogTemplate}, "process", "p-", map[string]any{"id": box}); !slices.Equal(got, []string{process}) {
				t.Errorf("processes: %v", got)
			}
			for _, name := range []string{"id", "path", "process"} {
				if got := complete(stranger, file, name, "", map[string]any{"id": box}); len(got) != 0 {
					t.Errorf("a stranger is offered %v", got)
				}
			}
			a.must("sandbox_snapshot", map[string]any{"id": box, "name": "saved"})
			if got := complete(a, map[string]any{"type": "ref/prompt", "name": "bisect"}, "snapshot", "s", nil); !slices.Contains(got, "saved") {
				t.Errorf("snapshots: %v", got)
			}
		})
	}
}

// updates reads frames until one tells of the URI.
func updates(t *testing.T, res *http.Response, uri string, change func()) (frame reply) {
	t.Helper()
	frames := make(chan reply)
	go func() {
		defer close(frames)
		scan := bufio.NewScanner(res.Body)
		scan.Buffer(nil, 1<<20)
		for scan.Scan() {
			var r reply
			if data, ok := strings.CutPrefix(scan.Text(), "data: "); ok && json.Unmarshal([]byte(data), &r) == nil {
				select {
				case frames <- r:
				case <-t.Context().Done():
					return
				}
			}
		}
	}()
	waitFor(t, func() bool {
		change()
		select {
		case frame = <-frames:
			return frame.Method == string(mcpgo.MethodNotificationResourceUpdated) && frame.Params.URI == uri
		default:
			return false
		}
	})
	return frame
}

func TestSubscriptions(t *testing.T) {
	_, backend, url := openAll(t, Options{})
	for _, era := range []string{legacy, modern} {
		t.Run(era, func(t *testing.T) {
			a := newAgent(t, url, "org-"+era, era)
			box := "box-" + era
			a.must("sandbox_create", map[string]any{"name": box})
			uri := fmt.Sprintf("sandbox://%s%s/f", box, backend.Box(box).Dir)
			var res *http.Response
			if era == legacy {
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
				req.Header.Set("Accept", "text/event-stream")
				req.Header.Set("Authorization", "Bearer "+a.key)
				req.Header.Set(sessionHeader, a.session)
				var err error
				if res, err = http.DefaultClient.Do(req); err != nil {
					t.Fatal(err)
				}
				if got := a.ask("resources/subscribe", map[string]any{"uri": uri}); got.Error != nil {
					t.Fatalf("subscribe: %+v", got.Error)
				}
			} else {
				res = a.post(t.Context(), map[string]any{"jsonrpc": "2.0", "id": "s1", "method": "subscriptions/listen", "params": map[string]any{
					"notifications": map[string]any{"resourceSubscriptions": []string{uri}},
				}}, nil)
			}
			defer res.Body.Close()
			n := 0
			frame := updates(t, res, uri, func() {
				n++
				a.must("sandbox_write", map[string]any{"id": box, "path": "f", "content": strings.Repeat("x", n)})
			})
			if era == modern && frame.Params.Meta["io.modelcontextprotocol/subscriptionId"] != "s1" {
				t.Errorf("the update has %v, want the id of the subscription", frame.Params.Meta)
			}
			if era == legacy {
				if got := a.ask("resources/unsubscribe", map[string]any{"uri": uri}); got.Error != nil {
					t.Errorf("unsubscribe: %+v", got.Error)
				}
			}
		})
	}
}

func TestPrompts(t *testing.T) {
	_, _, url := openAll(t, Options{})
	for _, era := range []string{legacy, modern} {
		a := newAgent(t, url, "org", era)
		list := a.ask("prompts/list", nil).Result.Prompts
		if len(list) != 4 {
			t.Fatalf("%s: %d prompts, want 4", era, len(list))
		}
		for _, p := range list {
			args := map[string]any{}
			for _, arg := range p.Arguments {
				args[arg.Name] = "THE-" + arg.Name
			}
			text := a.ask("prompts/get", map[string]any{"name": p.Name, "arguments": args}).Result.Messages[0].Content.Text
			for name := range args {
				if !strings.Contains(text, "THE-"+name) {
					t.Errorf("%s of %s is not in %q", name, p.Name, text)
				}
			}
			empty := a.ask("prompts/get", map[string]any{"name": p.Name}).Result.Messages[0].Content.Text
			if strings.ContainsAny(empty, "{}") || !strings.Contains(empty, "ask your user") {
				t.Errorf("%s without arguments: %q", p.Name, empty)
			}
			if p.Title == "" || p.Description == "" {
				t.Errorf("%s lacks title or description", p.Name)
			}
		}
	}
}
