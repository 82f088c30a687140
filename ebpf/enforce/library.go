package enforce

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
)

// keepIdle is how many automata stay that no sandbox uses: the next one has the
// same policy, and a new automaton costs a wait for the kernel.
const keepIdle = 64

// library is the automata in the kernel. Equal lists share one.
type library struct {
	table  *ebpf.Map
	next   uint32
	known  map[string]uint32 // by the list as JSON
	shelf  map[uint32]*volume
	idle   []uint32 // without a reader, the oldest first
	others []uint32 // of an earlier process
}

// volume is one automaton.
type volume struct {
	key   string
	rules []string // their names
	users int
}

// openLibrary finds the automata of an earlier process, whose numbers must not
// be used again while anybody uses them.
func openLibrary(table *ebpf.Map) (library, error) {
	l := library{table: table, next: 1, known: map[string]uint32{}, shelf: map[uint32]*volume{}}
	var n uint32
	var m *ebpf.Map
	it := table.Iterate()
	for it.Next(&n, &m) {
		m.Close()
		l.others = append(l.others, n)
		l.next = max(l.next, n+1)
	}
	return l, it.Err()
}

// take makes the automata of the rules' lists, or finds them. What it returns
// must be given back. On error nothing was taken.
func (l *library) take(r Rules) (automata [lists]uint32, err error) {
	for i, list := range []struct {
		name string
		list List
	}{{"programs", r.Exec}, {"writing", r.Write}, {"reading", r.Read}} {
		if list.list.empty() {
			continue
		}
		if automata[i], err = l.takeOne(list.list); err != nil {
			l.give(automata)
			return [lists]uint32{}, fmt.Errorf("rules for %s: %w", list.name, err)
		}
	}
	return automata, nil
}

func (l *library) takeOne(list List) (uint32, error) {
	key, err := json.Marshal(list)
	if err != nil {
		return 0, err
	}
	n, ok := l.known[string(key)]
	if !ok {
		a, err := compile(list)
		if err != nil {
			return 0, err
		}
		n = l.next
		if err := l.put(n, a); err != nil {
			return 0, fmt.Errorf("give the rules to the kernel: %w", err)
		}
		l.next++
		v := &volume{key: string(key)}
		for _, r := range list.Rules {
			v.rules = append(v.rules, r.Name)
		}
		l.known[v.key], l.shelf[n] = n, v
	}
	l.shelf[n].users++
	if i := slices.Index(l.idle, n); i >= 0 {
		l.idle = slices.Delete(l.idle, i, i+1)
	}
	return n, nil
}

func (l *library) put(n uint32, a *automaton) error {
	rows := a.rows()
	spec := tableSpec()
	spec.MaxEntries = uint32(len(rows))
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return err
	}
	defer m.Close()
	keys := make([]uint32, len(rows))
	for i := range keys {
		keys[i] = uint32(i)
	}
	if _, err := m.BatchUpdate(keys, rows, nil); err != nil {
		return err
	}
	return l.table.Put(n, m)
}

// tableSpec is the map of one automaton, as in enforce.h.
func tableSpec() *ebpf.MapSpec {
	return &ebpf.MapSpec{Name: "automaton", Type: ebpf.Array, KeySize: 4, ValueSize: rowSize, Flags: innerMap}
}

const innerMap = 1 << 12 // BPF_F_INNER_MAP: tables differ in size

// give takes automata back. The oldest that nobody uses are dropped.
func (l *library) give(automata [lists]uint32) {
	for _, n := range automata {
		v := l.shelf[n]
		if v == nil {
			continue
		}
		if v.users--; v.users == 0 {
			l.idle = append(l.idle, n)
		}
	}
	for len(l.idle) > keepIdle {
		n := l.idle[0]
		l.idle = l.idle[1:]
		delete(l.known, l.shelf[n].key)
		delete(l.shelf, n)
		_ = l.table.Delete(n) // one that stays is found by the next process
	}
}

// sweep drops the automata of earlier processes. No sandbox may use them.
func (l *library) sweep() error {
	var errs []error
	for _, n := range l.others {
		errs = append(errs, gone(l.table.Delete(n)))
	}
	l.others = nil
	return errors.Join(errs...)
}

// rule is the name of a rule that refused, empty for the default, and when it is
// not known any more.
func (l *library) rule(automaton, rule uint32) string {
	v := l.shelf[automaton]
	if v == nil || rule == 0 || int(rule) > len(v.rules) {
		return ""
	}
	return v.rules[rule-1]
}
