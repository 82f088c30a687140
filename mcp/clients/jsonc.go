package clients

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/tailscale/hujson"
)

// The JSON editor works on the bytes of the file; the parser only tells where
// things are. What it adds can be told from what was there, so that removing
// it gives back the very bytes from before: a lone member that was put into an
// existing object stands after a blank at the end of the brace's line, one
// whose object was made for it does not.

// lonely is put before the line break of a member that came into an empty
// object.
const lonely = " "

// document is a parsed file.
type document struct {
	src  []byte
	root hujson.Value
	nl   string // line break
	unit string // one level of indentation
}

func parseJSON(src []byte) (*document, error) {
	root, err := hujson.Parse(src)
	if err != nil {
		return nil, fmt.Errorf("it is not valid JSON: %s", strings.TrimPrefix(err.Error(), "hujson: "))
	}
	d := &document{src: src, root: root, nl: "\n", unit: "  "}
	if bytes.Contains(src, []byte("\r\n")) {
		d.nl = "\r\n"
	}
	obj, ok := root.Value.(*hujson.Object)
	if !ok {
		return nil, fmt.Errorf("line %d: it is not a JSON object", d.line(root.StartOffset))
	}
	if len(obj.Members) > 0 {
		if in, ok := d.indent(obj.Members[0].Name.StartOffset); ok && in != "" {
			d.unit = in
		}
	}
	return d, nil
}

// line counts from 1.
func (d *document) line(offset int) int { return bytes.Count(d.src[:offset], []byte("\n")) + 1 }

// indent returns the blanks before offset, and whether nothing else is before
// it on its line.
func (d *document) indent(offset int) (string, bool) {
	start := bytes.LastIndexByte(d.src[:offset], '\n') + 1
	before := d.src[start:offset]
	blank := before[:len(before)-len(bytes.TrimLeft(before, " \t"))]
	return string(blank), start > 0 && len(blank) == len(before)
}

// member finds a member by name.
func (d *document) member(v hujson.Value, name string) (int, error) {
	found := -1
	for i, m := range v.Value.(*hujson.Object).Members {
		if lit, ok := m.Name.Value.(hujson.Literal); !ok || lit.String() != name {
			continue
		}
		if found >= 0 {
			return -1, fmt.Errorf("line %d: %q occurs twice", d.line(m.Name.StartOffset), name)
		}
		found = i
	}
	return found, nil
}

// child returns the member key of the root, which must be an object if it is
// there; found is false when it is not.
func (d *document) child(key string) (v hujson.Value, found bool, err error) {
	i, err := d.member(d.root, key)
	if err != nil || i < 0 {
		return v, false, err
	}
	v = d.root.Value.(*hujson.Object).Members[i].Value
	if _, ok := v.Value.(*hujson.Object); !ok {
		return v, false, fmt.Errorf("line %d: %q is not an object", d.line(v.StartOffset), key)
	}
	return v, true, nil
}

// addJSON sets key.name to value.
func addJSON(src []byte, key, name string, value any) ([]byte, error) {
	if len(bytes.TrimSpace(src)) == 0 {
		d := &document{nl: "\n", unit: "  "}
		return []byte("{\n  " + d.render(object{{key, object{{name, value}}}}[0], "  ") + "\n}\n"), nil
	}
	d, err := parseJSON(src)
	if err != nil {
		return nil, err
	}
	servers, found, err := d.child(key)
	if err != nil {
		return nil, err
	}
	if !found {
		return d.insert(d.root, pair{key, object{{name, value}}}), nil
	}
	i, err := d.member(servers, name)
	if err != nil {
		return nil, err
	}
	if i < 0 {
		return d.insert(servers, pair{name, value}), nil
	}
	old := servers.Value.(*hujson.Object).Members[i]
	if same(d.src[old.Value.StartOffset:old.Value.EndOffset], value) {
		return src, nil
	}
	in, alone := d.indent(old.Name.StartOffset)
	text := d.value(value, in)
	if !alone {
		text = compact(value)
	}
	return splice(src, span{old.Value.StartOffset, old.Value.EndOffset, text}), nil
}

func same(src []byte, value any) bool {
	std, err := hujson.Standardize(bytes.Clone(src))
	if err != nil {
		return false
	}
	var a, b any
	return json.Unmarshal(std, &a) == nil && json.Unmarshal([]byte(compact(value)), &b) == nil && reflect.DeepEqual(a, b)
}

// insert puts a member at the end of an object.
func (d *document) insert(v hujson.Value, p pair) []byte {
	members := v.Value.(*hujson.Object).Members
	end := v.EndOffset - 1 // the closing brace
	if len(members) == 0 {
		out, _ := d.lineIndent(v.StartOffset)
		in := out + d.unit
		return splice(d.src, span{end, end, lonely + d.nl + in + d.render(p, in) + d.nl + out})
	}
	first, last := members[0].Name.StartOffset, members[len(members)-1].Value.EndOffset
	gap := d.src[last:end]
	comma := commaIn(gap)
	in, alone := d.indent(first)
	if !alone {
		text := quoteJSON(p.Key) + ": " + compact(p.Value)
		if comma >= 0 {
			return splice(d.src, span{last + comma + 1, last + comma + 1, " " + text + ","})
		}
		return splice(d.src, span{last, last, ", " + text})
	}
	tail := last + len(bytes.TrimRight(gap, " \t\r\n"))
	text := d.nl + in + d.render(p, in)
	if comma >= 0 {
		return splice(d.src, span{tail, tail, text + ","})
	}
	return splice(d.src, span{last, last, ","}, span{tail, tail, text})
}

