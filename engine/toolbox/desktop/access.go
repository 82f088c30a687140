package desktop

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

const (
	accessible = "org.a11y.atspi.Accessible."
	rootPath   = dbus.ObjectPath("/org/a11y/atspi/accessible/root")
	nullPath   = dbus.ObjectPath("/org/a11y/atspi/null")
	registry   = "org.a11y.atspi.Registry"

	// callLimit is how long a program has to answer one question; one that
	// does not is not asked again by the same call.
	callLimit = 2 * time.Second
	// walkLimit is how long one look at trees may take.
	walkLimit = 20 * time.Second
)

// access talks to programs as assistive technology does.
type access struct {
	session string // address of the session bus

	mu   sync.Mutex
	conn *dbus.Conn // to the bus of accessibility; nil: not connected
}

func newAccess(session string) *access { return &access{session: session} }

func (a *access) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn != nil {
		a.conn.Close()
		a.conn = nil
	}
}

func noAccess(err error) error {
	e := wire.Errorf(http.StatusServiceUnavailable, wire.CodeA11yUnavailable,
		"accessibility is not available: %v; it needs at-spi2-core and dbus, which the snapshot atoll-desktop has", err)
	e.Err = err
	return e
}

// bus returns a live connection to the bus of accessibility. Programs are told
// that somebody listens, so that they describe themselves.
func (a *access) bus() (*dbus.Conn, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn != nil && a.conn.Connected() {
		return a.conn, nil
	}
	session, err := connect(a.session)
	if err != nil {
		return nil, noAccess(err)
	}
	defer session.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*callLimit) // it is started by this call
	defer cancel()
	var address string
	o := session.Object("org.a11y.Bus", "/org/a11y/bus")
	if err := o.CallWithContext(ctx, "org.a11y.Bus.GetAddress", 0).Store(&address); err != nil {
		return nil, noAccess(err)
	}
	_ = o.CallWithContext(ctx, "org.freedesktop.DBus.Properties.Set", 0, "org.a11y.Status", "IsEnabled", dbus.MakeVariant(true)).Err
	conn, err := connect(address)
	if err != nil {
		return nil, noAccess(err)
	}
	a.conn = conn
	return conn, nil
}

