package proxy

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
)

// relay forwards a request that is not to be upgraded. It is what
// httputil.ReverseProxy does, for less: a small answer leaves in one write.
func (p *Proxy) relay(w http.ResponseWriter, r *http.Request, t target, transport http.RoundTripper) {
	body := Watch(r)
	defer body.Close() // a transport may still read it when the answer is over
	if r.ContentLength != 0 {
		_ = http.NewResponseController(w).EnableFullDuplex() // answers may begin before the body ends
	}
	res, err := transport.RoundTrip(outgoing(r, t, body))
	if err == nil {
		defer res.Body.Close()
		err = acceptable(res)
	}
	if err != nil {
		p.failed(w, r, body.blame(r.Context(), err))
		return
	}
	header := w.Header()
	gone := listed(res.Header)
	for name, values := range res.Header {
		if !hop(name) && !slices.Contains(gone, name) {
			header[name] = append(header[name], values...)
		}
	}
	w.WriteHeader(res.StatusCode)
	if err := transfer(w, res); err != nil {
		p.log.DebugContext(r.Context(), "an answer broke off", "error", err)
		panic(http.ErrAbortHandler) // the only way to tell the caller that the rest is missing
	}
	for name, values := range res.Trailer {
		if !slices.Contains(foreign(), name) {
			header[http.TrailerPrefix+name] = values
		}
	}
}

// outgoing is the request as the toolbox gets it.
func outgoing(r *http.Request, t target, body io.ReadCloser) *http.Request {
	out := r.WithContext(r.Context())
	out.Close = false
	out.URL = &url.URL{RawQuery: parsable(r.URL.RawQuery), ForceQuery: r.URL.ForceQuery}
	out.Header = make(http.Header, len(r.Header)+1)
	gone := listed(r.Header)
	for name, values := range r.Header {
		if !hop(name) && !forwarded(name) && !slices.Contains(gone, name) {
			out.Header[name] = values
		}
	}
	if httpguts.HeaderValuesContainsToken(r.Header["Te"], "trailers") {
		out.Header["Te"] = []string{"trailers"}
	}
	out.Body = body
	if r.ContentLength == 0 {
		out.Body = nil
	}
	rewrite(out, t)
	return out
}

// acceptable takes from an answer what could hurt its caller, or refuses it.
func acceptable(res *http.Response) error {
	if res.StatusCode == http.StatusSwitchingProtocols {
		return errors.New("the toolbox switches protocols without being asked")
	}
	return distrust(res)
}

// hop tells whether a header speaks of one connection alone.
func hop(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// forwarded tells whether a header says who called whom; a caller could say
// anything.
func forwarded(name string) bool {
	switch name {
	case "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto":
		return true
	}
	return false
}

// listed are the further headers that h itself declares to be of one
// connection.
func listed(h http.Header) []string {
	var names []string
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.TrimSpace(name); name != "" {
				names = append(names, http.CanonicalHeaderKey(name))
			}
		}
	}
	return names
}

// parsable drops the parts of a query that one reader could understand in
// another way than the next.
func parsable(query string) string {
	q, err := url.ParseQuery(query)
	if err != nil {
		return q.Encode()
	}
	return query
}

// small is the length up to which an answer is copied through a buffer of
// this process. Beyond, it may go from connection to connection.
const small = 64 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// transfer copies an answer's body.
func transfer(w http.ResponseWriter, res *http.Response) error {
	if res.ContentLength < 0 || res.ContentLength > small { // it may take long: the head goes now
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
	}
	if res.ContentLength > small {
		_, err := io.Copy(w, res.Body)
		return err
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for left := res.ContentLength; left != 0; { // below 0: until it ends
		n, err := res.Body.Read(*buf)
		left -= int64(n)
		if n > 0 {
			if _, werr := w.Write((*buf)[:n]); werr != nil {
				return werr
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case left != 0: // more comes later; this much goes now
			if err := http.NewResponseController(w).Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}
