package gateway_test

import (
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/atoll-sh/atoll/gateway"
	"github.com/atoll-sh/atoll/gateway/gatewaytest"
)

func dialEvents(t *testing.T, s *gateway.Server, token string) (*websocket.Conn, string) {
	t.Helper()
	ws, _, err := websocket.Dial(t.Context(), s.URL()+"/api/socket.io/?source=x&EIO=4&transport=websocket", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.CloseNow() })
	if _, _, err := ws.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := ws.Write(t.Context(), websocket.MessageText, []byte(`40{"token":"`+token+`"}`)); err != nil {
		t.Fatal(err)
	}
	return ws, frame(t, ws)
}

func frame(t *testing.T, ws *websocket.Conn) string {
	t.Helper()
	_, b, err := ws.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestSocketTellsOfSandboxes(t *testing.T) {
	s := gatewaytest.Serve(t, gatewaytest.New(t))
	ws, hello := dialEvents(t, s, key)
	if !strings.HasPrefix(hello, `40{"sid":"`) {
		t.Fatalf("got %s, want a connect packet", hello)
	}
	post(t, s.URL()+"/api/sandbox", `{"name":"a"}`)
	post(t, s.URL()+"/api/sandbox/a/stop", "")
	created, stopped := frame(t, ws), frame(t, ws)
	if !strings.HasPrefix(created, `42["sandbox.created",{"id":"`) || !strings.Contains(created, `"toolboxProxyUrl":"`+s.URL()+`/toolbox"`) {
		t.Errorf("created: %s", created)
	}
	if !strings.HasPrefix(stopped, `42["sandbox.state.updated",{"sandbox":{"id":"`) || !strings.HasSuffix(stopped, `"oldState":"started","newState":"stopped"}]`) {
		t.Errorf("stopped: %s", stopped)
	}
}

func TestSocketCountsBadTokens(t *testing.T) {
	s := gatewaytest.Serve(t, gatewaytest.New(t))
	var last string
	for range 40 {
		var ws *websocket.Conn
		ws, last = dialEvents(t, s, "wrong")
		ws.CloseNow()
	}
	if want := `44{"message":"too many requests without a valid API key"}`; last != want {
		t.Errorf("after many failures: got %s, want %s", last, want)
	}
	if _, hello := dialEvents(t, s, key); !strings.HasPrefix(hello, `40{"sid":"`) {
		t.Errorf("a good key after many failures: got %s", hello)
	}
}
