package desktop

import (
	"context"
	"errors"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/godbus/dbus/v5"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

const (
	// maxNodes bounds a tree, maxVisited what one search looks at.
	maxNodes   = 3000
	maxVisited = 20_000
	// maxDepth bounds how deep trees are followed: programs may build loops.
	maxDepth = 100
	// Limits of the number of matches.
	defaultMatches, maxMatches = 100, 1000
	// maxA11yText bounds a name or description.
	maxA11yText = 4 << 10
	// parallel is how many nodes are asked at the same time.
	parallel = 16
)

// The scopes of a look at trees.
const (
	scopeFocused = "focused"
	scopePID     = "pid"
	scopeAll     = "all"
)

// stateNames are AT-SPI's states, by their number.
var stateNames = strings.Fields(`invalid active armed busy checked collapsed defunct editable enabled expandable
	expanded focusable focused has_tooltip horizontal iconified modal multi_line multiselectable opaque pressed
	resizable selectable selected sensitive showing single_line stale transient vertical visible
	manages_descendants indeterminate required truncated animated invalid_entry supports_autocompletion
	selectable_text is_default visited checkable has_popup read_only`) // constant

// walk is one look at trees.
type walk struct {
	ctx  context.Context
	conn *dbus.Conn

	cut  atomic.Bool // something was left out
	mu   sync.Mutex
	dead map[string]bool // programs that do not answer
}

// ask calls a method of a node; an error leaves out untouched.
func (w *walk) ask(r ref, out any, method string, args ...any) error {
	w.mu.Lock()
	dead := w.dead[r.Bus]
	w.mu.Unlock()
	if dead {
		return context.DeadlineExceeded
	}
	err := call(w.ctx, w.conn, r, method, args...).Store(out)
	if errors.Is(err, context.DeadlineExceeded) {
		w.cut.Store(true)
		w.mu.Lock()
		w.dead[r.Bus] = true
		w.mu.Unlock()
	}
	return err
}

func (w *walk) text(r ref, property string) string {
	var v dbus.Variant
	if w.ask(r, &v, "org.freedesktop.DBus.Properties.Get", strings.TrimSuffix(accessible, "."), property) != nil {
		return ""
	}
	s, _ := v.Value().(string)
	return strings.ToValidUTF8(s[:min(len(s), maxA11yText)], "")
}

// children lists what is below a node.
func (w *walk) children(r ref) []ref {
	var list []ref
	_ = w.ask(r, &list, accessible+"GetChildren") // one that is gone has none
	return slices.DeleteFunc(list, func(c ref) bool { return c.Path == nullPath || c.Bus == "" || !c.Path.IsValid() })
}

// states reads a node's states.
func (w *walk) states(r ref) []string {
	names := []string{}
	var bits []uint32
	_ = w.ask(r, &bits, accessible+"GetState")
	for i, n := range stateNames {
		if i/32 < len(bits) && bits[i/32]&(1<<(i%32)) != 0 {
			names = append(names, n)
		}
	}
	return names
}

// describe reads all of a node but its children; nil when it is gone.
func (w *walk) describe(r ref) *wire.A11yNode {
	n := &wire.A11yNode{ID: r.id(), Actions: []string{}}
	if err := w.ask(r, &n.Role, accessible+"GetRoleName"); err != nil {
		return nil
	}
	n.Name, n.States = w.text(r, "Name"), w.states(r)
	n.Description = w.text(r, "Description")
	var interfaces []string
	_ = w.ask(r, &interfaces, accessible+"GetInterfaces")
	if slices.Contains(interfaces, "org.a11y.atspi.Component") {
		var b struct{ X, Y, W, H int32 }
		if w.ask(r, &b, "org.a11y.atspi.Component.GetExtents", uint32(0)) == nil && b.W > 0 && b.H > 0 && b.X > math.MinInt32 {
			n.Bounds = wire.A11yBounds{X: int(b.X), Y: int(b.Y), Width: int(b.W), Height: int(b.H)}
		}
	}
	if slices.Contains(interfaces, "org.a11y.atspi.Action") {
		if names, err := actionsOf(w.ctx, w.conn, r); err == nil {
			n.Actions = names
		}
	}
	return n
}

// each runs f for 0 to n-1, several at a time.
func each(n int, f func(i int)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() { f(i); <-slots })
	}
	wg.Wait()
}

