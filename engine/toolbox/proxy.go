package toolbox

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// newProxy forwards to a port of the sandbox, named by the request's host.
func newProxy() http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			for _, h := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if v := p.In.Header.Values(h); len(v) > 0 {
					p.Out.Header[h] = v
				}
			}
		},
		Transport: &http.Transport{
			DialContext:           dialLocal,
			DisableCompression:    true,
			MaxIdleConnsPerHost:   8,
			IdleConnTimeout:       30 * time.Second,
			ResponseHeaderTimeout: 0,
		},
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			msg := "the service on port " + r.URL.Port() + " broke off: " + err.Error()
			if errors.Is(err, syscall.ECONNREFUSED) {
				msg = "nothing listens on port " + r.URL.Port() + "; start the service first"
			}
			_ = writeJSON(w, http.StatusBadGateway, wire.ErrorResponse{
				StatusCode: http.StatusBadGateway, Message: msg, Code: wire.CodeBadGateway, Source: wire.Source,
				Timestamp: time.Now().UTC(), Path: r.URL.Path, Method: r.Method,
			})
		},
	}
}

// dialLocal connects over IPv4 and, where nothing listens there, over IPv6.
func dialLocal(ctx context.Context, network, addr string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
	if errors.Is(err, syscall.ECONNREFUSED) {
		if six, err6 := d.DialContext(ctx, network, net.JoinHostPort("::1", port)); err6 == nil {
			return six, nil
		}
	}
	return conn, err
}

func (t *Toolbox) proxyPort(w http.ResponseWriter, r *http.Request) error {
	port, err := parsePort(r.PathValue("port"))
	if err != nil {
		return err
	}
	out := r.Clone(r.Context())
	raw := strings.TrimPrefix(r.URL.EscapedPath(), "/proxy/"+r.PathValue("port"))
	out.URL = &url.URL{Scheme: "http", Host: "localhost:" + strconv.Itoa(port), Path: "/" + r.PathValue("path"), RawPath: raw, RawQuery: r.URL.RawQuery}
	out.Host = out.URL.Host
	t.proxy.ServeHTTP(w, out)
	return nil
}

func parsePort(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 65535 {
		return 0, wire.BadRequest("port: %.20q is not a port; use 1 to 65535", text)
	}
	return n, nil
}
