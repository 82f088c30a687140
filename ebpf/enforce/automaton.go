package enforce

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// A list becomes a deterministic automaton: the programs read a path once, byte
// by byte, whatever the number of rules, and know at its end which rule decides.
const (
	maxStates  = 8192
	maxClasses = 120      // of characters, as in enforce.h
	maxWork    = 50 << 20 // steps of building one automaton; some tenths of a second
)

// state is one row of the programs' table.
type state struct {
	next  []uint16 // by class; rows are numbered from 1
	rule  int      // that decides a path ending here, from 1; 0 is none
	deny  bool
	below bool // a longer path may be refused
}

// automaton is what the programs run.
type automaton struct {
	classes [256]uint8
	states  []state // the first is row 1, where paths begin
}

// token is one part of a pattern.
type token struct {
	kind  byte // 0 for the character itself; '?', '*' and 'd', which is **
	value byte
}

func tokens(pattern string) (out []token) {
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case strings.HasPrefix(pattern[i:], "**"):
			out = append(out, token{kind: 'd'})
			i++
		case c == '*' || c == '?':
			out = append(out, token{kind: c})
		default:
			out = append(out, token{value: c})
		}
	}
	return out
}

// takes tells whether a character can be what the token stands for.
func (t token) takes(c byte) bool {
	switch t.kind {
	case 'd':
		return true
	case '*', '?':
		return c != '/'
	}
	return t.value == c
}

func (t token) repeats() bool { return t.kind == 'd' || t.kind == '*' }

// place is how far a pattern was read.
type place struct{ rule, at uint16 }

// builder follows all patterns at once.
type builder struct {
	rules    []Rule
	patterns [][]token
	numbers  map[string]uint16 // of sets of places
	sets     [][]place
	work     int
}

// compile makes the automaton of a list.
func compile(l List) (*automaton, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	b := builder{rules: l.Rules, numbers: map[string]uint16{}}
	var first []place
	for i, r := range l.Rules {
		b.patterns = append(b.patterns, tokens(r.Path))
		first = append(first, place{rule: uint16(i)})
	}
	a, letters, err := b.classes()
	if err != nil {
		return nil, err
	}
	if _, err := b.number(first); err != nil {
		return nil, err
	}
	for i := 0; i < len(b.sets); i++ {
		s := state{next: make([]uint16, len(letters))}
		s.rule, s.deny = b.verdict(b.sets[i], l.Deny)
		for class, c := range letters {
			if s.next[class], err = b.number(b.step(b.sets[i], c)); err != nil {
				return nil, err
			}
		}
		a.states = append(a.states, s)
	}
	a.markBelow()
	return a, nil
}

// classes numbers the characters that patterns name, "/" always; all others
// are class 0. It returns one character of each class.
func (b *builder) classes() (*automaton, []byte, error) {
	a := &automaton{}
	named := [256]bool{'/': true}
	for _, p := range b.patterns {
		for _, t := range p {
			if t.kind == 0 {
				named[t.value] = true
			}
		}
	}
	letters := []byte{0} // no path holds it
	for c, is := range named {
		if is {
			a.classes[c] = uint8(len(letters))
			letters = append(letters, byte(c))
		}
	}
	if len(letters) > maxClasses {
		return nil, nil, fmt.Errorf("the paths use %d different characters, of at most %d", len(letters)-1, maxClasses-1)
	}
	return a, letters, nil
}

// step is where one more character leads.
func (b *builder) step(from []place, c byte) (to []place) {
	b.work += len(from) + 1
	for _, p := range from {
		pattern := b.patterns[p.rule]
		for at := p.at; int(at) < len(pattern); at++ { // what repeats may also be empty
			t := pattern[at]
			if t.takes(c) {
				next := at
				if !t.repeats() {
					next++
				}
				to = append(to, place{p.rule, next})
			}
			if !t.repeats() {
				break
			}
		}
	}
	return to
}

// number finds the row of a set of places, or makes one.
func (b *builder) number(set []place) (uint16, error) {
	slices.SortFunc(set, func(x, y place) int {
		if x.rule != y.rule {
			return int(x.rule) - int(y.rule)
		}
		return int(x.at) - int(y.at)
	})
	set = slices.Compact(set)
	key := make([]byte, 0, 4*len(set))
	for _, p := range set {
		key = binary.LittleEndian.AppendUint16(key, p.rule)
		key = binary.LittleEndian.AppendUint16(key, p.at)
	}
	if n, ok := b.numbers[string(key)]; ok {
		return n, nil
	}
	if len(b.sets) == maxStates || b.work > maxWork {
		return 0, fmt.Errorf("the paths are too many or too involved together: use fewer rules, or fewer stars in the middle")
	}
	b.sets = append(b.sets, set)
	n := uint16(len(b.sets))
	b.numbers[string(key)] = n
	return n, nil
}

// verdict is what the rules say of a path that ends at these places.
func (b *builder) verdict(set []place, deny bool) (rule int, denied bool) {
	allow := 0
	for _, p := range set {
		if !b.ends(p) {
			continue
		}
		r := b.rules[p.rule]
		switch {
		case r.Override:
			return int(p.rule) + 1, false
		case r.Deny && !denied:
			rule, denied = int(p.rule)+1, true
		case !r.Deny && allow == 0:
			allow = int(p.rule) + 1
		}
	}
	switch {
	case denied:
		return rule, true
	case allow > 0:
		return allow, false
	}
	return 0, deny
}

// ends tells whether nothing more has to come.
func (b *builder) ends(p place) bool {
	for _, t := range b.patterns[p.rule][p.at:] {
		if !t.repeats() {
			return false
		}
	}
	return true
}

// markBelow finds the states from which a refusal can be reached.
func (a *automaton) markBelow() {
	for changed := true; changed; {
		changed = false
		for i := len(a.states) - 1; i >= 0; i-- {
			s := &a.states[i]
			if s.below {
				continue
			}
			for _, n := range s.next {
				if t := a.states[n-1]; t.deny || t.below {
					s.below, changed = true, true
					break
				}
			}
		}
	}
}

// last tells whether every path that comes to a row ends in it.
func (a *automaton) last(row int) bool {
	for _, n := range a.states[row-1].next {
		if int(n) != row {
			return false
		}
	}
	return true
}

// rows is the table as the programs read it.
func (a *automaton) rows() [][rowSize]byte {
	rows := make([][rowSize]byte, 1, len(a.states)+1)
	copy(rows[0][:], a.classes[:])
	for i, s := range a.states {
		var r [rowSize]byte
		for class, n := range s.next {
			binary.LittleEndian.PutUint16(r[2*class:], n)
		}
		binary.LittleEndian.PutUint32(r[2*maxClasses:], uint32(s.rule))
		for k, flag := range []bool{s.deny, s.below, a.last(i + 1)} {
			if flag {
				r[2*maxClasses+4+k] = 1
			}
		}
		rows = append(rows, r)
	}
	return rows
}

const rowSize = 256

// judge is what the programs do, for tests.
func (a *automaton) judge(path string) (rule int, deny bool) {
	at := uint16(1)
	for i := range len(path) {
		at = a.states[at-1].next[a.classes[path[i]]]
	}
	s := a.states[at-1]
	return s.rule, s.deny
}
