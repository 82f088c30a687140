// Package tree puts records of the ledger in the order in which people ask
// about them: which call, which processes it led to, what each of them did.
package tree

import (
	"github.com/atoll-sh/atoll/engine"
)

// Entry is a call with all that came of it, or one record that belongs to no
// call. Exactly one of Call and Record is set.
type Entry struct {
	Call   *Call
	Record *engine.ActivityRecord
}

// Call is one call, or what of it is among the records.
type Call struct {
	ID        string
	Record    *engine.ActivityRecord // nil: the call itself is not among them
	Processes []*Process             // the first ones; the others are their children
	Records   []engine.ActivityRecord
}

// Process is one process of a call.
type Process struct {
	Key, Parent string
	PID         int
	Programs    []engine.ActivityRecord // what it ran, one after the other; empty: what its parent runs
	Exit        *engine.ActivityRecord  // nil: it lives, or that is not known
	Records     []engine.ActivityRecord // files, connections, denials
	Children    []*Process
}

// Of makes entries of records, in the order of the first record of each.
func Of(items []engine.ActivityRecord) []Entry {
	b := builder{calls: map[string]*Call{}, processes: map[[2]string]*Process{}}
	for i := range items {
		b.add(&items[i])
	}
	for _, e := range b.entries {
		if e.Call != nil {
			b.nest(e.Call)
		}
	}
	return b.entries
}

type builder struct {
	entries   []Entry
	calls     map[string]*Call
	processes map[[2]string]*Process // by call and key: a session's shell works for many calls
}

func (b *builder) add(r *engine.ActivityRecord) {
	if r.Call == "" {
		b.entries = append(b.entries, Entry{Record: r})
		return
	}
	c := b.calls[r.Call]
	if c == nil {
		c = &Call{ID: r.Call}
		b.calls[r.Call] = c
		b.entries = append(b.entries, Entry{Call: c})
	}
	switch {
	case r.Kind == engine.ActivityCall:
		c.Record = r
	case r.Process == "":
		c.Records = append(c.Records, *r)
	default:
		b.process(c, r).add(r)
	}
}

func (b *builder) process(c *Call, r *engine.ActivityRecord) *Process {
	k := [2]string{c.ID, r.Process}
	p := b.processes[k]
	if p == nil {
		p = &Process{Key: r.Process, Parent: r.Parent, PID: r.PID}
		b.processes[k] = p
		c.Processes = append(c.Processes, p)
	}
	return p
}

func (p *Process) add(r *engine.ActivityRecord) {
	switch r.Kind {
	case engine.ActivityExec:
		p.Programs = append(p.Programs, *r)
	case engine.ActivityExit:
		p.Exit = r
	default:
		p.Records = append(p.Records, *r)
	}
}

// nest puts processes below their parents.
func (b *builder) nest(c *Call) {
	all := c.Processes
	c.Processes = nil
	for _, p := range all {
		if parent := b.processes[[2]string{c.ID, p.Parent}]; parent != nil && parent != p {
			parent.Children = append(parent.Children, p)
		} else {
			c.Processes = append(c.Processes, p)
		}
	}
}

// Walk visits the processes of a call, each before its children.
func (c *Call) Walk(visit func(p *Process, depth int)) {
	var walk func(list []*Process, depth int)
	walk = func(list []*Process, depth int) {
		for _, p := range list {
			visit(p, depth)
			walk(p.Children, depth+1)
		}
	}
	walk(c.Processes, 0)
}