// visit is a node on the way, with its place in the tree.
type visit struct {
	ref    ref
	parent *wire.A11yNode
	node   *wire.A11yNode
	below  []ref
}

// levels goes down from roots, one level after the other, so that what is left
// out is the deepest. keep is told of each node in order and says whether to
// go on.
func (w *walk) levels(roots []ref, depth, most int, keep func(v *visit) bool) {
	level := make([]*visit, 0, len(roots))
	for _, r := range roots {
		level = append(level, &visit{ref: r})
	}
	seen := map[ref]bool{}
	for at := 0; len(level) > 0; at++ {
		if most -= len(level); most < 0 {
			level = level[:len(level)+most]
			w.cut.Store(true)
		}
		last := at == depth || at == maxDepth
		each(len(level), func(i int) {
			if v := level[i]; w.ctx.Err() == nil {
				if v.node = w.describe(v.ref); v.node != nil && !last {
					v.below = w.children(v.ref)
				}
			}
		})
		if w.ctx.Err() != nil {
			w.cut.Store(true)
		}
		var next []*visit
		for _, v := range level {
			if v.node == nil {
				continue
			}
			if !keep(v) {
				return
			}
			for _, c := range v.below {
				if !seen[c] {
					seen[c] = true
					next = append(next, &visit{ref: c, parent: v.node})
				}
			}
		}
		if most <= 0 || at == maxDepth {
			if len(next) > 0 {
				w.cut.Store(true)
			}
			return
		}
		level = next
	}
}

// look begins a look at what a scope holds: the roots are programs, or the
// desktop as a whole.
func (d *Desktop) look(ctx context.Context, scope string, pid int) (*walk, []ref, func(), error) {
	switch {
	case scope != "" && scope != scopeFocused && scope != scopePID && scope != scopeAll:
		return nil, nil, nil, wire.BadRequest("scope: %.20q is not possible; use focused, pid or all", scope)
	case scope == scopePID && (pid < 1 || pid > math.MaxInt32):
		return nil, nil, nil, wire.BadRequest("pid: %d is no process; with scope pid, give one", pid)
	}
	conn, err := d.bus()
	if err != nil {
		return nil, nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, walkLimit)
	w := &walk{ctx: ctx, conn: conn, dead: map[string]bool{}}
	desktop := ref{registry, rootPath}
	if scope == scopeAll {
		return w, []ref{desktop}, cancel, nil
	}
	programs := w.children(desktop)
	if scope == scopePID {
		for _, p := range programs {
			if w.pid(p.Bus) == pid {
				return w, []ref{p}, cancel, nil
			}
		}
		cancel()
		return nil, nil, nil, wire.Errorf(http.StatusNotFound, wire.CodeNotFound, "process %d shows nothing to assistive technology; use the scope all to see what does", pid)
	}
	if p, ok := d.focused(w, programs); ok {
		return w, []ref{p}, cancel, nil
	}
	cancel()
	return nil, nil, nil, wire.Errorf(http.StatusNotFound, wire.CodeNotFound, "no program that describes itself to assistive technology has the focus; use the scope all")
}

// pid returns the process behind a name on the bus, 0 when it is gone.
func (w *walk) pid(bus string) int {
	var pid uint32
	_ = w.ask(ref{"org.freedesktop.DBus", "/org/freedesktop/DBus"}, &pid, "org.freedesktop.DBus.GetConnectionUnixProcessID", bus)
	return int(pid)
}

// focused finds the program that has the focus: the one whose process owns the
// active window, else one that says that a window of its own is active.
func (d *Desktop) focused(w *walk, programs []ref) (ref, bool) {
	if screen, err := d.Screen(); err == nil {
		if pid, err := screen.ActivePID(); err == nil && pid != 0 {
			for _, p := range programs {
				if w.pid(p.Bus) == pid {
					return p, true
				}
			}
		}
	}
	for _, p := range programs {
		for _, window := range w.children(p) {
			if slices.Contains(w.states(window), "active") {
				return p, true
			}
		}
	}
	return ref{}, false
}

