package clients

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The YAML editor works on lines; the parser tells where things are, and
// judges the outcome: what was there must read as before. A file written so
// that lines do not tell is refused.

// A lone entry in a section that we made is indented by two blanks, one that
// came into an empty section of the user's by four: so removing it gives back
// the very bytes from before.
const (
	made   = "  "
	theirs = "    "
)

// nameKey is the member that names an entry of a list.
const nameKey = "name"

// yamlDoc is a parsed file.
type yamlDoc struct {
	src  []byte
	root *yaml.Node // a mapping; nil for a file without content
	nl   string
	at   []int // offset of each line, and of the end
}

func parseYAML(src []byte) (*yamlDoc, error) {
	plain := strings.ReplaceAll(string(src), "\r\n", "\n")
	if strings.ContainsAny(plain, "\r\u0085\u2028\u2029") {
		return nil, fmt.Errorf("it has unusual line breaks; edit it by hand: %w", errKept)
	}
	d := &yamlDoc{src: src, nl: "\n", at: []int{0}}
	if bytes.Contains(src, []byte("\r\n")) {
		d.nl = "\r\n"
	}
	for i, c := range src {
		if c == '\n' {
			d.at = append(d.at, i+1)
		}
	}
	if d.at[len(d.at)-1] != len(src) {
		d.at = append(d.at, len(src))
	}
	dec := yaml.NewDecoder(bytes.NewReader(src))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return d, nil
	case err != nil:
		return nil, fmt.Errorf("it is not valid YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("it holds more than one YAML document; edit it by hand: %w", errKept)
	}
	if d.root = doc.Content[0]; d.root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: it is not a YAML mapping", d.root.Line)
	}
	return d, nil
}

// values returns the file as values, for comparison.
func (d *yamlDoc) values() (map[string]any, error) {
	out := map[string]any{}
	if d.root == nil {
		return out, nil
	}
	return out, d.root.Decode(&out)
}

// section finds the value under key: -1 when it is not there.
func (d *yamlDoc) section(key string) int {
	if d.root == nil {
		return -1
	}
	for i := 0; i < len(d.root.Content); i += 2 {
		if d.root.Content[i].Value == key {
			return i
		}
	}
	return -1
}

// entries are the offsets of what a section's value holds, each from the start
// of its first line to the end of its last, and which is the server's.
func (d *yamlDoc) entries(section int, name string) (spans []span, ours int) {
	v := d.root.Content[section+1]
	end := len(d.src)
	if section+2 < len(d.root.Content) {
		end = d.at[d.root.Content[section+2].Line-1]
	}
	step := 1
	if v.Kind == yaml.MappingNode {
		step = 2
	}
	ours = -1
	for i := 0; i < len(v.Content); i += step {
		n := v.Content[i]
		to := end
		if i+step < len(v.Content) {
			to = d.at[v.Content[i+step].Line-1]
		}
		from := d.at[n.Line-1]
		spans = append(spans, span{from: from, to: lastLineEnd(d.src, from, to)})
		if step == 2 && n.Value == name || step == 1 && memberOf(n, nameKey) == name {
			ours = len(spans) - 1
		}
	}
	return spans, ours
}

func memberOf(n *yaml.Node, key string) string {
	if n.Kind != yaml.MappingNode {
		return ""
	}
	for i := 0; i < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1].Value
		}
	}
	return ""
}

// addYAML puts the server under key, as a member or, with list, as an item
// that carries its name.
func addYAML(src []byte, key, name string, value any, list bool) ([]byte, error) {
	d, err := parseYAML(src)
	if err != nil {
		return nil, err
	}
	before, err := d.values()
	if err != nil {
		return nil, fmt.Errorf("it is not valid YAML: %w", err)
	}
	entry, err := decodeEntry(name, value.(object), list)
	if err != nil {
		return nil, err
	}
	want, err := with(before, key, name, entry, list)
	if err != nil {
		return nil, err
	}
	if reflect.DeepEqual(before, want) {
		return src, nil
	}
	out, err := d.add(key, name, value.(object), list)
	if err == nil {
		err = d.same(out, want, key, name)
	}
	if err != nil {
		return nil, err
	}
	// What is added must come out again without a trace.
	if there, err := removeYAML(src, key, name, list); err != nil || bytes.Equal(there, src) {
		if back, err := removeYAML(out, key, name, list); err != nil || !bytes.Equal(back, src) {
			return nil, unsafe(key, name, err)
		}
	}
	return out, nil
}

// unsafe refuses a file that is written in a way that lines do not tell.
func unsafe(key, name string, err error) error {
	return fmt.Errorf("%s.%s is written in a way that cannot be changed safely; edit it by hand: %w", key, name, errors.Join(err, errKept))
}

