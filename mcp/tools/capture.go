package tools

import (
	"bytes"
	"strings"
)

// keepEnds is how much of each end of an output is kept.
const keepEnds = 2 * maxText

// capture keeps both ends of an output of any length. Offsets count the bytes
// as the toolbox does, channel markers included.
type capture struct {
	head, tail []byte
	total      int // the offset after what was written
	dropped    int // bytes between head and tail
}

func (c *capture) write(p []byte) {
	c.total += len(p)
	if room := keepEnds - len(c.head); room > 0 {
		n := min(room, len(p))
		c.head = append(c.head, p[:n]...)
		p = p[n:]
	}
	c.tail = append(c.tail, p...)
	if len(c.tail) > 4*keepEnds {
		c.dropped += len(c.tail) - keepEnds
		c.tail = bytes.Clone(c.tail[len(c.tail)-keepEnds:])
	}
}

// cut tells whether text will leave something out.
func (c *capture) cut() bool { return c.total > maxText-200 }

// headEnd is about the offset where the part that text leaves out begins.
func (c *capture) headEnd() int { return min(c.total, maxText/3) }

// text returns the output with at most max bytes, the middle left out.
func (c *capture) text(max int, where string) string {
	all := printable(withoutMarkers(append(bytes.Clone(c.head), c.tail...)))
	return ends(all, c.dropped, max, where)
}

// withoutMarkers removes the three-byte channel markers of session logs.
func withoutMarkers(p []byte) []byte {
	p = bytes.ReplaceAll(p, []byte{1, 1, 1}, nil)
	return bytes.ReplaceAll(p, []byte{2, 2, 2}, nil)
}

// lastLine returns the last line of an output that holds anything.
func lastLine(p []byte) string {
	text := strings.TrimSpace(printable(withoutMarkers(p)))
	text = text[strings.LastIndexByte(text, '\n')+1:]
	if len(text) > 200 {
		text = cutEnd(text[:200])
	}
	return text
}
