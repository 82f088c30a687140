package desktop

import (
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jezek/xgb/xproto"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

func TestChords(t *testing.T) {
	for text, want := range map[string]chord{
		"a":                {nil, 'a'},
		"A":                {nil, 'A'},
		"ctrl+c":           {[]xproto.Keysym{keyCtrl}, 'c'},
		"Ctrl+C":           {[]xproto.Keysym{keyCtrl}, 'c'},
		" ctrl + c ":       {[]xproto.Keysym{keyCtrl}, 'c'},
		"Control_L+c":      {[]xproto.Keysym{keyCtrl}, 'c'},
		"ctrl+shift+t":     {[]xproto.Keysym{keyCtrl, keyShift}, 't'},
		"cmd+v":            {[]xproto.Keysym{keySuper}, 'v'},
		"super":            {nil, keySuper},
		"option+Tab":       {[]xproto.Keysym{keyAlt}, 0xff09},
		"Return":           {nil, 0xff0d},
		"enter":            {nil, 0xff0d},
		"Escape":           {nil, 0xff1b},
		"Page_Up":          {nil, 0xff55},
		"page-down":        {nil, 0xff56},
		"PgDn":             {nil, 0xff56},
		"ArrowLeft":        {nil, 0xff51},
		"left":             {nil, 0xff51},
		"F5":               {nil, 0xffc2},
		"alt+f24":          {[]xproto.Keysym{keyAlt}, 0xffd5},
		"num_plus":         {nil, 0xffab},
		"KP_7":             {nil, 0xffb7},
		"numpad5":          {nil, 0xffb5},
		"+":                {nil, '+'},
		"ctrl++":           {[]xproto.Keysym{keyCtrl}, '+'},
		"ctrl+plus":        {[]xproto.Keysym{keyCtrl}, '+'},
		"ctrl+shift++":     {[]xproto.Keysym{keyCtrl, keyShift}, '+'},
		"ctrl+-":           {[]xproto.Keysym{keyCtrl}, '-'},
		"ctrl+space":       {[]xproto.Keysym{keyCtrl}, ' '},
		"ctrl+É":           {[]xproto.Keysym{keyCtrl}, 0xe9},
		"ж":                {nil, 0x1000436},
		"shift+ArrowRight": {[]xproto.Keysym{keyShift}, 0xff53},
	} {
		got, err := parseChord(text)
		if err != nil || got.key != want.key || !slices.Equal(got.modifiers, want.modifiers) {
			t.Errorf("%q: got %x, %v, want %x", text, got, err, want)
		}
	}
}

func TestBadChords(t *testing.T) {
	for text, part := range map[string]string{
		"":                               "empty",
		"   ":                            "empty",
		"ctrl+":                          "without a key",
		"+c":                             "modifier",
		"ctrl+ +c":                       "modifier",
		"ctrl++c":                        "modifier",
		"a+b":                            "no modifier",
		"f25":                            "no key",
		"f0":                             "no key",
		"f05":                            "no key",
		"nosuchkey":                      "no key",
		"ctrl+nosuchkey":                 "no key",
		"hyper+c":                        "no modifier",
		"\x01":                           "no key",
		"ctrl+c ctrl+v":                  "no modifier",
		strings.Repeat("a", 300):         "longer",
		strings.Repeat("ctrl+", 9) + "c": "too many",
	} {
		_, err := parseChord(text)
		var e *wire.Error
		if !errors.As(err, &e) || e.Status != 400 || !strings.Contains(e.Message, part) {
			t.Errorf("%q: got %v, want a 400 with %q in it", text, err, part)
		}
	}
}

func TestText(t *testing.T) {
	got, err := keysOf(wire.KeyboardType{Text: "a\r\nÄ\t☃"})
	if want := []xproto.Keysym{'a', 0xff0d, 0xc4, 0xff09, 0x1002603}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %x, %v, want %x", got, err, want)
	}
	for name, q := range map[string]wire.KeyboardType{
		"NUL":            {Text: "a\x00"},
		"C1":             {Text: "\u0085"},
		"not UTF-8":      {Text: "\xff"},
		"too long":       {Text: strings.Repeat("x", maxText+1)},
		"negative delay": {Text: "x", Delay: -1},
		"long delay":     {Text: "xx", Delay: 1 << 40},
		"long in all":    {Text: strings.Repeat("x", 1000), Delay: 1000},
	} {
		if _, err := keysOf(q); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

// FuzzChord wants a chord or an error for people, whatever the text.
func FuzzChord(f *testing.F) {
	for _, s := range []string{"ctrl+c", "ctrl++", "+", "++", "+++", " + ", "F12", "num_", "kp", "ctrl+\xff", "ž", "a+b+c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseChord(text)
		var e *wire.Error
		if err == nil && c.key == 0 {
			t.Errorf("%q: got no key and no error", text)
		}
		if err != nil && (!errors.As(err, &e) || e.Status != 400) {
			t.Errorf("%q: got %v, want a 400", text, err)
		}
	})
}

// FuzzNode wants that whatever passes as an id can be asked on a bus.
func FuzzNode(f *testing.F) {
	for _, s := range []string{":1.7:/org/a11y/atspi/accessible/12", "org.a11y.atspi.Registry:/a", ":1:/", "n", ":/", "a.b:/c//d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, id string) {
		r, err := parseRef(id)
		if err == nil && (r.id() != id || !r.Path.IsValid() || r.Bus == "") {
			t.Errorf("%q: got %+v", id, r)
		}
	})
}

// TestClearDisplay has what a server left on a copied disk, and one that lives.
func TestClearDisplay(t *testing.T) {
	if err := os.MkdirAll("/tmp/.X11-unix", 0o1777); err != nil {
		t.Fatal(err)
	}
	for display, live := range map[string]bool{":9871": false, ":9872": true} {
		lock := "/tmp/.X" + display[1:] + "-lock"
		if err := os.WriteFile(lock, []byte("         1\n"), 0o444); err != nil {
			t.Fatal(err)
		}
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socketOf(display), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close(); os.Remove(socketOf(display)); os.Remove(lock) })
		if !live {
			l.SetUnlinkOnClose(false)
			l.Close()
		}
		clearDisplay(display)
		for _, path := range []string{lock, socketOf(display)} {
			if _, err := os.Stat(path); (err == nil) != live {
				t.Errorf("%s of a live server %v: got %v", path, live, err)
			}
		}
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string][2]int{"": {1280, 800}, "1920x1080": {1920, 1080}, "1024x768x24": {1024, 768}} {
		if w, h, err := size(text); err != nil || [2]int{w, h} != want {
			t.Errorf("%q: got %d, %d, %v, want %d", text, w, h, err, want)
		}
	}
	for _, text := range []string{"x", "10x10", "9999x100", "1280", "1280x800x24x1", "-1x5"} {
		if _, _, err := size(text); err == nil {
			t.Errorf("%q: got no error", text)
		}
	}
}
