package enforce

import (
	"fmt"
	"strings"
	"testing"
)

func TestJudgement(t *testing.T) {
	l := List{Deny: true, Rules: []Rule{
		{Name: "home", Path: "/home/**"},
		{Name: "bin", Path: "/usr/bin/*"},
		{Name: "net-tools", Path: "/usr/bin/nc*", Deny: true},
		{Name: "env", Path: "**/.env", Deny: true},
		{Name: "any-key", Path: "/home/?/key", Deny: true},
		{Name: "ours", Path: "/home/toolbox/.env", Override: true},
		{Name: "middle", Path: "/srv/**/data/*.csv"},
	}}
	a, err := compile(l)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		rule string
		deny bool
	}{
		{"/home/a", "home", false},
		{"/home/", "home", false},
		{"/home", "", true},
		{"/home/a/b/c", "home", false},
		{"/usr/bin/ls", "bin", false},
		{"/usr/bin/nc", "net-tools", true},
		{"/usr/bin/nc.openbsd", "net-tools", true},
		{"/usr/bin/sub/ls", "", true},
		{"/home/a/.env", "env", true},
		{"/home/a/.env2", "home", false},
		{"/home/toolbox/.env", "ours", false},
		{"/home/x/key", "any-key", true},
		{"/home/xy/key", "home", false},
		{"/home///key", "home", false},
		{"/srv/a/b/data/x.csv", "middle", false},
		{"/srv/data/x.csv", "", true},
		{"/srv//data/x.csv", "middle", false},
		{"/srv/a/data/x.csv.gz", "", true},
		{"", "", true},
		{"memfd:home/a", "", true},
	} {
		n, deny := a.judge(c.path)
		rule := ""
		if n > 0 {
			rule = l.Rules[n-1].Name
		}
		if rule != c.rule || deny != c.deny {
			t.Errorf("%q: rule %q, deny %t; want %q, %t", c.path, rule, deny, c.rule, c.deny)
		}
	}
}

// matches says what a pattern means, one character at a time.
func matches(p []token, s string) bool {
	if len(p) == 0 {
		return s == ""
	}
	if p[0].repeats() && matches(p[1:], s) {
		return true
	}
	if s == "" || !p[0].takes(s[0]) {
		return false
	}
	if p[0].repeats() {
		return matches(p, s[1:])
	}
	return matches(p[1:], s[1:])
}

func FuzzAutomaton(f *testing.F) {
	f.Add("/a/*", "**/b", "/a/?b*", "/a/bb")
	f.Add("***", "a**a*b", "?", "/aab")
	f.Add("/", "*/", "**/**", "//")
	f.Fuzz(func(t *testing.T, p, q, r, path string) {
		l := List{Rules: []Rule{{Path: p}, {Path: q, Deny: true}, {Path: r, Override: true}}}
		a, err := compile(l)
		if err != nil || strings.ContainsRune(path, 0) || len(p)+len(q)+len(r)+len(path) > 60 {
			return // not what lists hold, or too long for the slow way
		}
		want, deny := 0, false
		switch {
		case matches(tokens(r), path):
			want = 3
		case matches(tokens(q), path):
			want, deny = 2, true
		case matches(tokens(p), path):
			want = 1
		}
		if got, d := a.judge(path); got != want || d != deny {
			t.Errorf("%q by %q, %q, %q: rule %d, deny %t; want %d, %t", path, p, q, r, got, d, want, deny)
		}
	})
}

func TestBelow(t *testing.T) {
	a, err := compile(List{Rules: []Rule{{Path: "/srv/data/secret", Deny: true}, {Path: "/srv/data/**"}}})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{"/": true, "/srv/": true, "/srv/data/": true, "/srv/data/x/": false, "/home/": false, "/srv/data/secret": false} {
		at := uint16(1)
		for i := range len(path) {
			at = a.states[at-1].next[a.classes[path[i]]]
		}
		if got := a.states[at-1].below; got != want {
			t.Errorf("%s: %t, want %t", path, got, want)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	many := make([]Rule, MaxRules+1)
	for i := range many {
		many[i] = Rule{Path: fmt.Sprint("/", i)}
	}
	involved := make([]Rule, 40)
	for i := range involved {
		involved[i] = Rule{Path: "**/" + strings.Repeat("a?", i%7+3) + "**b" + strings.Repeat("?", i%11) + "/**/c"}
	}
	var wide strings.Builder
	for c := byte(1); c < 200; c++ {
		wide.WriteByte(c)
	}
	for name, rules := range map[string][]Rule{
		"too many":   many,
		"involved":   involved,
		"empty":      {{Name: "x"}},
		"long":       {{Path: "/" + strings.Repeat("a", MaxPath)}},
		"NUL":        {{Path: "/a\x00b"}},
		"both":       {{Path: "/a", Deny: true, Override: true}},
		"characters": {{Path: wide.String()}},
	} {
		if _, err := compile(List{Rules: rules}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestManyRules is about the size that lists of programs really have.
func TestManyRules(t *testing.T) {
	rules := make([]Rule, MaxRules)
	for i := range rules {
		rules[i] = Rule{Path: fmt.Sprintf("/usr/lib/package-%d/bin/*", i), Deny: i%2 == 0}
	}
	a, err := compile(List{Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	if n, deny := a.judge("/usr/lib/package-200/bin/tool"); n != 201 || !deny {
		t.Errorf("rule %d, %t", n, deny)
	}
	t.Logf("%d states, %d bytes", len(a.states), len(a.rows())*rowSize)
}

func BenchmarkCompile(b *testing.B) {
	l := List{Deny: true, Rules: []Rule{{Path: "/home/**"}, {Path: "/tmp/**"}, {Path: "**/.git/hooks/**", Deny: true}, {Path: "**/.env", Deny: true}}}
	for b.Loop() {
		if _, err := compile(l); err != nil {
			b.Fatal(err)
		}
	}
}
