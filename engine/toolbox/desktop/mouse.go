package desktop

import (
	"strings"
	"time"

	"github.com/jezek/xgb/xproto"
	"github.com/jezek/xgb/xtest"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// The buttons of X: the wheel is four of them.
const (
	buttonLeft   = 1
	buttonMiddle = 2
	buttonRight  = 3
	wheelUp      = 4
	wheelDown    = 5
	wheelLeft    = 6
	wheelRight   = 7
)

const (
	// maxScroll bounds one turn of the wheel.
	maxScroll = 1000
	// dragSteps is how many moves a drag is made of, so that programs see one.
	dragSteps = 16
	// dragStep is the time between two of them.
	dragStep = 8 * time.Millisecond
)

func buttonOf(name string) (byte, error) {
	switch strings.ToLower(name) {
	case "", "left":
		return buttonLeft, nil
	case "middle", "center":
		return buttonMiddle, nil
	case "right":
		return buttonRight, nil
	}
	return 0, wire.BadRequest("button: there is no button %.20q; use left, right or middle", name)
}

// Pointer returns where the pointer is.
func (s *Screen) Pointer() (at wire.Position, err error) {
	err = s.use(func(x *display) error { at, err = x.pointer(); return err })
	return at, err
}

// act runs f while nobody else moves the pointer or presses a key, and returns
// where the pointer is then.
func (s *Screen) act(f func(x *display) error) (at wire.Position, err error) {
	s.input.Lock()
	defer s.input.Unlock()
	err = s.use(func(x *display) error {
		if err := f(x); err != nil {
			return err
		}
		at, err = x.pointer()
		return err
	})
	return at, err
}

// fake makes the server believe in an event of a device.
func (x *display) fake(kind, detail byte, px, py int) error {
	return xtest.FakeInputChecked(x.Conn, kind, detail, 0, x.root, int16(px), int16(py), 0).Check()
}

// moveTo moves the pointer to a place on the screen.
func (x *display) moveTo(px, py int) error {
	w, h, err := x.size()
	if err != nil {
		return err
	}
	if px < 0 || py < 0 || px >= w || py >= h {
		return wire.BadRequest("x, y: %d, %d is not on the screen, which is %d by %d", px, py, w, h)
	}
	return x.fake(xproto.MotionNotify, 0, px, py)
}

// moveWhere moves the pointer unless no place is given.
func (x *display) moveWhere(px, py *int) error {
	switch {
	case px == nil && py == nil:
		return nil
	case px == nil || py == nil:
		return wire.BadRequest("x, y: give both, or neither for where the pointer is")
	}
	return x.moveTo(*px, *py)
}

func (x *display) click(button byte) error {
	if err := x.fake(xproto.ButtonPress, button, 0, 0); err != nil {
		return err
	}
	return x.fake(xproto.ButtonRelease, button, 0, 0)
}

// Move moves the pointer.
func (s *Screen) Move(q wire.MouseMove) (wire.Position, error) {
	return s.act(func(x *display) error { return x.moveTo(q.X, q.Y) })
}

// Click clicks once or twice.
func (s *Screen) Click(q wire.MouseClick) (wire.Position, error) {
	button, err := buttonOf(q.Button)
	if err != nil {
		return wire.Position{}, err
	}
	return s.act(func(x *display) error {
		if err := x.moveWhere(q.X, q.Y); err != nil {
			return err
		}
		if err := x.click(button); err != nil || !q.Double {
			return err
		}
		return x.click(button)
	})
}

// Drag moves the pointer in steps while a button is held.
func (s *Screen) Drag(q wire.MouseDrag) (wire.Position, error) {
	button, err := buttonOf(q.Button)
	if err != nil {
		return wire.Position{}, err
	}
	return s.act(func(x *display) error {
		if err := x.moveTo(q.EndX, q.EndY); err != nil { // so that a bad end presses nothing
			return err
		}
		if err := x.moveTo(q.StartX, q.StartY); err != nil {
			return err
		}
		if err := x.fake(xproto.ButtonPress, button, 0, 0); err != nil {
			return err
		}
		for i := 1; i <= dragSteps; i++ {
			time.Sleep(dragStep)
			err = x.moveTo(q.StartX+(q.EndX-q.StartX)*i/dragSteps, q.StartY+(q.EndY-q.StartY)*i/dragSteps)
			if err != nil {
				break
			}
		}
		time.Sleep(dragStep)
		if up := x.fake(xproto.ButtonRelease, button, 0, 0); err == nil {
			err = up
		}
		return err
	})
}

// Scroll turns the wheel.
func (s *Screen) Scroll(q wire.MouseScroll) error {
	wheel, ok := map[string]byte{"up": wheelUp, "down": wheelDown, "left": wheelLeft, "right": wheelRight}[strings.ToLower(q.Direction)]
	if !ok {
		return wire.BadRequest("direction: %.20q is not possible; use up, down, left or right", q.Direction)
	}
	amount := 1
	if q.Amount != nil {
		amount = *q.Amount
	}
	if amount < 0 || amount > maxScroll {
		return wire.BadRequest("amount: %d is not possible; use 0 to %d", amount, maxScroll)
	}
	_, err := s.act(func(x *display) error {
		if err := x.moveWhere(q.X, q.Y); err != nil {
			return err
		}
		for range amount {
			if err := x.click(wheel); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}
