package client

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

func path(p string) url.Values { return url.Values{"path": {p}} }

// List describes the entries of a directory, to the given depth; 0 is 1.
func (c *Client) List(ctx context.Context, dir string, depth int) ([]wire.FileInfo, error) {
	q := path(dir)
	if depth > 0 {
		q.Set("depth", strconv.Itoa(depth))
	}
	var out []wire.FileInfo
	_, err := c.call(ctx, http.MethodGet, "/files", q, nil, &out)
	return out, err
}

// Info describes a file.
func (c *Client) Info(ctx context.Context, file string) (wire.FileInfo, error) {
	var out wire.FileInfo
	_, err := c.call(ctx, http.MethodGet, "/files/info", path(file), nil, &out)
	return out, err
}

// Upload writes a file from r.
func (c *Client) Upload(ctx context.Context, file string, r io.Reader) error {
	res, err := c.do(ctx, http.MethodPost, "/files/upload-v2", path(file), r, "application/octet-stream")
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20))
	return res.Body.Close()
}

// Download opens a file for reading; its size is -1 when unknown.
func (c *Client) Download(ctx context.Context, file string) (io.ReadCloser, int64, error) {
	res, err := c.do(ctx, http.MethodGet, "/files/download", path(file), nil, "")
	if err != nil {
		return nil, 0, err
	}
	return res.Body, res.ContentLength, nil
}

// Mkdir makes a directory with its parents; an empty mode is 0755.
func (c *Client) Mkdir(ctx context.Context, dir, mode string) error {
	q := path(dir)
	q.Set("mode", mode)
	_, err := c.call(ctx, http.MethodPost, "/files/folder", q, nil, nil)
	return err
}

// Move renames and never replaces.
func (c *Client) Move(ctx context.Context, from, to string) error {
	_, err := c.call(ctx, http.MethodPost, "/files/move", url.Values{"source": {from}, "destination": {to}}, nil, nil)
	return err
}

// Delete removes a file, or with recursive a directory.
func (c *Client) Delete(ctx context.Context, file string, recursive bool) error {
	q := path(file)
	q.Set("recursive", strconv.FormatBool(recursive))
	_, err := c.call(ctx, http.MethodDelete, "/files", q, nil, nil)
	return err
}

// Find returns the lines below root that hold pattern.
func (c *Client) Find(ctx context.Context, root, pattern string) ([]wire.Match, error) {
	q := path(root)
	q.Set("pattern", pattern)
	var out []wire.Match
	_, err := c.call(ctx, http.MethodGet, "/files/find", q, nil, &out)
	return out, err
}

// Search returns the paths below root whose name matches a glob.
func (c *Client) Search(ctx context.Context, root, pattern string) ([]string, error) {
	q := path(root)
	q.Set("pattern", pattern)
	var out wire.FileList
	_, err := c.call(ctx, http.MethodGet, "/files/search", q, nil, &out)
	return out.Files, err
}

// Replace replaces text in files.
func (c *Client) Replace(ctx context.Context, q wire.ReplaceRequest) ([]wire.ReplaceResult, error) {
	var out []wire.ReplaceResult
	_, err := c.call(ctx, http.MethodPost, "/files/replace", nil, q, &out)
	return out, err
}

// Permissions changes owner, group and mode; empty ones stay.
func (c *Client) Permissions(ctx context.Context, file, owner, group, mode string) error {
	q := path(file)
	for k, v := range map[string]string{"owner": owner, "group": group, "mode": mode} {
		if v != "" {
			q.Set(k, v)
		}
	}
	_, err := c.call(ctx, http.MethodPost, "/files/permissions", q, nil, nil)
	return err
}
