package oidc

import (
	"bytes"
	"io"
	"net/http"
	"sync"
	"time"
)

// maxDocument bounds what is read of the provider's documents.
const maxDocument = 1 << 20

// paced asks for each document once in a while and gives the last answer to
// who asks in between: a token with an invented key id makes the library ask.
type paced struct {
	client *http.Client
	now    func() time.Time

	mu   sync.Mutex
	last map[string]answer
}

type answer struct {
	at     time.Time
	status int
	header http.Header
	body   []byte
	err    error
}

func newPaced(c *http.Client, now func() time.Time) *paced {
	return &paced{client: c, now: now, last: map[string]answer{}}
}

// RoundTrip implements http.RoundTripper for GET.
func (p *paced) RoundTrip(req *http.Request) (*http.Response, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	url := req.URL.String()
	a, ok := p.last[url]
	if !ok || p.now().Sub(a.at) >= pause {
		a = p.ask(req)
		a.at = p.now()
		p.last[url] = a
	}
	if a.err != nil {
		return nil, a.err
	}
	return &http.Response{
		StatusCode: a.status, Status: http.StatusText(a.status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.header.Clone(), Body: io.NopCloser(bytes.NewReader(a.body)), ContentLength: int64(len(a.body)), Request: req,
	}, nil
}

func (p *paced) ask(req *http.Request) (a answer) {
	res, err := p.client.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	a.status, a.header = res.StatusCode, res.Header
	a.body, a.err = io.ReadAll(io.LimitReader(res.Body, maxDocument))
	return a
}