// connect joins a bus.
func connect(address string) (*dbus.Conn, error) {
	conn, err := dbus.Dial(address)
	if err != nil {
		return nil, err
	}
	if err := conn.Auth(nil); err != nil {
		conn.Close()
		return nil, err
	}
	if err := conn.Hello(); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// ref names a node.
type ref struct {
	Bus  string
	Path dbus.ObjectPath
}

func (r ref) id() string { return r.Bus + ":" + string(r.Path) }

var busName = regexp.MustCompile(`^(:[0-9]+(\.[0-9]+)+|[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*)+)$`)

// parseRef reads an id as :1.7:/org/a11y/atspi/accessible/12.
func parseRef(id string) (ref, error) {
	i := strings.Index(id, ":/")
	if len(id) > 512 || i < 1 {
		return ref{}, badRef(id)
	}
	r := ref{Bus: id[:i], Path: dbus.ObjectPath(id[i+1:])}
	if !busName.MatchString(r.Bus) || !r.Path.IsValid() {
		return ref{}, badRef(id)
	}
	return r, nil
}

func badRef(id string) error {
	return wire.BadRequest("id: %.80q is no node; use an id of an answer, as :1.7:/org/a11y/atspi/accessible/12", id)
}

// call asks a node something and waits for the answer.
func call(ctx context.Context, conn *dbus.Conn, r ref, method string, args ...any) *dbus.Call {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return conn.Object(r.Bus, r.Path).CallWithContext(ctx, method, dbus.FlagNoAutoStart, args...)
}

// nodeError explains why a node did not answer.
func nodeError(r ref, err error) error {
	var e dbus.Error
	if !errors.As(err, &e) {
		return wire.Errorf(http.StatusInternalServerError, wire.CodeInternal, "node %s does not answer: %v", r.id(), err)
	}
	switch e.Name {
	case "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner",
		"org.freedesktop.DBus.Error.UnknownObject", "org.freedesktop.DBus.Error.UnknownMethod":
		return wire.Errorf(http.StatusNotFound, wire.CodeNotFound, "there is no node %s; it is gone", r.id())
	}
	return wire.Errorf(http.StatusInternalServerError, wire.CodeInternal, "node %s: %v", r.id(), e)
}

// node finds a live node with the interfaces it has.
func (d *Desktop) node(ctx context.Context, id string) (*dbus.Conn, ref, map[string]bool, error) {
	r, err := parseRef(id)
	if err != nil {
		return nil, r, nil, err
	}
	conn, err := d.bus()
	if err != nil {
		return nil, r, nil, err
	}
	var names []string
	if err := call(ctx, conn, r, accessible+"GetInterfaces").Store(&names); err != nil {
		return nil, r, nil, nodeError(r, err)
	}
	has := map[string]bool{}
	for _, n := range names {
		has[strings.TrimPrefix(n, "org.a11y.atspi.")] = true
	}
	return conn, r, has, nil
}

func (d *Desktop) bus() (*dbus.Conn, error) {
	d.mu.Lock()
	a := d.access
	d.mu.Unlock()
	if a == nil {
		return nil, NotStarted()
	}
	return a.bus()
}

// Focus moves the keyboard's focus to a node.
func (d *Desktop) Focus(ctx context.Context, q wire.A11yTarget) error {
	conn, r, has, err := d.node(ctx, q.ID)
	if err != nil {
		return err
	}
	var done bool
	if has["Component"] {
		if err := call(ctx, conn, r, "org.a11y.atspi.Component.GrabFocus").Store(&done); err != nil {
			return nodeError(r, err)
		}
	}
	if !done {
		return wire.BadRequest("id: node %s cannot take the focus", r.id())
	}
	return nil
}

// maxActions bounds the actions of a node.
const maxActions = 32

// actionsOf lists the names of a node's actions. Some programs tell them only
// one by one.
func actionsOf(ctx context.Context, conn *dbus.Conn, r ref) ([]string, error) {
	var list []struct{ Name, Description, Key string }
	if err := call(ctx, conn, r, "org.a11y.atspi.Action.GetActions").Store(&list); err != nil {
		return nil, err
	}
	names := make([]string, 0, len(list))
	for i, a := range list[:min(len(list), maxActions)] {
		if a.Name == "" {
			_ = call(ctx, conn, r, "org.a11y.atspi.Action.GetName", int32(i)).Store(&a.Name)
		}
		names = append(names, cmp.Or(a.Name, a.Description, strconv.Itoa(i)))
	}
	return names, nil
}

// Invoke calls an action of a node, its first when none is named.
func (d *Desktop) Invoke(ctx context.Context, q wire.A11yInvoke) error {
	conn, r, has, err := d.node(ctx, q.ID)
	if err != nil {
		return err
	}
	var actions []string
	if has["Action"] {
		if actions, err = actionsOf(ctx, conn, r); err != nil {
			return nodeError(r, err)
		}
	}
	if len(actions) == 0 {
		return wire.BadRequest("id: node %s has no action", r.id())
	}
	index := 0
	if q.Action != "" {
		index = -1
		for i, a := range actions {
			if strings.EqualFold(a, q.Action) {
				index = i
				break
			}
		}
	}
	if index < 0 {
		return wire.BadRequest("action: node %s has no action %.40q; it has %s", r.id(), q.Action, strings.Join(actions, ", "))
	}
	var done bool
	if err := call(ctx, conn, r, "org.a11y.atspi.Action.DoAction", int32(index)).Store(&done); err != nil {
		return nodeError(r, err)
	}
	if !done {
		return wire.Errorf(http.StatusInternalServerError, wire.CodeInternal, "node %s refused the action %s", r.id(), actions[index])
	}
	return nil
}

// SetValue writes a node's text, or the number of a slider and its like. A text
// that can only be typed, as in some browsers, is typed.
func (d *Desktop) SetValue(ctx context.Context, q wire.A11ySetValue) error {
	if len(q.Value) > 1<<20 {
		return wire.BadRequest("value: it is longer than 1 MiB")
	}
	conn, r, has, err := d.node(ctx, q.ID)
	if err != nil {
		return err
	}
	done := true
	switch {
	case has["EditableText"]:
		err = call(ctx, conn, r, "org.a11y.atspi.EditableText.SetTextContents", q.Value).Store(&done)
	case has["Value"]:
		n, perr := strconv.ParseFloat(strings.TrimSpace(q.Value), 64)
		if perr != nil {
			return wire.BadRequest("value: %.40q is not a number, which node %s needs", q.Value, r.id())
		}
		err = call(ctx, conn, r, "org.freedesktop.DBus.Properties.Set", "org.a11y.atspi.Value", "CurrentValue", dbus.MakeVariant(n)).Err
	default:
		return d.overwrite(ctx, conn, r, q.Value)
	}
	if err != nil {
		return nodeError(r, err)
	}
	if !done {
		return wire.BadRequest("id: the text of node %s cannot be written", r.id())
	}
	return nil
}

// overwrite types a text in place of what an editable node holds.
func (d *Desktop) overwrite(ctx context.Context, conn *dbus.Conn, r ref, text string) error {
	w := &walk{ctx: ctx, conn: conn, dead: map[string]bool{}}
	states := w.states(r)
	switch {
	case !slices.Contains(states, "editable"):
		return wire.BadRequest("id: node %s has neither a text that can be written nor a number", r.id())
	case slices.Contains(states, "single_line") && strings.ContainsAny(text, "\r\n"):
		return wire.BadRequest("value: node %s holds one line, and the value has several", r.id())
	}
	screen, err := d.Screen()
	if err != nil {
		return err
	}
	if err := d.Focus(ctx, wire.A11yTarget{ID: r.id()}); err != nil {
		return err
	}
	// The focus moves when the program gets to it.
	for end := time.Now().Add(callLimit); !slices.Contains(w.states(r), "focused"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			return wire.Errorf(http.StatusInternalServerError, wire.CodeInternal, "node %s did not take the focus", r.id())
		}
	}
	if err := screen.Hotkey(wire.KeyboardHotkey{Keys: "ctrl+a"}); err != nil {
		return err
	}
	if text == "" {
		return screen.Hotkey(wire.KeyboardHotkey{Keys: "delete"})
	}
	return screen.Type(ctx, wire.KeyboardType{Text: text})
}
