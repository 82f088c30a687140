package toolbox

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// upper answers all that it is sent in capitals, once the sender has ended.
func upper(t *testing.T, addr string) int {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				all, _ := io.ReadAll(conn)
				_, _ = conn.Write(bytes.ToUpper(all))
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func TestTunnelCopiesBothWaysAndHalfCloses(t *testing.T) {
	b := open(t)
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		conn, err := b.Tunnel(t.Context(), upper(t, addr), false)
		if err != nil {
			t.Fatalf("%s: %v", addr, err)
		}
		text := strings.Repeat("word ", 1<<18)
		go func() {
			_, _ = io.WriteString(conn, text)
			_ = conn.(interface{ CloseWrite() error }).CloseWrite()
		}()
		got, err := io.ReadAll(conn)
		if err != nil || string(got) != strings.ToUpper(text) {
			t.Errorf("%s: got %d bytes, %v, want %d in capitals", addr, len(got), err, len(text))
		}
		conn.Close()
	}
}

func TestTunnelCountsAsActivityUnlessQuiet(t *testing.T) {
	b := open(t)
	port := upper(t, "127.0.0.1:0")
	for _, quiet := range []bool{true, false} {
		conn, err := b.Tunnel(t.Context(), port, quiet)
		if err != nil {
			t.Fatal(err)
		}
		busy, _ := b.tb.activity.now()
		if (busy == 1) == quiet {
			t.Errorf("quiet %t: %d are busy", quiet, busy)
		}
		conn.Close()
		eventually(t, "the tunnel's end", func() bool { busy, _ := b.tb.activity.now(); return busy == 0 && b.tb.tunnels.Load() == 0 })
	}
}

func TestTunnelsThatAreRefused(t *testing.T) {
	b := open(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, err = b.Tunnel(t.Context(), l.Addr().(*net.TCPAddr).Port, false)
	wantError(t, err, http.StatusBadGateway, wire.CodeBadGateway, "nothing listens on port")
	for _, port := range []int{0, -1, 65536} {
		_, err := b.Tunnel(t.Context(), port, false)
		wantError(t, err, http.StatusBadRequest, wire.CodeBadRequest, "is not a port")
	}
	if code, _, body := b.send("GET", "/internal/tunnel?port=80", nil); code != http.StatusBadRequest || !strings.Contains(body, "Upgrade") {
		t.Errorf("without an upgrade got %d %s", code, body)
	}
	if n := b.tb.tunnels.Load(); n != 0 {
		t.Errorf("%d tunnels are open", n)
	}
}

func TestTunnelsAreBounded(t *testing.T) {
	b := open(t)
	b.tb.tunnels.Store(maxTunnels)
	_, err := b.Tunnel(t.Context(), upper(t, "127.0.0.1:0"), false)
	wantError(t, err, http.StatusTooManyRequests, wire.CodeTooMany, "close some")
}

func TestTunnelsEndWithTheToolbox(t *testing.T) {
	b := open(t)
	conn, err := b.Tunnel(t.Context(), upper(t, "127.0.0.1:0"), false)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b.tb.Close(time.Second)
	if n, err := conn.Read(make([]byte, 1)); err == nil || n > 0 {
		t.Errorf("read %d, %v of a tunnel whose toolbox is gone", n, err)
	}
}

func TestTunnelEndsWhenTheServiceBreaks(t *testing.T) {
	b := open(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := b.Tunnel(t.Context(), l.Addr().(*net.TCPAddr).Port, false)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	service, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "half a request"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(service, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	_ = service.(*net.TCPConn).SetLinger(0)
	service.Close() // with a reset
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("got bytes of a broken service")
	}
	eventually(t, "the tunnel's end", func() bool { return b.tb.tunnels.Load() == 0 })
}
