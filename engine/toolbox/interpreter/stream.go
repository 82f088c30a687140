package interpreter

import (
	"bytes"
	"unicode/utf8"
)

// splitter cuts what a program writes past its interpreter into texts, and finds
// the markers that the interpreter puts at a program's end.
type splitter struct {
	marker []byte
	rest   []byte // may be the begin of a marker, or of a character
}

// feed adds bytes. Text and marker are called in order.
func (s *splitter) feed(b []byte, text func(string), marker func()) {
	s.rest = append(s.rest, b...)
	for {
		i := bytes.Index(s.rest, s.marker)
		if i < 0 {
			break
		}
		if i > 0 {
			text(string(s.rest[:i]))
		}
		marker()
		s.rest = s.rest[i+len(s.marker):]
	}
	keep := max(s.partialMarker(), partialRune(s.rest))
	if n := len(s.rest) - keep; n > 0 {
		text(string(s.rest[:n]))
		s.rest = append([]byte(nil), s.rest[n:]...)
	}
}

// partialMarker returns how many bytes at the end may begin a marker.
func (s *splitter) partialMarker() int {
	for n := min(len(s.marker)-1, len(s.rest)); n > 0; n-- {
		if bytes.HasSuffix(s.rest, s.marker[:n]) {
			return n
		}
	}
	return 0
}

// partialRune returns how many bytes at the end begin a character that is not
// complete.
func partialRune(b []byte) int {
	for n := 1; n <= min(utf8.UTFMax-1, len(b)); n++ {
		if c := b[len(b)-n]; utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(b[len(b)-n:]) {
				return n
			}
			return 0
		}
	}
	return 0
}
