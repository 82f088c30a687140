package desktop

import (
	"context"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jezek/xgb/xproto"
	"github.com/jezek/xgb/xtest"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

const (
	// maxText bounds what one call types, in characters.
	maxText = 100_000
	// maxTyping bounds how long one call may take by its delays.
	maxTyping = 10 * time.Minute
	// mapSettle is how long programs have to notice new characters on the
	// keyboard, mapReuse how long before a key gets another one: a program that
	// lags would read the earlier key as the later character.
	mapSettle = 20 * time.Millisecond
	mapReuse  = 250 * time.Millisecond
)

// stroke is how a character is made: a key, with shift or without.
type stroke struct {
	code  xproto.Keycode
	shift bool
}

// keymap is what the keys of the server mean now.
type keymap struct {
	first  xproto.Keycode
	width  int // keysyms per key
	syms   []xproto.Keysym
	byName map[xproto.Keysym]stroke
}

func (x *display) keymap() (*keymap, error) {
	first := x.setup.MinKeycode
	r, err := xproto.GetKeyboardMapping(x.Conn, first, byte(x.setup.MaxKeycode-first+1)).Reply()
	if err != nil {
		return nil, err
	}
	m := &keymap{first: first, width: int(r.KeysymsPerKeycode), syms: r.Keysyms, byName: map[xproto.Keysym]stroke{}}
	for _, column := range []int{1, 0} { // that without shift is preferred
		for i := len(m.syms)/m.width - 1; i >= 0 && column < m.width; i-- {
			if s := m.syms[i*m.width+column]; s != 0 {
				m.byName[s] = stroke{first + xproto.Keycode(i), column == 1}
			}
		}
	}
	return m, nil
}

// free lists the keys that mean nothing.
func (m *keymap) free() []xproto.Keycode {
	var list []xproto.Keycode
	for i := range len(m.syms) / m.width {
		if !slices.ContainsFunc(m.syms[i*m.width:(i+1)*m.width], func(s xproto.Keysym) bool { return s != 0 }) {
			list = append(list, m.first+xproto.Keycode(i))
		}
	}
	return list
}

// provide has a key for each of the keysyms, of which there may be no more
// than there are keys to lend. Characters that the layout lacks are put on keys
// that mean nothing, and stay there until all of those are used: taking one
// back at once would change what a slow program reads.
func (s *Screen) provide(x *display, wanted []xproto.Keysym) (map[xproto.Keysym]stroke, error) {
	m, err := x.keymap()
	if err != nil {
		return nil, err
	}
	free := m.free()
	var missing []xproto.Keysym
	keep := map[xproto.Keycode]bool{}
	for _, k := range wanted {
		if st, ok := m.byName[k]; ok {
			keep[st.code] = true
		} else if !slices.Contains(missing, k) {
			missing = append(missing, k)
		}
	}
	reused := false
	for _, k := range missing {
		var code xproto.Keycode
		if len(free) > 0 {
			code, free = free[0], free[1:]
		} else if i := slices.IndexFunc(s.borrowed, func(c xproto.Keycode) bool { return !keep[c] }); i >= 0 {
			code = s.borrowed[i]
			s.borrowed = slices.Delete(s.borrowed, i, i+1)
			if !reused {
				time.Sleep(mapReuse)
				reused = true
			}
		} else {
			return nil, wire.BadRequest("text: the keyboard has no key left for the character %q", rune(k&0xffffff))
		}
		if err := xproto.ChangeKeyboardMappingChecked(x.Conn, 1, code, 2, []xproto.Keysym{k, k}).Check(); err != nil {
			return nil, err
		}
		s.borrowed = append(s.borrowed, code)
		keep[code] = true
		m.byName[k] = stroke{code: code}
	}
	if len(missing) > 0 {
		time.Sleep(mapSettle)
	}
	return m.byName, nil
}

// lendable is how many characters that the layout lacks one round may have.
const lendable = 8

// Type types text. It stops when ctx ends.
func (s *Screen) Type(ctx context.Context, q wire.KeyboardType) error {
	keys, err := keysOf(q)
	if err != nil {
		return err
	}
	delay := time.Duration(q.Delay) * time.Millisecond
	s.input.Lock()
	defer s.input.Unlock()
	for len(keys) > 0 && err == nil {
		err = s.use(func(x *display) error {
			n, err := s.typeSome(ctx, x, keys, delay)
			keys = keys[n:]
			return err
		})
	}
	return err
}

func keysOf(q wire.KeyboardType) ([]xproto.Keysym, error) {
	n := utf8.RuneCountInString(q.Text)
	switch {
	case n > maxText:
		return nil, wire.BadRequest("text: it has %d characters and the limit is %d; type it in parts, or upload a file", n, maxText)
	case !utf8.ValidString(q.Text):
		return nil, wire.BadRequest("text: it is not valid UTF-8")
	case q.Delay < 0 || time.Duration(n)*time.Duration(min(q.Delay, 1e9))*time.Millisecond > maxTyping:
		return nil, wire.BadRequest("delay: %d ms is not possible for %d characters; a call may take at most %s", q.Delay, n, maxTyping)
	}
	keys := make([]xproto.Keysym, 0, n)
	for _, r := range strings.ReplaceAll(q.Text, "\r\n", "\n") {
		k, ok := keyOfRune(r)
		if !ok {
			return nil, wire.BadRequest("text: no key makes the control character %U; remove it", r)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// typeSome types the beginning of keys and returns how many: few enough that
// one connection's patience suffices and every character finds a key.
func (s *Screen) typeSome(ctx context.Context, x *display, keys []xproto.Keysym, delay time.Duration) (int, error) {
	m, err := x.keymap()
	if err != nil {
		return 0, err
	}
	n, lacking := 0, map[xproto.Keysym]bool{}
	most := 200
	if delay > 0 {
		most = max(1, min(most, int(time.Second/delay)))
	}
	for n < len(keys) && n < most {
		if _, ok := m.byName[keys[n]]; !ok {
			lacking[keys[n]] = true
		}
		if len(lacking) > lendable {
			break
		}
		n++
	}
	strokes, err := s.provide(x, keys[:n])
	if err != nil {
		return 0, err
	}
	for i, k := range keys[:n] {
		if err := x.tap(strokes, k, nil); err != nil {
			return i, err
		}
		if err := pause(ctx, delay); err != nil {
			return i, err
		}
	}
	return n, nil
}

// pause waits between two keys. A caller that went away ends it.
func pause(ctx context.Context, d time.Duration) error {
	if d == 0 && ctx.Err() == nil {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return wire.Errorf(499, wire.CodeBadRequest, "the caller went away; the rest was not typed")
	case <-t.C:
		return nil
	}
}

// tap presses and releases a key while the modifiers are held.
func (x *display) tap(strokes map[xproto.Keysym]stroke, key xproto.Keysym, modifiers []xproto.Keysym) error {
	st := strokes[key]
	var held []xproto.Keycode
	for _, m := range modifiers {
		held = append(held, strokes[m].code)
	}
	if shift := strokes[keyShift].code; st.shift && !slices.Contains(held, shift) {
		held = append(held, shift)
	}
	held = append(held, st.code)
	for _, c := range held {
		xtest.FakeInput(x.Conn, xproto.KeyPress, byte(c), 0, x.root, 0, 0, 0)
	}
	for _, c := range slices.Backward(held) {
		xtest.FakeInput(x.Conn, xproto.KeyRelease, byte(c), 0, x.root, 0, 0, 0)
	}
	_, err := xproto.GetInputFocus(x.Conn).Reply() // all of it has arrived
	return err
}

// press plays a chord.
func (s *Screen) press(c chord) error {
	s.input.Lock()
	defer s.input.Unlock()
	return s.use(func(x *display) error {
		strokes, err := s.provide(x, append(slices.Clone(c.modifiers), c.key, keyShift))
		if err != nil {
			return err
		}
		return x.tap(strokes, c.key, c.modifiers)
	})
}

// Press presses a key with modifiers.
func (s *Screen) Press(q wire.KeyboardPress) error {
	c, err := newChord(q.Key, q.Modifiers)
	if err != nil {
		return err
	}
	return s.press(c)
}

// Hotkey presses a chord written as ctrl+c.
func (s *Screen) Hotkey(q wire.KeyboardHotkey) error {
	c, err := parseChord(q.Keys)
	if err != nil {
		return err
	}
	return s.press(c)
}
