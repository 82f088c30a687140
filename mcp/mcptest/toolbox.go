package mcptest

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine/toolbox"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// Toolbox is the real toolbox, without a sandbox around it: commands run on
// this computer, in a temporary directory.
type Toolbox struct {
	Dir string // the work directory and home

	toolbox *toolbox.Toolbox
	server  *httptest.Server
}

// NewToolbox starts a toolbox.
func NewToolbox(t testing.TB) *Toolbox {
	b := &Toolbox{Dir: t.TempDir()}
	etc := t.TempDir()
	passwd := "root:x:0:0:root:" + b.Dir + ":/bin/bash\n"
	if err := os.WriteFile(filepath.Join(etc, "passwd"), []byte(passwd), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(etc, "group"), []byte("root:x:0:\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var err error
	b.toolbox, err = toolbox.New(toolbox.Config{
		Version: "test", WorkDir: b.Dir, StateDir: t.TempDir(), EtcDir: etc,
		Env: map[string]string{"PATH": os.Getenv("PATH")}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.server = httptest.NewServer(b.toolbox.Handler())
	return b
}

// Close ends what runs.
func (b *Toolbox) Close() {
	b.server.CloseClientConnections()
	b.server.Close()
	b.toolbox.Close(time.Second)
}

// RoundTrip sends r to the toolbox, whatever host it names.
func (b *Toolbox) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = "http", strings.TrimPrefix(b.server.URL, "http://")
	return http.DefaultTransport.RoundTrip(r)
}

func (b *Toolbox) sessions() []wire.Session {
	var all []wire.Session
	res, err := http.Get(b.server.URL + "/process/session")
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	_ = json.NewDecoder(res.Body).Decode(&all)
	return all
}

// Running counts the session commands that have not ended.
func (b *Toolbox) Running() int {
	n := 0
	for _, s := range b.sessions() {
		for _, c := range s.Commands {
			if c.ExitCode == nil {
				n++
			}
		}
	}
	return n
}

// Sessions lists the ids of the sessions that are kept.
func (b *Toolbox) Sessions() []string {
	var ids []string
	for _, s := range b.sessions() {
		ids = append(ids, s.SessionID)
	}
	return ids
}

// Handler serves the toolbox's API.
func (b *Toolbox) Handler() http.Handler { return b.toolbox.Handler() }

// Desktop lets the test binary be the worker that a toolbox runs its desktop
// in. A TestMain calls it first: without it a started desktop would run the
// tests again, which start a desktop.
func Desktop() {
	if os.Args[0] == toolbox.DesktopWorker {
		os.Exit(toolbox.DesktopMain())
	}
}