// lineIndent is the indentation of the line that offset is on.
func (d *document) lineIndent(offset int) (string, bool) {
	start := bytes.LastIndexByte(d.src[:offset], '\n') + 1
	text := d.src[start:offset]
	return string(text[:len(text)-len(bytes.TrimLeft(text, " \t"))]), true
}

// removeJSON takes key.name out. A file that holds nothing else becomes empty.
func removeJSON(src []byte, key, name string) ([]byte, error) {
	if len(bytes.TrimSpace(src)) == 0 {
		return src, nil
	}
	d, err := parseJSON(src)
	if err != nil {
		return nil, err
	}
	servers, found, err := d.child(key)
	if err != nil || !found {
		return src, err
	}
	i, err := d.member(servers, name)
	if err != nil || i < 0 {
		return src, err
	}
	if spans, ok := d.cutMember(servers, i); ok {
		return splice(src, spans...), nil
	}
	i, err = d.member(d.root, key)
	if err != nil {
		return nil, err
	}
	if spans, ok := d.cutMember(d.root, i); ok {
		return splice(src, spans...), nil
	}
	return nil, nil
}

// cutMember returns what to cut so that member i is gone. It reports false
// when the object was made for that member and should go with it.
func (d *document) cutMember(v hujson.Value, i int) ([]span, bool) {
	members := v.Value.(*hujson.Object).Members
	m := members[i]
	name, end, brace := m.Name.StartOffset, m.Value.EndOffset, v.EndOffset-1
	start := len(bytes.TrimRight(d.src[:name], " \t\r\n"))
	next := brace
	if i+1 < len(members) {
		next = members[i+1].Name.StartOffset
	}
	if comma := commaIn(d.src[end:next]); comma >= 0 {
		return []span{{start, end + comma + 1, ""}}, true
	}
	if i > 0 {
		prev := members[i-1].Value.EndOffset
		comma := prev + commaIn(d.src[prev:name])
		return []span{{comma, comma + 1, ""}, {max(start, comma+1), end, ""}}, true
	}
	before, after := d.src[v.StartOffset+1:name], d.src[end:brace]
	if at := bytes.LastIndex(before, []byte(lonely+d.nl)); at >= 0 && len(bytes.TrimLeft(before[at+len(lonely+d.nl):], " \t")) == 0 {
		from := v.StartOffset + 1 + at
		to := end
		if bytes.HasPrefix(after, []byte(d.nl)) && len(bytes.TrimSpace(after)) == 0 {
			to = brace
		}
		return []span{{from, to, ""}}, true
	}
	if len(bytes.TrimSpace(before)) > 0 || len(bytes.TrimSpace(after)) > 0 {
		return []span{{start, end, ""}}, true // comments stay
	}
	return nil, false
}

// commaIn returns where the comma is between two members, or -1. There are
// only blanks and comments besides.
func commaIn(gap []byte) int {
	for i := 0; i < len(gap); i++ {
		switch {
		case gap[i] == ',':
			return i
		case bytes.HasPrefix(gap[i:], []byte("//")):
			n := bytes.IndexByte(gap[i:], '\n')
			if n < 0 {
				return -1
			}
			i += n
		case bytes.HasPrefix(gap[i:], []byte("/*")):
			n := bytes.Index(gap[i+2:], []byte("*/"))
			if n < 0 {
				return -1
			}
			i += n + 3
		}
	}
	return -1
}

// span replaces the bytes [from, to) by text.
type span struct {
	from, to int
	text     string
}

// splice applies spans, which are in order and apart.
func splice(src []byte, spans ...span) []byte {
	var out []byte
	at := 0
	for _, s := range spans {
		out = append(out, src[at:s.from]...)
		out = append(out, s.text...)
		at = s.to
	}
	return append(out, src[at:]...)
}

// render writes a member over several lines, indented by in.
func (d *document) render(p pair, in string) string {
	return quoteJSON(p.Key) + ": " + d.value(p.Value, in)
}

func (d *document) value(v any, in string) string {
	o, ok := v.(object)
	if !ok {
		return compact(v)
	}
	var b strings.Builder
	b.WriteString("{")
	for i, p := range o {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString(d.nl + in + d.unit + d.render(p, in+d.unit))
	}
	b.WriteString(d.nl + in + "}")
	return b.String()
}

// compact writes a value on one line.
func compact(v any) string {
	switch v := v.(type) {
	case object:
		var parts []string
		for _, p := range v {
			parts = append(parts, quoteJSON(p.Key)+": "+compact(p.Value))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case []string:
		var parts []string
		for _, s := range v {
			parts = append(parts, quoteJSON(s))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case string:
		return quoteJSON(v)
	}
	return fmt.Sprint(v)
}

func quoteJSON(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // text always encodes
	return strings.TrimSuffix(b.String(), "\n")
}
