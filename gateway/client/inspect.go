package client

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

type inspector struct{ c *Client }

func (i inspector) Stats(ctx context.Context, ref engine.SandboxRef) (engine.Stats, error) {
	path, err := sandboxPath(ref, "/stats")
	if err != nil {
		return engine.Stats{}, err
	}
	var d wire.Stats
	if err := i.c.do(ctx, call{method: http.MethodGet, path: path, out: &d}); err != nil {
		return engine.Stats{}, err
	}
	return d.Stats(), nil
}

func (i inspector) Doctor(ctx context.Context) (engine.Report, error) {
	var d wire.Report
	err := i.c.do(ctx, call{method: http.MethodGet, path: "/api/doctor", out: &d})
	return d.Report(), err
}

type events struct{ c *Client }

// Watch returns once the server's stream is open. The channel closes with ctx
// or when the stream breaks.
func (e events) Watch(ctx context.Context, _ string) (<-chan engine.Event, error) {
	res, err := e.c.send(ctx, call{method: http.MethodGet, path: "/api/events"})
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		return nil, problem(res)
	}
	ch := make(chan engine.Event)
	go func() {
		defer close(ch)
		defer res.Body.Close()
		readEvents(ctx, res.Body, ch)
	}()
	return ch, nil
}

// maxEvent bounds one event of the stream.
const maxEvent = 4 << 20

func readEvents(ctx context.Context, r io.Reader, ch chan<- engine.Event) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var d wire.Event
		if json.Unmarshal([]byte(data), &d) != nil {
			return
		}
		select {
		case ch <- d.Event():
		case <-ctx.Done():
			return
		}
	}
}
