package desktop

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/xfixes"
	"github.com/jezek/xgb/xproto"
	"github.com/jezek/xgb/xtest"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// patience is how long one call may wait for the X server, which answers in
// microseconds unless it is stuck.
const patience = 20 * time.Second

// Screen is the X display that the desktop draws on. It connects when it is
// first used, and again after the server was restarted. Calls may come at the
// same time; those that press keys or buttons are done one after the other.
type Screen struct {
	display string // as ":0"

	input    sync.Mutex // held by who moves the pointer or presses a key
	borrowed []xproto.Keycode

	mu sync.Mutex
	x  *display // nil: not connected
}

// NewScreen returns the screen of a display of this computer.
func NewScreen(display string) *Screen { return &Screen{display: display} }

// display is one connection.
type display struct {
	*xgb.Conn
	net    net.Conn
	setup  *xproto.SetupInfo
	root   xproto.Window
	closed chan struct{}

	mu    sync.Mutex
	atoms map[string]xproto.Atom
}

// Close ends the connection. The screen may still be used.
func (s *Screen) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.x != nil {
		s.x.net.Close()
		s.x = nil
	}
}

// use calls f with a live connection. An error that is not for the caller
// becomes one that says that the display is in trouble.
func (s *Screen) use(f func(x *display) error) error {
	x, err := s.connect()
	if err != nil {
		return noDisplay(err)
	}
	t := time.AfterFunc(patience, func() { x.net.Close() })
	defer t.Stop()
	err = f(x)
	var known *wire.Error
	var protocol xgb.Error
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case !errors.As(err, &protocol):
		x.net.Close()
	}
	return noDisplay(err)
}

func noDisplay(err error) error {
	e := wire.Errorf(http.StatusInternalServerError, wire.CodeInternal, "the display does not answer: %v; restart the process xvfb", err)
	e.Err = err
	return e
}

func (s *Screen) connect() (*display, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.x != nil {
		select {
		case <-s.x.closed:
			s.x = nil
		default:
			return s.x, nil
		}
	}
	x, err := dial(s.display)
	if err != nil {
		return nil, err
	}
	s.x = x
	return x, nil
}

// dial connects and has the extensions ready that are needed. All of this is
// done with screens one at a time, because the library keeps its tables of
// extensions for all connections.
func dial(name string) (*display, error) {
	dialing.Lock()
	defer dialing.Unlock()
	conn, err := net.DialTimeout("unix", socketOf(name), patience)
	if err != nil {
		return nil, err
	}
	t := time.AfterFunc(patience, func() { conn.Close() })
	defer t.Stop()
	c, err := xgb.NewConnNet(conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	x := &display{Conn: c, net: conn, setup: xproto.Setup(c), closed: make(chan struct{}), atoms: map[string]xproto.Atom{}}
	x.root = x.setup.DefaultScreen(c).Root
	go x.drain()
	err = errors.Join(xtest.Init(c), xfixes.Init(c))
	if err == nil {
		_, err = xfixes.QueryVersion(c, 4, 0).Reply()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return x, nil
}

var dialing sync.Mutex

// socketOf is where a display's server listens.
func socketOf(display string) string { return "/tmp/.X11-unix/X" + strings.TrimPrefix(display, ":") }

// drain drops the events that a server sends unasked. It ends with the
// connection.
func (x *display) drain() {
	defer close(x.closed)
	for {
		if e, err := x.WaitForEvent(); e == nil && err == nil {
			return
		}
	}
}

// Quiet keeps the X library from writing to stderr.
func Quiet() { xgb.Logger = log.New(io.Discard, "", 0) }

// size returns the screen's size now.
func (x *display) size() (width, height int, err error) {
	g, err := xproto.GetGeometry(x.Conn, xproto.Drawable(x.root)).Reply()
	if err != nil {
		return 0, 0, err
	}
	return int(g.Width), int(g.Height), nil
}

// pointer returns where the pointer is.
func (x *display) pointer() (wire.Position, error) {
	p, err := xproto.QueryPointer(x.Conn, x.root).Reply()
	if err != nil {
		return wire.Position{}, err
	}
	return wire.Position{X: int(p.RootX), Y: int(p.RootY)}, nil
}

// atom returns the number of a name, 0 when nobody has used the name yet.
func (x *display) atom(name string) (xproto.Atom, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if a := x.atoms[name]; a != 0 {
		return a, nil
	}
	r, err := xproto.InternAtom(x.Conn, true, uint16(len(name)), name).Reply()
	if err != nil {
		return 0, err
	}
	x.atoms[name] = r.Atom
	return r.Atom, nil
}

// maxProperty bounds what is read of a window's property, in units of 4 bytes.
const maxProperty = 16 << 10

// property reads a window's property, nil when it has none.
func (x *display) property(w xproto.Window, name string) ([]byte, error) {
	a, err := x.atom(name)
	if err != nil || a == 0 {
		return nil, err
	}
	r, err := xproto.GetProperty(x.Conn, false, w, a, xproto.GetPropertyTypeAny, 0, maxProperty).Reply()
	if err != nil {
		return nil, err
	}
	return r.Value, nil
}

// numbers reads a property that is a list of 32-bit numbers.
func (x *display) numbers(w xproto.Window, name string) ([]uint32, error) {
	b, err := x.property(w, name)
	var list []uint32
	for ; len(b) >= 4; b = b[4:] {
		list = append(list, xgb.Get32(b))
	}
	return list, err
}

// Info describes the display.
func (s *Screen) Info() (info wire.DisplayInfo, err error) {
	err = s.use(func(x *display) error {
		w, h, err := x.size()
		info.Displays = []wire.Display{{Width: w, Height: h, IsActive: true}}
		return err
	})
	return info, err
}
