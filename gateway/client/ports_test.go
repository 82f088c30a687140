package client_test

import (
	"bytes"
	"io"
	"net"
	"testing"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/gatewaytest"
)

func TestDialPortThroughTheServer(t *testing.T) {
	e := gatewaytest.New(t)
	c := gatewaytest.Client(t, gatewaytest.Serve(t, e))
	e.AddSandbox(engine.Sandbox{ID: "id-a", OrganizationID: engine.DefaultOrganization, Name: "a", State: engine.StateStarted})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		all, _ := io.ReadAll(conn)
		_, _ = conn.Write(bytes.ToUpper(all))
	}()
	conn, err := c.Toolboxes().DialPort(t.Context(), gatewaytest.Ref("a"), port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); string(got) != "HELLO" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	l.Close()
	_, err = c.Toolboxes().DialPort(t.Context(), gatewaytest.Ref("a"), port)
	if engine.KindOf(err) != engine.KindUnavailable {
		t.Errorf("a closed port: got %v, want unavailable", err)
	}
	_, err = c.Toolboxes().DialPort(t.Context(), gatewaytest.Ref("b"), port)
	if engine.KindOf(err) != engine.KindNotFound {
		t.Errorf("no sandbox: got %v, want not found", err)
	}
	_, err = e.Stop(t.Context(), gatewaytest.Ref("a"), engine.StopOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Toolboxes().DialPort(t.Context(), gatewaytest.Ref("a"), port)
	if engine.KindOf(err) != engine.KindConflict {
		t.Errorf("a stopped sandbox: got %v, want conflict", err)
	}
}
