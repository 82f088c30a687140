package session

import "bytes"

// Channel is one of the two streams that a log holds.
type Channel byte

// The channels. Each is also the byte that its marker repeats three times.
const (
	Stdout Channel = 1
	Stderr Channel = 2
)

// markerLen is the length of a marker.
const markerLen = 3

func (c Channel) marker() []byte { return []byte{byte(c), byte(c), byte(c)} }

// Split separates a marked stream. Bytes before the first marker belong to
// channel first.
func Split(stream []byte, first Channel) (stdout, stderr []byte) {
	on := first
	for len(stream) > 0 {
		i, next := nextMarker(stream)
		chunk := stream
		if i >= 0 {
			chunk, stream = stream[:i], stream[i+markerLen:]
		} else {
			stream = nil
		}
		if on == Stderr {
			stderr = append(stderr, chunk...)
		} else {
			stdout = append(stdout, chunk...)
		}
		on = next
	}
	return stdout, stderr
}

// Merge removes the markers of a stream.
func Merge(stream []byte) []byte {
	out := make([]byte, 0, len(stream))
	for {
		i, _ := nextMarker(stream)
		if i < 0 {
			return append(out, stream...)
		}
		out = append(out, stream[:i]...)
		stream = stream[i+markerLen:]
	}
}

// nextMarker finds the first marker, -1 when there is none.
func nextMarker(b []byte) (int, Channel) {
	i := bytes.Index(b, Stdout.marker())
	if j := bytes.Index(window(b, i), Stderr.marker()); j >= 0 {
		return j, Stderr
	}
	return i, Stdout
}

// lastMarker finds the last marker, -1 when there is none.
func lastMarker(b []byte) (int, Channel) {
	i, j := bytes.LastIndex(b, Stdout.marker()), bytes.LastIndex(b, Stderr.marker())
	if j > i {
		return j, Stderr
	}
	return i, Stdout
}

// window is the part of b before a hit at i, all of it without one.
func window(b []byte, i int) []byte {
	if i < 0 {
		return b
	}
	return b[:i]
}

// cut shortens b so that it ends neither within a marker nor within a UTF-8
// character. It keeps at least one byte, so that a reader always gets on.
func cut(b []byte) []byte {
	n := len(b)
	for n > 0 && len(b)-n < markerLen-1 && (b[n-1] == byte(Stdout) || b[n-1] == byte(Stderr)) {
		n--
	}
	if i, _ := lastMarker(b); i >= 0 && i+markerLen > n { // it ends with a whole marker
		n = max(n, i+markerLen)
	}
	n = cutRune(b[:n])
	if n == 0 {
		return b
	}
	return b[:n]
}

func cutRune(b []byte) int {
	for back := 1; back <= 3 && back <= len(b); back++ {
		c := b[len(b)-back]
		if c < 0x80 {
			break
		}
		if c >= 0xc0 { // a first byte: how many follow?
			need := 2
			if c >= 0xe0 {
				need = 3
			}
			if c >= 0xf0 {
				need = 4
			}
			if back < need {
				return len(b) - back
			}
			break
		}
	}
	return len(b)
}
