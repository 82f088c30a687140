package interpreter

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzSplitter cuts an output at any place; the texts and markers must be the
// same as of the whole.
func FuzzSplitter(f *testing.F) {
	f.Add("héllo\x00M\x00tail", 2)
	f.Add("\x00M\x00\x00M", 1)
	f.Add("\xff\xe2\x82", 1)
	f.Fuzz(func(t *testing.T, all string, step int) {
		if step < 1 {
			return
		}
		s := splitter{marker: []byte("\x00M\x00")}
		var got strings.Builder
		for rest := all; rest != ""; {
			n := min(step, len(rest))
			s.feed([]byte(rest[:n]), func(text string) {
				if utf8.ValidString(all) && !utf8.ValidString(text) {
					t.Errorf("%q: a character was cut: %q", all, text)
				}
				got.WriteString(text)
			}, func() { got.WriteString("\x00M\x00") })
			rest = rest[n:]
		}
		if got.String()+string(s.rest) != all {
			t.Errorf("%q by %d: got %q and %q", all, step, got.String(), s.rest)
		}
	})
}
