package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"testing"

	"github.com/atoll-sh/atoll/gateway/gatewaytest"
)

func TestToolboxHintsStayInside(t *testing.T) {
	s := gatewaytest.Serve(t, gatewaytest.New(t))
	post(t, s.URL()+"/api/sandbox", `{"name":"a"}`)
	early := 0
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		Got1xxResponse: func(int, textproto.MIMEHeader) error { early++; return nil },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL()+"/toolbox/a/hints", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if early != 0 || res.StatusCode != http.StatusOK {
		t.Errorf("got %d informational answers and status %d, want none and 200", early, res.StatusCode)
	}
	for _, h := range []string{"Set-Cookie", "Refresh", "Link", "Nel", "Report-To", "Reporting-Endpoints"} {
		if v := res.Header.Get(h); v != "" {
			t.Errorf("header %s passed: %s", h, v)
		}
	}
}

// A caller's broken body is the caller's fault, not the toolbox's.
func TestBrokenBody(t *testing.T) {
	s := gatewaytest.Serve(t, gatewaytest.New(t))
	post(t, s.URL()+"/api/sandbox", `{"name":"a"}`)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /toolbox/a/echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", key)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got, want := res.StatusCode, http.StatusBadRequest; got != want {
		t.Errorf("got %d, want %d", got, want)
	}
}
