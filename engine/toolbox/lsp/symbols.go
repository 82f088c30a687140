package lsp

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/toolbox/files"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

const (
	// maxSymbols bounds an answer, maxDepth how deep symbols lie in another.
	maxSymbols = 20000
	maxDepth   = 64
	// maxSources and maxSearch bound a search through a project for a server
	// that cannot do it.
	maxSources = 10000
	maxHits    = 200
	maxSearch  = 15 * time.Second
)

// symbol is either shape that the protocol has for one.
type symbol struct {
	Name     string            `json:"name"`
	Kind     int               `json:"kind"`
	Location *wire.LspLocation `json:"location"`
	Range    wire.LspRange     `json:"range"`
	Children []symbol          `json:"children"`
}

// flatten lists symbols with those inside them.
func flatten(all []symbol, uri string, depth int, to []wire.LspSymbol) []wire.LspSymbol {
	for _, s := range all {
		if len(to) >= maxSymbols || depth > maxDepth {
			break
		}
		at := wire.LspLocation{URI: uri, Range: s.Range}
		if s.Location != nil {
			at = *s.Location
		}
		to = append(to, wire.LspSymbol{Name: s.Name, Kind: s.Kind, Location: at})
		to = flatten(s.Children, uri, depth+1, to)
	}
	return to
}

// documentSymbols lists what a file defines.
func (s *server) documentSymbols(ctx context.Context, f *files.FS, path string) ([]wire.LspSymbol, error) {
	var found []symbol
	uri := toURI(path)
	err := s.with(ctx, f, path, func() error {
		return s.conn.call(ctx, "textDocument/documentSymbol", map[string]any{"textDocument": map[string]any{"uri": uri}}, &found)
	})
	return flatten(found, uri, 0, []wire.LspSymbol{}), err
}

// workspaceSymbols lists what the project defines under names that hold query.
func (s *server) workspaceSymbols(ctx context.Context, f *files.FS, query string) ([]wire.LspSymbol, error) {
	if !s.symbols {
		return s.searchSymbols(ctx, f, query)
	}
	var found []symbol
	ask := func() error {
		return s.conn.call(ctx, "workspace/symbol", map[string]any{"query": query}, &found)
	}
	err := error(nil)
	if first := s.sources(ctx, "", 1); s.opened() == 0 && len(first) == 1 {
		err = s.with(ctx, f, first[0], ask) // the server knows a project by its open files
	} else {
		err = ask()
	}
	return flatten(found, "", 0, []wire.LspSymbol{}), err
}

// searchSymbols asks for the symbols of every file that holds the query.
func (s *server) searchSymbols(ctx context.Context, f *files.FS, query string) ([]wire.LspSymbol, error) {
	found := []wire.LspSymbol{}
	end := time.Now().Add(maxSearch)
	for _, path := range s.sources(ctx, query, maxHits) {
		if time.Now().After(end) || len(found) >= maxSymbols {
			break
		}
		in, err := s.documentSymbols(ctx, f, path)
		if !s.alive() || ctx.Err() != nil {
			return nil, err
		}
		for _, one := range in { // of a file that cannot be read there are none
			if strings.Contains(strings.ToLower(one.Name), strings.ToLower(query)) {
				found = append(found, one)
			}
		}
	}
	return found, nil
}

// sources lists up to most files of the language below the project that hold
// the query, whatever its case.
func (s *server) sources(ctx context.Context, query string, most int) []string {
	var found []string
	seen := 0
	_ = filepath.WalkDir(s.project, func(path string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil || len(found) >= most || seen >= maxSources:
			return filepath.SkipAll
		case err != nil:
			return nil //nolint:nilerr // what cannot be read is left out
		case d.IsDir() && path != s.project && skipped(d.Name()):
			return filepath.SkipDir
		case !d.Type().IsRegular() || !s.language.source(path):
			return nil
		}
		seen++
		if query == "" || holds(path, query) {
			found = append(found, path)
		}
		return nil
	})
	return found
}

// skipped names the directories that hold other people's sources.
func skipped(name string) bool {
	return strings.HasPrefix(name, ".") || slices.Contains([]string{"node_modules", "__pycache__", "venv", "site-packages"}, name)
}

func holds(path, query string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxDocument))
	return err == nil && bytes.Contains(bytes.ToLower(b), bytes.ToLower([]byte(query)))
}

// completions lists what may stand at a position.
func (s *server) completions(ctx context.Context, f *files.FS, path string, q wire.LspCompletions) (wire.LspCompletionList, error) {
	params := map[string]any{"textDocument": map[string]any{"uri": toURI(path)}, "position": q.Position}
	if q.Context != nil {
		params["context"] = q.Context
	}
	var raw json.RawMessage
	err := s.with(ctx, f, path, func() error { return s.conn.call(ctx, "textDocument/completion", params, &raw) })
	list := wire.LspCompletionList{Items: []wire.LspCompletionItem{}}
	if err != nil || len(raw) == 0 || string(raw) == "null" {
		return list, err
	}
	if raw[0] == '[' {
		err = json.Unmarshal(raw, &list.Items)
	} else {
		err = json.Unmarshal(raw, &list)
	}
	if list.Items == nil {
		list.Items = []wire.LspCompletionItem{}
	}
	return list, err
}
