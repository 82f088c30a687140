package lsp

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine/toolbox/files"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

const (
	// maxDocument bounds a file that a server is told of.
	maxDocument = 4 << 20
	// maxDocuments bounds the files that are open in one server.
	maxDocuments = 256
)

// document is a file that the server has been told of.
type document struct {
	version int
	size    int64
	changed time.Time
}

// toURI turns an absolute path into a URI.
func toURI(path string) string { return (&url.URL{Scheme: "file", Path: path}).String() }

// pathOf takes the path out of a URI. Clients put two slashes before relative
// paths as well; a plain path is one too.
func pathOf(uri string) (string, error) {
	path, isURI := strings.CutPrefix(uri, "file://")
	if isURI {
		if p, err := url.PathUnescape(path); err == nil { // else it was not escaped
			path = p
		}
	} else if strings.Contains(uri, "://") {
		return "", wire.BadRequest("uri: %.100q is not a file; use file:// and a path", uri)
	}
	if path == "" || strings.IndexByte(path, 0) >= 0 {
		return "", wire.BadRequest("uri: %.100q holds no path; use file:// and a path", uri)
	}
	return path, nil
}

// text reads a file for a server.
func text(f *files.FS, path string) (string, document, error) {
	d, err := f.Open(path)
	if err != nil {
		return "", document{}, err
	}
	defer d.Close()
	if d.Size > maxDocument {
		return "", document{}, wire.BadRequest("uri: %.100s is larger than %d MiB, which language servers do not take", path, maxDocument>>20)
	}
	b, err := io.ReadAll(io.LimitReader(d, maxDocument))
	if err != nil {
		return "", document{}, wire.Errorf(http.StatusBadRequest, wire.CodeFileReadFailed, "%.100s: it cannot be read: %v", path, err)
	}
	return strings.ToValidUTF8(string(b), "\uFFFD"), document{version: 1, size: d.Size, changed: d.ModTime}, nil
}

// open tells the server of a file, or of what has changed in it. It reports
// whether the server did not know it before.
func (s *server) open(ctx context.Context, f *files.FS, path string) (fresh bool, err error) {
	content, now, err := text(f, path)
	if err != nil {
		return false, err
	}
	s.documentsMu.Lock()
	defer s.documentsMu.Unlock()
	uri := toURI(path)
	old := s.documents[path]
	switch {
	case old == nil && len(s.documents) >= maxDocuments:
		return false, wire.Errorf(http.StatusTooManyRequests, wire.CodeTooMany, "%d files of this project are open; close some first", maxDocuments)
	case old == nil:
		err = s.conn.notify(ctx, "textDocument/didOpen", map[string]any{"textDocument": map[string]any{
			"uri": uri, "languageId": s.language.documentID(path), "version": now.version, "text": content,
		}})
	case old.size == now.size && old.changed.Equal(now.changed):
		return false, nil
	default:
		now.version = old.version + 1
		err = s.conn.notify(ctx, "textDocument/didChange", map[string]any{
			"textDocument":   map[string]any{"uri": uri, "version": now.version},
			"contentChanges": []any{map[string]any{"text": content}},
		})
	}
	if err == nil {
		s.documents[path] = &now
	}
	return old == nil, err
}

// close tells the server that a file is its own again. One that was not open
// stays so.
func (s *server) close(ctx context.Context, path string) error {
	s.documentsMu.Lock()
	defer s.documentsMu.Unlock()
	if s.documents[path] == nil {
		return nil
	}
	delete(s.documents, path)
	return s.conn.notify(ctx, "textDocument/didClose", map[string]any{"textDocument": map[string]any{"uri": toURI(path)}})
}

// with runs do while the server knows the file as it is now. A file that the
// caller has not opened is closed again.
func (s *server) with(ctx context.Context, f *files.FS, path string, do func() error) error {
	fresh, err := s.open(ctx, f, path)
	if err != nil {
		return err
	}
	if fresh {
		defer s.close(context.WithoutCancel(ctx), path) //nolint:errcheck // the server may have ended
	}
	return do()
}

// opened counts the open files.
func (s *server) opened() int {
	s.documentsMu.Lock()
	defer s.documentsMu.Unlock()
	return len(s.documents)
}
