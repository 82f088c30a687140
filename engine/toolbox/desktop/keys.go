package desktop

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/jezek/xgb/xproto"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// chord is a key with the modifiers that are held meanwhile.
type chord struct {
	modifiers []xproto.Keysym
	key       xproto.Keysym
}

// Keysyms of the modifiers.
const (
	keyShift = 0xffe1
	keyCtrl  = 0xffe3
	keyAlt   = 0xffe9
	keySuper = 0xffeb
)

// modifierNames are the ways people write modifiers, folded.
var modifierNames = map[string]xproto.Keysym{ // constant
	"ctrl": keyCtrl, "control": keyCtrl, "ctl": keyCtrl, "controll": keyCtrl, "controlr": 0xffe4, "lctrl": keyCtrl, "rctrl": 0xffe4,
	"alt": keyAlt, "option": keyAlt, "opt": keyAlt, "altl": keyAlt, "lalt": keyAlt, "altr": 0xffea, "ralt": 0xffea, "altgr": 0xfe03,
	"shift": keyShift, "shiftl": keyShift, "lshift": keyShift, "shiftr": 0xffe2, "rshift": 0xffe2,
	"cmd": keySuper, "command": keySuper, "super": keySuper, "superl": keySuper, "superr": 0xffec,
	"win": keySuper, "windows": keySuper, "meta": keySuper, "metal": keySuper,
}

// keyNames are the ways people write keys that print nothing, folded.
var keyNames = map[string]xproto.Keysym{ // constant
	"enter": 0xff0d, "return": 0xff0d, "tab": 0xff09, "escape": 0xff1b, "esc": 0xff1b, "space": 0x20, "spacebar": 0x20,
	"backspace": 0xff08, "delete": 0xffff, "del": 0xffff, "insert": 0xff63, "ins": 0xff63, "clear": 0xff0b,
	"home": 0xff50, "end": 0xff57, "pageup": 0xff55, "pgup": 0xff55, "prior": 0xff55,
	"pagedown": 0xff56, "pgdn": 0xff56, "pgdown": 0xff56, "next": 0xff56,
	"left": 0xff51, "up": 0xff52, "right": 0xff53, "down": 0xff54,
	"arrowleft": 0xff51, "arrowup": 0xff52, "arrowright": 0xff53, "arrowdown": 0xff54,
	"leftarrow": 0xff51, "uparrow": 0xff52, "rightarrow": 0xff53, "downarrow": 0xff54,
	"print": 0xff61, "printscreen": 0xff61, "prtsc": 0xff61, "sysrq": 0xff15, "pause": 0xff13, "break": 0xff6b,
	"menu": 0xff67, "contextmenu": 0xff67, "apps": 0xff67, "help": 0xff6a,
	"capslock": 0xffe5, "numlock": 0xff7f, "scrolllock": 0xff14,
	"plus": '+', "minus": '-', "hyphen": '-', "dash": '-', "equal": '=', "equals": '=', "comma": ',', "period": '.', "dot": '.',
	"slash": '/', "backslash": '\\', "semicolon": ';', "colon": ':', "apostrophe": '\'', "quote": '\'', "quotedbl": '"',
	"grave": '`', "backtick": '`', "bracketleft": '[', "bracketright": ']', "braceleft": '{', "braceright": '}',
	"underscore": '_', "asterisk": '*', "ampersand": '&', "at": '@', "numbersign": '#', "hash": '#', "dollar": '$',
	"percent": '%', "exclam": '!', "question": '?', "less": '<', "greater": '>', "bar": '|', "pipe": '|', "asciitilde": '~', "tilde": '~',
	"asciicircum": '^', "parenleft": '(', "parenright": ')',
	"numplus": 0xffab, "numadd": 0xffab, "numminus": 0xffad, "numsubtract": 0xffad, "nummultiply": 0xffaa, "numasterisk": 0xffaa,
	"numdivide": 0xffaf, "numslash": 0xffaf, "numdecimal": 0xffae, "numperiod": 0xffae, "numdot": 0xffae, "numenter": 0xff8d, "numequal": 0xffbd,
	"audiomute": 0x1008ff12, "volumemute": 0x1008ff12, "mute": 0x1008ff12, "volumedown": 0x1008ff11, "volumeup": 0x1008ff13,
	"audioplay": 0x1008ff14, "audiostop": 0x1008ff15, "audioprev": 0x1008ff16, "audionext": 0x1008ff17,
	"browserback": 0x1008ff26, "browserforward": 0x1008ff27,
}

// maxKeyName bounds the name of a key, maxChord the text of a chord.
const (
	maxKeyName = 32
	maxChord   = 256
)

