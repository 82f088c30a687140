package process

import (
	"slices"
	"testing"
)

func TestPlain(t *testing.T) {
	env := map[string]string{"PATH": "/usr/local/bin:/usr/bin:/bin"}
	for script, want := range map[string][]string{
		"true":                 {"true"},
		"ls -la  /tmp/x":       {"ls", "-la", "/tmp/x"},
		"env A=b@c":            {"env", "A=b@c"},
		"A=b env":              nil,
		"echo hi":              nil, // a builtin with its own ways
		"cd /tmp":              nil,
		"./x":                  nil,
		"/usr/bin/env":         nil,
		"ls *":                 nil,
		"ls ~":                 nil,
		"ls 'a b'":             nil,
		"ls $HOME":             nil,
		"ls; ls":               nil,
		"ls | cat":             nil,
		"ls &":                 nil,
		"ls > x":               nil,
		"ls\nls":               nil,
		"ls # all":             nil,
		"ls {a,b}":             nil,
		"! true":               nil,
		"nosuchprogram at all": nil,
		"ls \\x":               nil,
		"ls \xff":              nil,
		"":                     nil,
		"if true":              nil,
		"ls é":                 nil,
		"test -e /etc/passwd":  nil,
		"time ls":              nil,
		"(ls)":                 nil,
		"ls !!":                nil,
		"ls `id`":              nil,
		"printf %s":            nil,
		"touch a.txt b-c.txt":  {"touch", "a.txt", "b-c.txt"},
	} {
		_, argv, ok := plain(script, "/", env)
		if !ok {
			argv = nil
		}
		if !slices.Equal(argv, want) {
			t.Errorf("plain(%q) = %q, want %q", script, argv, want)
		}
	}
	env["BASH_ENV"] = "/x"
	if _, _, ok := plain("true", "/", env); ok {
		t.Error("a start-up file of the shell was passed over")
	}
}
