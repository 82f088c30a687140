package tools

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// check returns the arguments, or a sentence that names the one at fault, what
// is valid, and the fix. Arguments that are null count as not given, because
// some clients send every property.
func (t Tool) check(values any) (map[string]any, string) {
	s, err := t.schema()
	if err != nil {
		return nil, "Internal error: the schema of " + t.Name + " does not parse."
	}
	args, ok := values.(map[string]any)
	if values != nil && !ok {
		return nil, fmt.Sprintf("The arguments of %s must be an object with: %s.", t.Name, s.signature())
	}
	given := map[string]any{}
	for name, v := range args {
		if v != nil {
			given[name] = v
		}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		prop, known := s.Properties[name]
		if !known {
			return given, t.unknown(s, name)
		}
		if want := prop.wants(given[name]); want != "" {
			return given, fmt.Sprintf("Argument %q of %s must be %s, not %s.", name, t.Name, want, shown(given[name]))
		}
	}
	for _, name := range s.Required {
		v, ok := given[name]
		if name == "id" && v == "" {
			return given, fmt.Sprintf("Argument %q of %s is empty.%s", name, t.Name, whereFrom(name))
		}
		if !ok {
			return given, fmt.Sprintf("Argument %q of %s is missing. It takes: %s.%s", name, t.Name, s.signature(), whereFrom(name))
		}
	}
	return given, ""
}

func whereFrom(name string) string {
	if name == "id" {
		return " sandbox_list shows ids."
	}
	return ""
}

func (t Tool) unknown(s schema, name string) string {
	hint := ""
	if near := nearest(name, slices.Collect(maps.Keys(s.Properties))); near != "" {
		hint = fmt.Sprintf(" Did you mean %q?", near)
	}
	return fmt.Sprintf("Unknown argument %s of %s.%s It takes: %s.", quote(name), t.Name, hint, s.signature())
}

// signature lists the arguments, required ones first and marked.
func (s schema) signature() string {
	var names []string
	for _, name := range s.Required {
		names = append(names, name+" (required)")
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		if !slices.Contains(s.Required, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// wants returns "" when v fits, else what it should be.
func (s schema) wants(v any) string {
	switch s.Type {
	case "string":
		text, ok := v.(string)
		if len(s.Enum) > 0 && !(ok && slices.Contains(s.Enum, text)) {
			return "one of " + strings.Join(s.Enum, ", ")
		}
		if !ok {
			return "text"
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			return "true or false"
		}
	case "integer", "number":
		return s.wantsNumber(v)
	case "array":
		list, ok := v.([]any)
		if !ok || slices.ContainsFunc(list, func(e any) bool { return s.Items != nil && s.Items.wants(e) != "" }) {
			return s.Items.list()
		}
	case "object":
		return s.wantsObject(v)
	}
	return ""
}

// list says what a list of such elements is.
func (s *schema) list() string {
	switch {
	case s == nil:
		return "a list"
	case len(s.Enum) > 0:
		return "a list of: " + strings.Join(s.Enum, ", ")
	case s.Type == "integer", s.Type == "number":
		return "a list of numbers"
	case s.Type == "object":
		return "a list of objects with " + s.signature()
	}
	return "a list of texts"
}

// wantsObject checks one with properties of its own, or one of names and texts.
func (s schema) wantsObject(v any) string {
	m, ok := v.(map[string]any)
	if len(s.Properties) > 0 {
		want := "an object with " + s.signature()
		if !ok {
			return want
		}
		for name, e := range m {
			if p, known := s.Properties[name]; !known || p.wants(e) != "" {
				return want
			}
		}
		return ""
	}
	if !ok || slices.ContainsFunc(slices.Collect(maps.Values(m)), func(e any) bool { _, text := e.(string); return !text }) {
		return `an object of names and texts, as {"KEY": "value"}`
	}
	return ""
}

func (s schema) wantsNumber(v any) string {
	kind := "a number"
	if s.Type == "integer" {
		kind = "a whole number"
	}
	if s.Minimum != nil {
		kind += fmt.Sprintf(" of at least %g", *s.Minimum)
	}
	if s.Maximum != nil {
		kind += fmt.Sprintf(" and at most %g", *s.Maximum)
	}
	f, ok := v.(float64)
	switch {
	case !ok, s.Type == "integer" && f != math.Trunc(f), math.Abs(f) > 1<<53,
		s.Minimum != nil && f < *s.Minimum, s.Maximum != nil && f > *s.Maximum:
		return kind
	}
	return ""
}

// shown prints a value short enough for an error.
func shown(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "this value"
	}
	if len(b) > 60 {
		return strings.ToValidUTF8(string(b[:60]), "") + "…"
	}
	return string(b)
}

// quote prints a name that a client made up, cut to a sane length.
func quote(name string) string {
	if len(name) > 60 {
		name = strings.ToValidUTF8(name[:60], "") + "…"
	}
	return fmt.Sprintf("%q", name)
}

// nearest returns the known name that was probably meant: a known synonym, one
// contained in the other, or one at most two edits away; or "".
func nearest(name string, known []string) string {
	slices.Sort(known)
	plain := func(s string) string {
		return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s))
	}
	n := plain(name)
	for _, meant := range synonyms[n] {
		if slices.Contains(known, meant) {
			return meant
		}
	}
	best, distance := "", 3
	for _, k := range known {
		d := edits(n, plain(k))
		if letters(n) == letters(plain(k)) {
			d = 1 // letters swapped
		}
		if d < distance && d < len(k) {
			best, distance = k, d
		}
	}
	return best
}

