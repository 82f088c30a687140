package sudo

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	tests := []struct {
		args []string
		want request
		todo action
		fail bool
	}{
		{[]string{"ls", "-l"}, request{Argv: []string{"ls", "-l"}}, run, false},
		{[]string{"-nE", "A=1", "B=x y", "env", "C=3"}, request{Keep: true, Set: map[string]string{"A": "1", "B": "x y"}, Argv: []string{"env", "C=3"}}, run, false},
		{[]string{"-udev", "--", "-x"}, request{User: "dev", Argv: []string{"-x"}}, run, false},
		{[]string{"-g", "g", "-u", "#5", "id"}, request{User: "5:g", Argv: []string{"id"}}, run, false},
		{[]string{"--user=dev", "--login"}, request{User: "dev", Login: true}, run, false},
		{[]string{"--preserve-env=A,B", "ls"}, request{Keep: true, Argv: []string{"ls"}}, run, false},
		{[]string{"-D", "/tmp", "pwd"}, request{Cwd: "/tmp", Argv: []string{"pwd"}}, run, false},
		{[]string{"-v"}, request{}, validate, false},
		{[]string{"-l"}, request{}, list, false},
		{nil, request{}, usage, false},
		{[]string{"-u"}, request{}, run, true},
		{[]string{"-Z"}, request{}, run, true},
		{[]string{"--nope"}, request{}, run, true},
	}
	for _, tt := range tests {
		got, todo, err := parse(tt.args)
		if (err != nil) != tt.fail {
			t.Errorf("%q: got %v, want an error: %v", tt.args, err, tt.fail)
			continue
		}
		if tt.fail {
			continue
		}
		if len(got.Set) == 0 {
			got.Set = nil
		}
		if len(got.Argv) == 0 {
			got.Argv = nil
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || todo != tt.todo {
			t.Errorf("%q: action %d, want %d; -want +got\n%s", tt.args, todo, tt.todo, diff)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("-nE", "-u", "A=1")
	f.Fuzz(func(_ *testing.T, a, b, c string) { _, _, _ = parse([]string{a, b, c}) })
}
