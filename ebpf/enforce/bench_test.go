package enforce

import (
	"fmt"
	"strconv"
	"testing"
)

// BenchmarkRules measures what judging adds to opening a file and to running a
// program, the smallest there is. The first line of each is without the programs
// of this package, so that it has to run before anything attaches them.
func BenchmarkRules(b *testing.B) {
	dir := tree(b, "tool", "file")
	for _, c := range []struct {
		name     string
		attached bool
		rules    int
	}{{"detached", false, 0}, {"none", true, 0}, {"1", true, 1}, {"256", true, 256}} {
		for _, act := range []struct{ name, path string }{{"reads", dir + "/file"}, {"runs", "/bin/true"}} {
			b.Run(act.name+"/rules="+c.name, func(b *testing.B) {
				if c.attached {
					open(b)
				}
				a := startAgent(b)
				if c.rules > 0 {
					set(b, shared.Enforcer, a, some(c.rules))
				}
				a.may(act.name, act.path, "1")
				b.ResetTimer()
				a.may(act.name, act.path, strconv.Itoa(b.N))
			})
		}
	}
}

// some are so many rules of each list, none about what runs here.
func some(n int) Rules {
	var l List
	for i := range n {
		l.Rules = append(l.Rules, Rule{Name: "one", Path: fmt.Sprintf("/usr/share/%d/*", i), Deny: true})
	}
	return Rules{Exec: l, Read: l, Write: l}
}
