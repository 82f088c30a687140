// Package library is the policies that every server has. They can be read and
// attached like any other, and not changed: copy one under another name to
// make it your own. Beside each lies a table of cases that its test decides.
package library

import (
	"embed"
	"path"
	"strings"

	"github.com/atoll-sh/atoll/policies"
)

//go:embed *.yaml
var files embed.FS

const tableSuffix = ".cases.yaml"

// Names returns the names of all policies, sorted.
func Names() []string {
	entries, _ := files.ReadDir(".") // embedded: cannot fail
	var names []string
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), tableSuffix) {
			names = append(names, strings.TrimSuffix(e.Name(), path.Ext(e.Name())))
		}
	}
	return names
}

// Document returns the text of a policy; false when there is none of the name.
func Document(name string) ([]byte, bool) { return read(name, ".yaml") }

// Table returns the cases of a policy; false when there is none of the name.
func Table(name string) ([]byte, bool) { return read(name, tableSuffix) }

func read(name, suffix string) ([]byte, bool) {
	if strings.ContainsAny(name, "./") {
		return nil, false
	}
	text, err := files.ReadFile(name + suffix)
	return text, err == nil
}

// Policy returns a policy, with its variables as they stand in the document;
// false when there is none of the name.
func Policy(name string) (*policies.Policy, bool) {
	text, ok := Document(name)
	if !ok {
		return nil, false
	}
	p, err := policies.Parse(text)
	return p, err == nil
}
