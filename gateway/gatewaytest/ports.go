package gatewaytest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"

	"github.com/atoll-sh/atoll/engine"
	toolbox "github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// DialPort implements engine.Toolboxes. Ports are this computer's, unless
// Ports tells of another address.
func (e *Engine) DialPort(ctx context.Context, ref engine.SandboxRef, port int) (net.Conn, error) {
	s, err := e.started(ctx, ref)
	if err != nil {
		return nil, err
	}
	addr := local(port)
	if e.Ports != nil {
		addr = e.Ports(s.ID, port)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, engine.Errorf(engine.KindUnavailable, "nothing listens on port %d of sandbox %s", port, s.Name).
			WithHint("start the service first").Wrap(err)
	}
	return conn, nil
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// tunnel serves /internal/tunnel with the ports of this computer.
func tunnel(w http.ResponseWriter, r *http.Request) {
	port, _ := strconv.Atoi(r.URL.Query().Get("port"))
	inner, err := net.Dial("tcp", local(port))
	if err != nil {
		problem(w, http.StatusBadGateway, toolbox.CodeBadGateway, errors.New("nothing listens on port "+strconv.Itoa(port)))
		return
	}
	defer inner.Close()
	outer, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer outer.Close()
	_, _ = io.WriteString(outer, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+toolbox.TunnelProtocol+"\r\n\r\n")
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(inner, outer)
		_ = inner.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(outer, inner)
	_ = outer.(*net.TCPConn).CloseWrite()
	<-done
}
