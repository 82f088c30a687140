package lsp

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// language is what a language server needs to be told.
type language struct {
	id       string
	argv     []string
	install  string // how to get the program
	env      map[string]string
	options  any               // of its initialization
	files    []string          // endings of its sources
	dialects map[string]string // by ending, where a file is not of the language itself
}

// nodeMemory bounds the heap of each of the two processes of the TypeScript
// server, in MiB. Python has no such setting; there the limit is on the
// process's address space.
const (
	nodeMemory   = 1024
	pythonMemory = 2 << 30
)

var (
	python = language{ // constant
		id:      "python",
		argv:    []string{"pylsp"},
		install: "install the package python3-pylsp with apt-get, or python-lsp-server with pip",
		files:   []string{".py", ".pyi"},
	}
	typescript = language{ // constant
		id:      "typescript",
		argv:    []string{"typescript-language-server", "--stdio"},
		install: "install it with npm install -g typescript typescript-language-server",
		env:     map[string]string{"NODE_OPTIONS": "--max-old-space-size=" + strconv.Itoa(nodeMemory)},
		options: map[string]any{
			"hostInfo":                          "atoll",
			"maxTsServerMemory":                 nodeMemory,
			"disableAutomaticTypingAcquisition": true, // it would run npm
		},
		files: []string{".ts", ".tsx", ".mts", ".cts", ".js", ".jsx", ".mjs", ".cjs"},
		dialects: map[string]string{
			".ts": "typescript", ".mts": "typescript", ".cts": "typescript", ".tsx": "typescriptreact",
			".js": "javascript", ".mjs": "javascript", ".cjs": "javascript", ".jsx": "javascriptreact",
		},
	}
)

// languageOf finds a language by the name that callers use.
func languageOf(id string) (language, error) {
	switch id {
	case "python":
		return python, nil
	case "typescript":
		return typescript, nil
	case "javascript":
		l := typescript
		l.id = id
		return l, nil
	}
	return language{}, wire.BadRequest("languageId: %.40q is not offered; use python, typescript or javascript", id)
}

// source tells whether a file is of the language.
func (l language) source(path string) bool {
	return slices.Contains(l.files, strings.ToLower(filepath.Ext(path)))
}

// documentID is what the protocol calls the language of a file.
func (l language) documentID(path string) string {
	if d := l.dialects[strings.ToLower(filepath.Ext(path))]; d != "" {
		return d
	}
	return l.id
}
