package clients

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	gotoml "github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// addTOML sets the table [key.name]. An old one is replaced where it stands; a
// new one goes to the end.
func addTOML(src []byte, key, name string, value any) ([]byte, error) {
	nl := "\n"
	if bytes.Contains(src, []byte("\r\n")) {
		nl = "\r\n"
	}
	block := tomlTable(key, name, value.(object), nl)
	old, err := decodeTOML(src, key, name)
	if err != nil {
		return nil, err
	}
	wanted, err := decodeTOML([]byte(block), key, name)
	if err != nil {
		return nil, err
	}
	if old != nil && reflect.DeepEqual(old, wanted) {
		return src, nil
	}
	cuts, err := tomlTables(src, key, name)
	if err != nil {
		return nil, err
	}
	var out []byte
	switch {
	case len(cuts) > 0:
		cuts[0].text = block
		if cuts[0].to == len(src) && !bytes.HasSuffix(src, []byte("\n")) {
			cuts[0].text = strings.TrimSuffix(block, nl)
		}
		out = splice(src, cuts...)
	case len(bytes.TrimSpace(src)) == 0:
		out = []byte(block)
	case bytes.HasSuffix(src, []byte("\n")):
		out = append(bytes.Clone(src), nl+block...)
	default: // keeps the file without a final line break
		out = append(bytes.Clone(src), nl+nl+strings.TrimSuffix(block, nl)...)
	}
	if got, err := decodeTOML(out, key, name); err != nil || !reflect.DeepEqual(got, wanted) {
		return nil, fmt.Errorf("%s.%s is written in a way that cannot be changed safely; edit it by hand: %w", key, name, errors.Join(err, errKept))
	}
	return out, nil
}

var errKept = errors.New("the file is as it was")

// removeTOML takes the table [key.name] and those below it out.
func removeTOML(src []byte, key, name string) ([]byte, error) {
	old, err := decodeTOML(src, key, name)
	if err != nil || old == nil {
		return src, err
	}
	cuts, err := tomlTables(src, key, name)
	if err != nil {
		return nil, err
	}
	if n := len(cuts); n > 0 {
		cuts[0].from -= separator(src[:cuts[0].from], cuts[n-1].to == len(src) && !bytes.HasSuffix(src, []byte("\n")))
	}
	out := splice(src, cuts...)
	if left, err := decodeTOML(out, key, name); err != nil || left != nil {
		return nil, fmt.Errorf("%s.%s is written in a way that cannot be changed safely; edit it by hand: %w", key, name, errors.Join(err, errKept))
	}
	return out, nil
}

// separator is the length of what addTOML put between the file and its table:
// a blank line, and a line break before it where the file ended without one.
func separator(before []byte, unended bool) int {
	n := 0
	want := 1
	if unended {
		want = 2
	}
	for range want {
		switch {
		case bytes.HasSuffix(before, []byte("\r\n")):
			before, n = before[:len(before)-2], n+2
		case bytes.HasSuffix(before, []byte("\n")):
			before, n = before[:len(before)-1], n+1
		}
	}
	if !unended && len(before) > 0 && before[len(before)-1] != '\n' {
		return 0 // there was no blank line
	}
	return n
}

// decodeTOML returns the server's table as values, nil when there is none.
func decodeTOML(src []byte, key, name string) (map[string]any, error) {
	var doc map[string]any
	if err := gotoml.Unmarshal(src, &doc); err != nil {
		var at *gotoml.DecodeError
		if errors.As(err, &at) {
			line, _ := at.Position()
			return nil, fmt.Errorf("line %d: it is not valid TOML: %s", line, strings.TrimPrefix(at.Error(), "toml: "))
		}
		return nil, fmt.Errorf("it is not valid TOML: %w", err)
	}
	v, ok := doc[key]
	if !ok {
		return nil, nil
	}
	servers, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%q is not a table", key)
	}
	if _, ok := servers[name]; !ok {
		return nil, nil
	}
	table, ok := servers[name].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s.%s is not a table", key, name)
	}
	return table, nil
}

// tomlTables finds the tables [key.name] and [key.name.*], each from its header
// to its last line. Comments and blank lines after that belong to what follows.
func tomlTables(src []byte, key, name string) ([]span, error) {
	var p unstable.Parser
	p.Reset(src)
	var cuts []span
	open := -1
	finish := func(end int) {
		if open >= 0 {
			cuts = append(cuts, span{from: open, to: lastLineEnd(src, open, end)})
		}
		open = -1
	}
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.Table && e.Kind != unstable.ArrayTable {
			continue
		}
		path, at := tableName(e)
		start := bytes.LastIndexByte(src[:at], '\n') + 1
		finish(start)
		if len(path) >= 2 && path[0] == key && path[1] == name {
			open = start
		}
	}
	finish(len(src))
	if err := p.Error(); err != nil {
		return nil, fmt.Errorf("it is not valid TOML: %w", err)
	}
	return joined(cuts), nil
}

// lastLineEnd returns the end of the last line of src[from:to] that is neither
// blank nor a comment. The line at from is neither.
func lastLineEnd(src []byte, from, to int) int {
	end := to
	for end > from {
		start := bytes.LastIndexByte(src[from:end-1], '\n') + 1 + from
		if line := bytes.TrimSpace(src[start:end]); len(line) > 0 && line[0] != '#' {
			return end
		}
		end = start
	}
	return to
}

// joined merges neighbours, so that the first span covers a table together
// with those below it.
func joined(cuts []span) []span {
	var out []span
	for _, c := range cuts {
		if n := len(out); n > 0 && out[n-1].to == c.from {
			out[n-1].to = c.to
			continue
		}
		out = append(out, c)
	}
	return out
}

func tableName(e *unstable.Node) (path []string, at int) {
	at = -1
	for it := e.Key(); it.Next(); {
		n := it.Node()
		path = append(path, string(n.Data))
		if at < 0 {
			at = int(n.Raw.Offset)
		}
	}
	return path, at
}

var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func tomlTable(key, name string, o object, nl string) string {
	if !bareKey.MatchString(name) {
		name = quoteJSON(name)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "[%s.%s]%s", key, name, nl)
	for _, p := range o {
		fmt.Fprintf(&b, "%s = %s%s", p.Key, compact(p.Value), nl)
	}
	return b.String()
}