// Tree returns what a scope holds, down to a depth: 0 is the root alone, -1
// everything.
func (d *Desktop) Tree(ctx context.Context, scope string, pid, depth int) (wire.A11yTree, error) {
	if depth < -1 {
		return wire.A11yTree{}, wire.BadRequest("maxDepth: %d is not possible; use 0 for the root alone, -1 for everything", depth)
	}
	w, roots, done, err := d.look(ctx, scope, pid)
	if err != nil {
		return wire.A11yTree{}, err
	}
	defer done()
	var tree wire.A11yTree
	w.levels(roots, depth, maxNodes, func(v *visit) bool {
		if v.parent == nil {
			tree.Root = v.node
		} else {
			v.parent.Children = append(v.parent.Children, v.node)
		}
		return true
	})
	if tree.Root == nil {
		return tree, noAccess(errors.New("the program does not answer"))
	}
	tree.Truncated = w.cut.Load()
	return tree, nil
}

// Find returns the nodes that match.
func (d *Desktop) Find(ctx context.Context, q wire.A11yFind) (wire.A11yMatches, error) {
	found := wire.A11yMatches{Matches: []*wire.A11yNode{}}
	limit := q.Limit
	if limit == 0 {
		limit = defaultMatches
	}
	if limit < 0 || limit > maxMatches {
		return found, wire.BadRequest("limit: %d is not possible; use 1 to %d", q.Limit, maxMatches)
	}
	matches, err := matcher(q)
	if err != nil {
		return found, err
	}
	w, roots, done, err := d.look(ctx, q.Scope, q.PID)
	if err != nil {
		return found, err
	}
	defer done()
	w.levels(roots, -1, maxVisited, func(v *visit) bool {
		if !matches(v.node) {
			return true
		}
		if len(found.Matches) == limit {
			w.cut.Store(true)
			return false
		}
		found.Matches = append(found.Matches, v.node)
		return true
	})
	found.Truncated = w.cut.Load()
	return found, nil
}

// plainName brings push_button, Push-Button and "push button" together.
func plainName(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return r == '_' || r == '-' || r == ' ' }), " ")
}

// matcher checks a query and makes a function of it.
func matcher(q wire.A11yFind) (func(*wire.A11yNode) bool, error) {
	if len(q.Name) > maxA11yText || len(q.Role) > 100 || len(q.States) > len(stateNames) {
		return nil, wire.BadRequest("name, role, states: they are too long")
	}
	var states []string
	for _, s := range q.States {
		i := slices.IndexFunc(stateNames, func(n string) bool { return plainName(n) == plainName(s) })
		if i < 0 {
			return nil, wire.BadRequest("states: there is no state %.40q; the states are %s", s, strings.Join(stateNames, ", "))
		}
		states = append(states, stateNames[i])
	}
	named, err := nameMatcher(q.Name, q.NameMatch)
	role := plainName(q.Role)
	return func(n *wire.A11yNode) bool {
		has := plainName(n.Role)
		// What AT-SPI called a push button at first is a button now.
		if role != "" && has != role && !(role == "button" && has == "push button") && !(role == "push button" && has == "button") {
			return false
		}
		for _, s := range states {
			if !slices.Contains(n.States, s) {
				return false
			}
		}
		return named(n.Name)
	}, err
}

func nameMatcher(name, how string) (func(string) bool, error) {
	switch how {
	case "exact":
		return func(s string) bool { return name == "" || s == name }, nil
	case "", "substring":
		lower := strings.ToLower(name)
		return func(s string) bool { return strings.Contains(strings.ToLower(s), lower) }, nil
	case "regex":
		re, err := regexp.Compile(name)
		if err != nil {
			return nil, wire.BadRequest("name: it is not a regular expression: %v", err)
		}
		return re.MatchString, nil
	}
	return nil, wire.BadRequest("nameMatch: %.20q is not possible; use exact, substring or regex", how)
}
