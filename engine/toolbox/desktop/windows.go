package desktop

import (
	"strings"
	"unicode/utf8"

	"github.com/jezek/xgb/xproto"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// maxWindows bounds the list of windows, maxTitle the length of a title.
const (
	maxWindows = 500
	maxTitle   = 1 << 10
)

// Windows lists the windows that the window manager knows. Without a window
// manager it lists those that are shown and have a title.
func (s *Screen) Windows() (list wire.Windows, err error) {
	list.Windows = []wire.Window{}
	err = s.use(func(x *display) error {
		ids, err := x.clients()
		if err != nil {
			return err
		}
		active, err := x.active()
		if err != nil {
			return err
		}
		for _, w := range ids[:min(len(ids), maxWindows)] {
			if info, ok := x.describe(w); ok {
				info.IsActive = w == active
				list.Windows = append(list.Windows, info)
			}
		}
		return nil
	})
	return list, err
}

// managed tells whether a window manager runs.
func (x *display) managed() (bool, error) {
	ids, err := x.numbers(x.root, "_NET_SUPPORTING_WM_CHECK")
	return len(ids) > 0 && ids[0] != 0, err
}

// Managed tells whether a window manager runs.
func (s *Screen) Managed() (ok bool, err error) {
	err = s.use(func(x *display) error { ok, err = x.managed(); return err })
	return ok, err
}

func (x *display) clients() ([]xproto.Window, error) {
	var list []xproto.Window
	if ok, err := x.managed(); err != nil {
		return nil, err
	} else if ok {
		ids, err := x.numbers(x.root, "_NET_CLIENT_LIST")
		for _, id := range ids {
			list = append(list, xproto.Window(id))
		}
		return list, err
	}
	tree, err := xproto.QueryTree(x.Conn, x.root).Reply()
	if err != nil {
		return nil, err
	}
	for _, w := range tree.Children {
		a, err := xproto.GetWindowAttributes(x.Conn, w).Reply()
		if err == nil && a.MapState == xproto.MapStateViewable && x.title(w) != "" {
			list = append(list, w)
		}
	}
	return list, nil
}

// active returns the window that has the focus, 0 when none has.
func (x *display) active() (xproto.Window, error) {
	ids, err := x.numbers(x.root, "_NET_ACTIVE_WINDOW")
	if err != nil || len(ids) > 0 && ids[0] != 0 {
		return xproto.Window(append(ids, 0)[0]), err
	}
	f, err := xproto.GetInputFocus(x.Conn).Reply()
	if err != nil || f.Focus == x.root || f.Focus <= xproto.InputFocusPointerRoot {
		return 0, err
	}
	return f.Focus, nil
}

// ActivePID returns the process of the window that has the focus, 0 when it
// cannot be told.
func (s *Screen) ActivePID() (pid int, err error) {
	err = s.use(func(x *display) error {
		w, err := x.active()
		if err != nil || w == 0 {
			return err
		}
		if ids, err := x.numbers(w, "_NET_WM_PID"); err == nil && len(ids) > 0 {
			pid = int(ids[0])
		}
		return nil
	})
	return pid, err
}

// describe tells about a window; ok is false when it is gone.
func (x *display) describe(w xproto.Window) (info wire.Window, ok bool) {
	g, err := xproto.GetGeometry(x.Conn, xproto.Drawable(w)).Reply()
	if err != nil {
		return info, false
	}
	at, err := xproto.TranslateCoordinates(x.Conn, w, x.root, 0, 0).Reply()
	if err != nil {
		return info, false
	}
	return wire.Window{
		ID: int64(w), Title: x.title(w), X: int(at.DstX), Y: int(at.DstY), Width: int(g.Width), Height: int(g.Height),
	}, true
}

func (x *display) title(w xproto.Window) string {
	for _, name := range []string{"_NET_WM_NAME", "WM_NAME"} {
		b, err := x.property(w, name)
		if err != nil || len(b) == 0 {
			continue
		}
		b = b[:min(len(b), maxTitle)]
		if utf8.Valid(b) {
			return string(b)
		}
		return latin1(b)
	}
	return ""
}

// latin1 reads a text in the encoding of old programs.
func latin1(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		s.WriteRune(rune(c))
	}
	return s.String()
}