func letters(s string) string {
	l := []byte(s)
	slices.Sort(l)
	return string(l)
}

// synonyms are names from other servers that models try.
var synonyms = map[string][]string{
	"sandboxid": {"id"}, "sandbox": {"id"}, "sandboxname": {"id"}, "name": {"id"},
	"cmd": {"command"}, "script": {"command"}, "code": {"command"}, "args": {"command"},
	"workdir": {"cwd"}, "workingdirectory": {"cwd"}, "dir": {"cwd", "path"}, "directory": {"cwd", "path"},
	"timeout": {"timeout_s", "wait_s"}, "timeoutseconds": {"timeout_s"}, "timeoutms": {"timeout_s"},
	"wait": {"wait_s"}, "input": {"data", "stdin"}, "text": {"content", "data"},
	"file": {"path", "filePath"}, "filepath": {"path"}, "filename": {"path", "filePath"}, "source": {"path", "sourcePath"}, "from": {"path", "sourcePath"},
	"path":        {"filePath", "folderPath", "sourcePath", "local_path"},
	"destination": {"to", "destPath"}, "dest": {"to", "destPath"}, "target": {"to"}, "newpath": {"to", "destPath"}, "to": {"destPath"},
	"contents": {"content"}, "body": {"content"},
	"oldstring": {"old"}, "oldstr": {"old"}, "oldtext": {"old"}, "newstring": {"new"}, "newstr": {"new"}, "newtext": {"new"},
	"replaceall": {"all"}, "pattern": {"grep", "glob"}, "query": {"grep"}, "regex": {"grep"},
	"recursive": {"depth", "all"}, "operation": {"op"}, "action": {"op"},
	"memory": {"memory_mb"}, "disk": {"disk_gb"}, "cpus": {"cpu"}, "envvars": {"env"}, "environment": {"env"},
	"autostop": {"idle_minutes"}, "autostopinterval": {"idle_minutes"}, "ttl": {"ttl_minutes"},
	"processid": {"process"}, "pid": {"process"},
	"copies": {"fork"}, "count": {"fork", "limit"}, "lines": {"limit"}, "start": {"offset"},
}

// edits is the number of letters to insert, delete or replace, counting up to
// a few is all that matters here.
func edits(a, b string) int {
	if len(a) > 40 || len(b) > 40 {
		return 99
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal, row[j] = row[j], min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