// fold brings Page_Up, page-up and PageUp together, and KP_ and num_.
func fold(name string) string {
	name = strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || r == ' ' {
			return -1
		}
		return unicode.ToLower(r)
	}, name)
	for _, prefix := range []string{"kp", "numpad"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok && rest != "" {
			return "num" + rest
		}
	}
	return name
}

// keyNamed returns the keysym of a key's name or character.
func keyNamed(name string) (xproto.Keysym, error) {
	if r, n := utf8.DecodeRuneInString(name); n == len(name) && n > 0 {
		if k, ok := keyOfRune(r); ok {
			return k, nil
		}
	}
	if len(name) > maxKeyName {
		return 0, unknownKey(name)
	}
	f := fold(name)
	if k, ok := keyNames[f]; ok {
		return k, nil
	}
	if k, ok := modifierNames[f]; ok {
		return k, nil
	}
	var n int
	if _, err := fmt.Sscanf(f, "f%d", &n); err == nil && n >= 1 && n <= 24 && f == fmt.Sprintf("f%d", n) {
		return xproto.Keysym(0xffbe + n - 1), nil
	}
	if len(f) == 4 && strings.HasPrefix(f, "num") && f[3] >= '0' && f[3] <= '9' {
		return xproto.Keysym(0xffb0 + int(f[3]-'0')), nil
	}
	return 0, unknownKey(name)
}

func unknownKey(name string) error {
	if name == "" {
		return wire.BadRequest("key: it is empty; give a name as enter, f5, left or num_plus, or a character")
	}
	return wire.BadRequest("key: there is no key %.40q; use a name as enter, f5, left or num_plus, or a character", name)
}

// keyOfRune returns the keysym that stands for a character. Control characters
// that no key makes have none.
func keyOfRune(r rune) (xproto.Keysym, bool) {
	switch {
	case r == '\n', r == '\r':
		return keyNames["enter"], true
	case r == '\t':
		return keyNames["tab"], true
	case r == '\b':
		return keyNames["backspace"], true
	case r == 0x1b:
		return keyNames["escape"], true
	case r >= 0x20 && r < 0x7f, r >= 0xa0 && r <= 0xff:
		return xproto.Keysym(r), true
	case r < 0x100, r == utf8.RuneError, r > unicode.MaxRune:
		return 0, false
	}
	return xproto.Keysym(0x1000000 + r), true
}

// newChord makes a chord of names. With a modifier, a letter means its key, as
// people write Ctrl+C and mean no shift.
func newChord(key string, modifiers []string) (chord, error) {
	var c chord
	if len(modifiers) > 8 {
		return c, wire.BadRequest("modifiers: %d are too many", len(modifiers))
	}
	for _, m := range modifiers {
		var k xproto.Keysym
		if len(m) <= maxKeyName {
			k = modifierNames[fold(m)]
		}
		if k == 0 {
			return c, wire.BadRequest("modifiers: there is no modifier %.40q; use ctrl, alt, shift or cmd", m)
		}
		c.modifiers = append(c.modifiers, k)
	}
	if r, n := utf8.DecodeRuneInString(key); len(modifiers) > 0 && n == len(key) {
		key = string(unicode.ToLower(r))
	}
	k, err := keyNamed(key)
	c.key = k
	return c, err
}

// parseChord reads a chord as people write it: ctrl+c, Ctrl + Shift + T, F5,
// ctrl++, shift. All but the last are modifiers.
func parseChord(text string) (chord, error) {
	if len(text) > maxChord {
		return chord{}, wire.BadRequest("keys: the chord is longer than %d bytes", maxChord)
	}
	rest := strings.TrimSpace(text)
	if rest == "" {
		return chord{}, wire.BadRequest("keys: it is empty; give a chord as ctrl+c")
	}
	key, before, ok := rest, "", false
	if head, plus := strings.CutSuffix(rest, "+"); plus && head == "" {
		key = "+" // the plus key itself
	} else if head, two := strings.CutSuffix(rest, "++"); two {
		key, before, ok = "+", head, true
	} else if plus {
		return chord{}, wire.BadRequest("keys: %.40q ends without a key; write ctrl+plus or ctrl++ for the plus key", text)
	} else if i := strings.LastIndexByte(rest, '+'); i >= 0 {
		key, before, ok = strings.TrimSpace(rest[i+1:]), rest[:i], true
	}
	var modifiers []string
	if ok {
		for m := range strings.SplitSeq(before, "+") {
			modifiers = append(modifiers, strings.TrimSpace(m))
		}
	}
	return newChord(key, modifiers)
}