// same checks that out reads as wanted.
func (d *yamlDoc) same(out []byte, want map[string]any, key, name string) error {
	after, err := parseYAML(out)
	if err == nil {
		var got map[string]any
		if got, err = after.values(); err == nil && reflect.DeepEqual(got, want) {
			return nil
		}
	}
	return unsafe(key, name, err)
}

// with is a file's values with the server in them.
func with(values map[string]any, key, name string, entry any, list bool) (map[string]any, error) {
	out := map[string]any{}
	for k, v := range values {
		out[k] = v
	}
	switch old := values[key].(type) {
	case nil:
		if list {
			out[key] = []any{entry}
		} else {
			out[key] = map[string]any{name: entry}
		}
	case map[string]any:
		if list {
			return nil, fmt.Errorf("%q is not a list", key)
		}
		m := map[string]any{}
		for k, v := range old {
			m[k] = v
		}
		m[name] = entry
		out[key] = m
	case []any:
		if !list {
			return nil, fmt.Errorf("%q is not a mapping", key)
		}
		out[key] = replaced(old, name, entry)
	default:
		return nil, fmt.Errorf("%q is neither a mapping nor a list", key)
	}
	return out, nil
}

// replaced is a list with the item of that name exchanged, or appended. A nil
// entry takes it out.
func replaced(old []any, name string, entry any) []any {
	var out []any
	done := false
	for _, v := range old {
		if m, ok := v.(map[string]any); ok && m[nameKey] == name {
			if done = true; entry == nil {
				continue
			}
			v = entry
		}
		out = append(out, v)
	}
	if !done && entry != nil {
		out = append(out, entry)
	}
	return out
}

func decodeEntry(name string, o object, list bool) (any, error) {
	if list {
		o = append(object{{nameKey, name}}, o...)
	}
	var v any
	err := yaml.Unmarshal([]byte(compact(o)), &v)
	return v, err
}

// add writes the entry where an old one stands, at the end of the section, or
// into a new section at the end of the file.
func (d *yamlDoc) add(key, name string, o object, list bool) ([]byte, error) {
	section := d.section(key)
	if section < 0 {
		return d.newSection(key, name, o, list)
	}
	v := d.root.Content[section+1]
	spans, ours := d.entries(section, name)
	if v.Kind == yaml.AliasNode || v.Anchor != "" || v.Style&yaml.FlowStyle != 0 {
		if ours >= 0 && len(spans) == 1 {
			cleared, err := removeYAML(d.src, key, name, list)
			if err != nil {
				return nil, err
			}
			return addYAML(cleared, key, name, o, list)
		}
		return d.addFlow(v, key, name, o, list)
	}
	indent := theirs
	if len(spans) > 0 {
		first := v.Content[0]
		indent = strings.Repeat(" ", max(first.Column-1, 0))
		if list { // the column is that of the item's content
			line := d.src[spans[0].from:]
			indent = string(line[:len(line)-len(bytes.TrimLeft(line, " "))])
		}
	}
	block := d.block(name, o, indent, list)
	if ours >= 0 {
		s := spans[ours]
		s.text = d.fit(block, s.to)
		return splice(d.src, s), nil
	}
	at := lastLineEnd(d.src, d.at[d.root.Content[section].Line-1], d.sectionEnd(section))
	if len(spans) > 0 {
		at = spans[len(spans)-1].to
	}
	return splice(d.src, d.insertion(at, block)), nil
}

func (d *yamlDoc) sectionEnd(section int) int {
	if section+2 < len(d.root.Content) {
		return d.at[d.root.Content[section+2].Line-1]
	}
	return len(d.src)
}

// insertion puts lines at the end of a line. A file without a final line break
// stays without one.
func (d *yamlDoc) insertion(at int, block string) span {
	if at > 0 && d.src[at-1] != '\n' {
		return span{from: at, to: at, text: d.nl + strings.TrimSuffix(block, d.nl)}
	}
	return span{from: at, to: at, text: block}
}

// fit leaves the line break out where the file has none at its end.
func (d *yamlDoc) fit(block string, to int) string {
	if to == len(d.src) && to > 0 && d.src[to-1] != '\n' {
		return strings.TrimSuffix(block, d.nl)
	}
	return block
}

func (d *yamlDoc) newSection(key, name string, o object, list bool) ([]byte, error) {
	if d.root != nil && d.root.Style&yaml.FlowStyle != 0 {
		return nil, fmt.Errorf("line %d: the file is one line of braces; edit it by hand: %w", d.root.Line, errKept)
	}
	block := key + ":" + d.nl + d.block(name, o, made, list)
	return splice(d.src, d.insertion(len(d.src), block)), nil
}

