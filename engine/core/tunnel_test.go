package core_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/atoll-sh/atoll/engine"
)

// echoTunnel is a toolbox that upgrades and then sends back each line.
func echoTunnel(w http.ResponseWriter, req *http.Request) {
	switch {
	case req.URL.Path != "/internal/tunnel":
		http.NotFound(w, req)
		return
	case req.URL.Query().Get("port") != "8000":
		w.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(w, `{"statusCode":502,"message":"<b>call 555-1234</b>","code":"BAD_GATEWAY"}`)
		return
	}
	conn, buf, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: atoll-tunnel\r\nConnection: Upgrade\r\n\r\n")
	for {
		line, err := buf.ReadString('\n')
		if err != nil {
			return
		}
		fmt.Fprint(conn, line)
	}
}

func TestDialPort(t *testing.T) {
	r, _ := newToolboxRig(t, echoTunnel)
	r.create("one")
	ctx, cancel := context.WithCancel(t.Context())
	conn, err := r.Toolboxes().DialPort(ctx, ref("one"), 8000)
	r.ok(err)
	cancel() // bounds the connecting only
	lines := bufio.NewReader(conn)
	_, err = io.WriteString(conn, "hello\n")
	r.ok(err)
	if got, err := lines.ReadString('\n'); got != "hello\n" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if !r.busy() {
		t.Error("an open connection is no activity")
	}
	r.ok(second(r.Sandboxes().Stop(t.Context(), ref("one"), engine.StopOptions{})))
	if _, err := lines.ReadString('\n'); err == nil {
		t.Error("the connection outlived the sandbox")
	}
	conn.Close()
	if r.busy() {
		t.Error("a closed connection is still activity")
	}
	_, err = r.Toolboxes().DialPort(t.Context(), ref("one"), 8000)
	wantKind(t, err, engine.KindConflict)
}

func TestDialPortWithoutActivity(t *testing.T) {
	r, _ := newToolboxRig(t, echoTunnel)
	sb := r.create("one")
	conn, err := r.Toolboxes().DialPort(engine.WithoutActivity(t.Context()), ref("one"), 8000)
	r.ok(err)
	defer conn.Close()
	got, err := r.Sandboxes().Sandbox(t.Context(), ref("one"))
	r.ok(err)
	if r.busy() || !got.LastActive.Equal(sb.LastActive) {
		t.Error("a quiet connection is activity")
	}
}

func TestDialPortRefusals(t *testing.T) {
	r, _ := newToolboxRig(t, echoTunnel)
	r.create("one")
	for port, want := range map[int]engine.Kind{81: engine.KindUnavailable, 0: engine.KindInvalid, 65536: engine.KindInvalid} {
		_, err := r.Toolboxes().DialPort(t.Context(), ref("one"), port)
		wantKind(t, err, want)
		if e := engine.AsError(err); port == 81 && e.Message != "nothing listens on port 81 of sandbox one" {
			t.Errorf("got %q, want our own words", e.Message)
		}
	}
	_, err := r.Toolboxes().DialPort(t.Context(), ref("nobody"), 80)
	wantKind(t, err, engine.KindNotFound)
	if r.busy() {
		t.Error("a refused connection is activity")
	}
}
