package egress

import (
	"bytes"
	"io"
)

// stream replaces pairs in what flows through it. It holds back only what may
// be the beginning of a text that is to be replaced.
type stream struct {
	from  io.ReadCloser
	pairs []pair
	met   func(p pair)      // is told of each that was replaced; may be nil
	said  func(text []byte) // is told what came out; may be nil

	in  []byte // read, and not looked at or held back
	out []byte // ready
	err error
}

const streamChunk = 32 << 10

// Read implements io.Reader.
func (s *stream) Read(b []byte) (int, error) {
	for len(s.out) == 0 && s.err == nil {
		chunk := make([]byte, streamChunk)
		n, err := s.from.Read(chunk)
		s.in, s.err = append(s.in, chunk[:n]...), err
		s.turn()
	}
	n := copy(b, s.out)
	s.out = s.out[n:]
	if len(s.out) > 0 {
		return n, nil
	}
	return n, s.err
}

// Close implements io.Closer.
func (s *stream) Close() error { return s.from.Close() }

// turn makes what can be said of s.in ready.
func (s *stream) turn() {
	s.out = nil
	for {
		at, found := -1, pair{}
		for _, p := range s.pairs {
			if i := bytes.Index(s.in, []byte(p.old)); i >= 0 && (at < 0 || i < at) {
				at, found = i, p
			}
		}
		if at < 0 {
			break
		}
		if s.met != nil {
			s.met(found)
		}
		s.out = append(append(s.out, s.in[:at]...), found.fresh...)
		s.in = s.in[at+len(found.old):]
	}
	keep := 0
	if s.err == nil {
		keep = s.beginning()
	}
	s.out = append(s.out, s.in[:len(s.in)-keep]...)
	s.in = bytes.Clone(s.in[len(s.in)-keep:])
	if s.said != nil {
		s.said(s.out)
	}
}

// beginning is how many bytes at the end of s.in may begin a text that is to
// be replaced.
func (s *stream) beginning() int {
	most := 0
	for _, p := range s.pairs {
		for n := min(len(p.old)-1, len(s.in)); n > most; n-- {
			if p.old[:n] == string(s.in[len(s.in)-n:]) {
				most = n
			}
		}
	}
	return most
}

// ending tells when a body has ended.
type ending struct {
	io.ReadCloser
	end func()
}

// Read implements io.Reader.
func (e *ending) Read(b []byte) (int, error) {
	n, err := e.ReadCloser.Read(b)
	if err == io.EOF && e.end != nil {
		e.end()
		e.end = nil
	}
	return n, err
}
