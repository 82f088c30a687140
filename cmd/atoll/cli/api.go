package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

// toolboxCall sends one request to a toolbox. The caller closes the body. An
// answer that is no success becomes an error.
func toolboxCall(ctx context.Context, rt http.RoundTripper, method, path string, query url.Values, body io.Reader) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "toolbox", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("make a request for %s: %w", path, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	res, err := rt.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode >= 300 {
		defer res.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
		return nil, wire.ParseProblem(res.StatusCode, text)
	}
	return res, nil
}

// toolboxGet reads a JSON answer into out.
func toolboxGet(ctx context.Context, rt http.RoundTripper, path string, query url.Values, out any) error {
	res, err := toolboxCall(ctx, rt, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return fmt.Errorf("read the answer of %s: %w", path, err)
	}
	return nil
}

// fileInfo is what cp needs to know of a file in a sandbox.
type fileInfo struct {
	IsDir bool  `json:"isDir"`
	Size  int64 `json:"size"`
}

// stat returns nil for a file that is not there.
func stat(ctx context.Context, rt http.RoundTripper, path string) (*fileInfo, error) {
	var fi fileInfo
	err := toolboxGet(ctx, rt, "/files/info", url.Values{"path": {path}}, &fi)
	var e *engine.Error
	if errors.As(err, &e) && e.Kind == engine.KindNotFound && e.Code == "FILE_NOT_FOUND" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &fi, nil
}
