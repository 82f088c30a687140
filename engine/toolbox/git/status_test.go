package git

import "testing"

// FuzzParseStatus feeds what a hostile git in a sandbox may print.
func FuzzParseStatus(f *testing.F) {
	f.Add("# branch.oid x\x00# branch.head main\x00# branch.ab +1 -2\x001 .M N... 1 2 3 a b name\x002 R. N... 1 2 3 a b R100 new\x00old\x00? x\x00")
	f.Add("2 R. N... 1 2 3 a b R100 new")
	f.Add("u UU N... 1 2 3 4 a b c both\x00")
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range parseStatus(text).FileStatus {
			if s.Staging == "" || s.Worktree == "" {
				t.Errorf("%q: got %+v", text, s)
			}
		}
	})
}

func TestBranchName(t *testing.T) {
	for name, ok := range map[string]bool{
		"main": true, "a/b-c.d": true, "é": true, "-x": false, "": false, "a b": false, "a..b": false, "a/": false,
		"/a": false, ".a": false, "a/.b": false, "a.lock": false, "@": false, "HEAD": false, "a@{1}": false, "+a": false,
		"a:b": false, "a*": false, "a\nb": false, "a\x01": false, "a.": false,
	} {
		if err := branchName("name", name); (err == nil) != ok {
			t.Errorf("%q: got %v, want ok %v", name, err, ok)
		}
	}
}
