package enforce

import (
	"fmt"
	"strings"
)

// Rules are what one sandbox may do with programs and files. The zero value
// judges nothing.
type Rules struct {
	Exec  List // programs that are started, and the scripts that name them
	Write List // files opened for writing, and names made, removed, moved or changed
	Read  List // regular files opened for reading
}

// List judges one kind of access. Without rules it allows all, or with Deny
// nothing.
type List struct {
	Rules []Rule // at most MaxRules
	Deny  bool   // what no rule matches is refused
}

// Rule matches paths. Among the rules that match, one that denies wins, in any
// order; only one with Override stands above it.
type Rule struct {
	Name string // told with what it refused
	// Path is a pattern for the whole path, at most MaxPath bytes: * is any run
	// of characters but "/", ** any run at all, ? one character but "/".
	Path     string
	Deny     bool
	Override bool // allows whatever other rules say
}

// Limits of a list. The patterns also have to fit together: many with ** in the
// middle may need more states than the programs have room for.
const (
	MaxRules = 256
	MaxPath  = 512
)

func (l List) empty() bool { return len(l.Rules) == 0 && !l.Deny }

func (l List) check() error {
	if len(l.Rules) > MaxRules {
		return fmt.Errorf("%d rules, of at most %d", len(l.Rules), MaxRules)
	}
	for _, r := range l.Rules {
		switch {
		case r.Path == "":
			return fmt.Errorf("rule %q has no path", r.Name)
		case len(r.Path) > MaxPath:
			return fmt.Errorf("the path of rule %q has %d bytes, of at most %d", r.Name, len(r.Path), MaxPath)
		case strings.ContainsRune(r.Path, 0):
			return fmt.Errorf("the path of rule %q holds a NUL byte", r.Name)
		case r.Deny && r.Override:
			return fmt.Errorf("rule %q denies, so it cannot override", r.Name)
		}
	}
	return nil
}
