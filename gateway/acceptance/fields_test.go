package acceptance

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// fit says what is wrong with a value that should have a type of shapes; nil
// when it fits.
func fit(v any, typ, at string) error {
	all := shapes()
	base := strings.TrimSuffix(typ, "?")
	if v == nil {
		if base != typ || base == "x" {
			return nil
		}
		return fmt.Errorf("%s is null", at)
	}
	if rest, ok := strings.CutPrefix(base, "[]"); ok {
		return fitList(v, rest, at)
	}
	if rest, ok := strings.CutPrefix(base, "{}"); ok {
		return fitMap(v, rest, at)
	}
	if fields, ok := all[base]; ok && !strings.HasPrefix(fields, "=") {
		return fitObject(v, fields, at)
	} else if ok {
		base = fields
	}
	return fitPlain(v, base, at)
}

func fitList(v any, typ, at string) error {
	list, ok := v.([]any)
	if !ok {
		return fmt.Errorf("%s is no list", at)
	}
	for i, e := range list {
		if err := fit(e, typ, fmt.Sprintf("%s[%d]", at, i)); err != nil {
			return err
		}
	}
	return nil
}

func fitMap(v any, typ, at string) error {
	m, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("%s is no object", at)
	}
	for k, e := range m {
		if err := fit(e, typ, at+"."+k); err != nil {
			return err
		}
	}
	return nil
}

func fitObject(v any, fields, at string) error {
	m, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("%s is no object", at)
	}
	for f := range strings.FieldsSeq(fields) {
		name, typ, _ := strings.Cut(f, ":")
		name, optional := strings.CutSuffix(name, "~")
		e, there := m[name]
		switch {
		case !there && !optional:
			return fmt.Errorf("%s lacks %s", at, name)
		case !there || (optional && e == nil):
			continue
		}
		if err := fit(e, typ, at+"."+name); err != nil {
			return err
		}
	}
	return nil
}

func fitPlain(v any, typ, at string) error {
	ok := false
	switch typ {
	case "x":
		ok = true
	case "s":
		_, ok = v.(string)
	case "b":
		_, ok = v.(bool)
	case "o":
		_, ok = v.(map[string]any)
	case "n":
		_, ok = v.(float64)
	case "i":
		n, isNumber := v.(float64)
		ok = isNumber && n == math.Trunc(n)
	default: // =a|b
		s, isText := v.(string)
		words := strings.Split(strings.TrimPrefix(typ, "="), "|")
		ok = isText && strings.HasPrefix(typ, "=") && slices.Contains(words, s)
	}
	if !ok {
		return fmt.Errorf("%s is %v, want %s", at, v, typ)
	}
	return nil
}

func TestFit(t *testing.T) {
	for body, typ := range map[string]string{
		`{"url":"x"}`:                    "Url",
		`[1,2]`:                          "[]i",
		`null`:                           "s?",
		`{"items":[],"nextCursor":null}`: "ListSandboxesResponse",
		`"started"`:                      "SandboxState",
		`{"labels":{"a":"b"}}`:           "SandboxLabels",
		`{"exitCode":0,"result":"","further":"field"}`: "ExecuteResponse",
	} {
		if err := fit(decode(t, body), typ, typ); err != nil {
			t.Errorf("%s as %s: %v", body, typ, err)
		}
	}
	for body, typ := range map[string]string{
		`{}`:                                     "Url",
		`{"url":null}`:                           "Url",
		`{"items":[]}`:                           "ListSandboxesResponse",
		`[1.5]`:                                  "[]i",
		`null`:                                   "s",
		`"asleep"`:                               "SandboxState",
		`{"labels":{"a":1}}`:                     "SandboxLabels",
		`{"items":[{"id":1}],"nextCursor":null}`: "ListSandboxesResponse",
	} {
		if err := fit(decode(t, body), typ, typ); err == nil {
			t.Errorf("%s passes as %s", body, typ)
		}
	}
}

func decode(t *testing.T, body string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%v in %.300s", err, body)
	}
	return v
}
