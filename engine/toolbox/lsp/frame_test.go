package lsp

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
)

func TestReadFrame(t *testing.T) {
	read := func(s string) (string, error) {
		b, err := readFrame(bufio.NewReaderSize(strings.NewReader(s), maxHeader))
		return string(b), err
	}
	for in, want := range map[string]string{
		"Content-Length: 2\r\n\r\n{}":                                  "{}",
		"content-length:2\n\n{}more":                                   "{}",
		"Content-Type: x\r\nContent-Length: 3\r\n\r\n{ }":              "{ }",
		"Content-Length: 0\r\n\r\n":                                    "",
		string(frame([]byte(`{"a":1}`))) + string(frame([]byte{1})):    `{"a":1}`,
		"Content-Length: 1\r\nX: " + strings.Repeat("y", 99) + "\n\n1": "1",
	} {
		if got, err := read(in); err != nil || got != want {
			t.Errorf("%.60q: got %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "Content-Length: 2\r\n\r\n{", "Content-Length: 2", "\r\n{}", "X: 1\r\n\r\n{}", "nonsense\r\n\r\n{}",
		"Content-Length: -1\r\n\r\n", "Content-Length: 1e3\r\n\r\n", "Content-Length: 99999999999999999999\r\n\r\n",
		"Content-Length: 2147483647\r\n\r\n{}",
		strings.Repeat("x", maxHeader+1), strings.Repeat("X: y\r\n", maxHeader/5),
	} {
		if got, err := read(in); err == nil {
			t.Errorf("%.60q: got %q, want an error", in, got)
		}
	}
}

// FuzzReadFrame feeds what a server may say. What is understood must be what
// its length said, and frame must be its inverse.
func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("Content-Length: 2\r\n\r\n{}Content-Length: 1\n\n1"))
	f.Add([]byte("Content-Type: a\r\ncontent-length:  3 \r\n\r\nabc"))
	f.Add([]byte("Content-Length: 5\r\n\r\nabc"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(in), maxHeader)
		for {
			b, err := readFrame(r)
			if err != nil {
				break
			}
			if len(b) > len(in) {
				t.Fatalf("%d bytes out of %d", len(b), len(in))
			}
			again, err := readFrame(bufio.NewReader(io.MultiReader(bytes.NewReader(frame(b)))))
			if err != nil || !bytes.Equal(again, b) {
				t.Fatalf("got %q, %v, want %q", again, err, b)
			}
		}
	})
}

// FuzzHandle feeds messages that a server may send unasked. None may end us,
// and none may stop the talk but those that are no JSON.
func FuzzHandle(f *testing.F) {
	f.Add([]byte(`{"id":1,"result":{}}`))
	f.Add([]byte(`{"id":"x","method":"workspace/configuration","params":{"items":[1,2]}}`))
	f.Add([]byte(`{"method":"textDocument/publishDiagnostics"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		c := newConn()
		_ = c.handle(in)
		if n := len(c.out); n > 1 {
			t.Errorf("%d answers to one message", n)
		}
	})
}