// addFlow writes into a section in braces or brackets, which is JSON to us.
func (d *yamlDoc) addFlow(v *yaml.Node, key, name string, o object, list bool) ([]byte, error) {
	if v.Kind == yaml.AliasNode || v.Anchor != "" || len(v.Content) > 0 {
		return nil, fmt.Errorf("line %d: %s is written on one line; edit it by hand: %w", v.Line, key, errKept)
	}
	open := d.at[v.Line-1] + v.Column - 1 // columns count runes, and keys are ASCII
	if open+2 > len(d.src) || (string(d.src[open:open+2]) != "{}" && string(d.src[open:open+2]) != "[]") {
		return nil, fmt.Errorf("line %d: %s is written in a way that cannot be changed safely; edit it by hand: %w", v.Line, key, errKept)
	}
	text := quoteJSON(name) + ": " + compact(o)
	if list {
		text = compact(append(object{{nameKey, name}}, o...))
	}
	return splice(d.src, span{from: open + 1, to: open + 1, text: text}), nil
}

// block writes the entry as lines.
func (d *yamlDoc) block(name string, o object, indent string, list bool) string {
	var b strings.Builder
	in := indent + "  "
	if list {
		fmt.Fprintf(&b, "%s- %s: %s%s", indent, nameKey, scalar(name), d.nl)
	} else {
		fmt.Fprintf(&b, "%s%s:%s", indent, scalar(name), d.nl)
	}
	d.members(&b, o, in)
	return b.String()
}

func (d *yamlDoc) members(b *strings.Builder, o object, indent string) {
	for _, p := range o {
		if inner, ok := p.Value.(object); ok {
			fmt.Fprintf(b, "%s%s:%s", indent, p.Key, d.nl)
			d.members(b, inner, indent+"  ")
			continue
		}
		value := compact(p.Value)
		if s, ok := p.Value.(string); ok {
			value = scalar(s)
		}
		fmt.Fprintf(b, "%s%s: %s%s", indent, p.Key, value, d.nl)
	}
}

// scalar writes a string plainly where that is a string in every YAML.
func scalar(s string) string {
	var v any
	if bareKey.MatchString(s) && yaml.Unmarshal([]byte(s), &v) == nil && v == s {
		return s
	}
	return quoteJSON(s)
}

// removeYAML takes the server's lines out, and the section that addYAML made
// for it.
func removeYAML(src []byte, key, name string, list bool) ([]byte, error) {
	d, err := parseYAML(src)
	if err != nil {
		return nil, err
	}
	section := d.section(key)
	if section < 0 {
		return src, nil
	}
	want, err := d.values()
	if err != nil {
		return nil, fmt.Errorf("it is not valid YAML: %w", err)
	}
	spans, ours := d.entries(section, name)
	if ours < 0 {
		return src, nil
	}
	if list {
		old, _ := want[key].([]any)
		want[key] = replaced(old, name, nil)
	} else {
		old, _ := want[key].(map[string]any)
		delete(old, name)
	}
	return d.remove(section, spans[ours], len(spans) == 1, want, key, name)
}

// remove cuts an entry, and with it the section that was made for it.
func (d *yamlDoc) remove(section int, cut span, alone bool, want map[string]any, key, name string) ([]byte, error) {
	v := d.root.Content[section+1]
	if v.Style&yaml.FlowStyle != 0 {
		return d.removeFlow(v, want, key, name)
	}
	if cut.to == len(d.src) && cut.to > 0 && d.src[cut.to-1] != '\n' && cut.from > 0 {
		cut.from -= len(d.nl)
	}
	if alone {
		head := d.at[d.root.Content[section].Line-1]
		if text := string(d.src[head:]); strings.HasPrefix(text, key+":"+d.nl+made+strings.TrimSpace(text[len(key)+1:])[:1]) {
			if cut.from = head; head > 0 && d.src[len(d.src)-1] != '\n' {
				cut.from -= len(d.nl)
			}
			delete(want, key)
		} else {
			want[key] = nil
		}
	}
	out := splice(d.src, cut)
	return out, d.same(out, want, key, name)
}

// removeFlow takes out what addFlow put into empty braces.
func (d *yamlDoc) removeFlow(v *yaml.Node, want map[string]any, key, name string) ([]byte, error) {
	open := d.at[v.Line-1] + v.Column - 1
	end := bytes.IndexByte(d.src[open:], '\n')
	if end < 0 {
		end = len(d.src) - open
	}
	line := d.src[open : open+end]
	closing := bytes.LastIndexAny(line, "}]")
	if len(v.Content) > 2 || v.Kind == yaml.SequenceNode && len(v.Content) > 1 || closing < 0 {
		return nil, fmt.Errorf("line %d: %s is written on one line; edit it by hand: %w", v.Line, key, errKept)
	}
	if v.Kind == yaml.SequenceNode {
		want[key] = []any{}
	}
	out := splice(d.src, span{from: open + 1, to: open + closing})
	return out, d.same(out, want, key, name)
}
