package session

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestSplit(t *testing.T) {
	tests := []struct {
		in             string
		first          Channel
		stdout, stderr string
	}{
		{"", Stdout, "", ""},
		{"plain", Stdout, "plain", ""},
		{"plain", Stderr, "", "plain"},
		{"\x01\x01\x01a\x02\x02\x02b\x01\x01\x01c", Stdout, "ac", "b"},
		{"x\x02\x02\x02", Stdout, "x", ""},
		{"\x02\x02\x01\x01", Stdout, "\x02\x02\x01\x01", ""},
	}
	for _, tt := range tests {
		stdout, stderr := Split([]byte(tt.in), tt.first)
		if string(stdout) != tt.stdout || string(stderr) != tt.stderr {
			t.Errorf("%q: got %q %q, want %q %q", tt.in, stdout, stderr, tt.stdout, tt.stderr)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte("a\x01\x01\x01b\x02\x02\x02c"))
	f.Add([]byte("\x01\x01\x02\x02\x02\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		stdout, stderr := Split(b, Stdout)
		if len(stdout)+len(stderr) != len(Merge(b)) {
			t.Errorf("split %d+%d bytes, merged %d", len(stdout), len(stderr), len(Merge(b)))
		}
		c := cut(b)
		if len(b) > 0 && len(c) == 0 || !bytes.HasPrefix(b, c) || len(b)-len(c) > 8 {
			t.Errorf("cut %q to %q", b, c)
		}
	})
}

// FuzzLog reads a log in pieces of any size and must get what was written.
func FuzzLog(f *testing.F) {
	f.Add("out", "err é", uint8(1))
	f.Add("\x01\x02", "\x02\x01\x01", uint8(4))
	f.Fuzz(func(t *testing.T, out, errs string, step uint8) {
		if strings.Contains(out+errs, "\x01") || strings.Contains(out+errs, "\x02") || !utf8.ValidString(out+errs) {
			return // the protocol cannot tell such output from markers
		}
		l, err := newLog(filepath.Join(t.TempDir(), "log"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.close()
		l.Write(Stdout, []byte(out))
		l.Write(Stderr, []byte(errs))
		l.Write(Stdout, []byte(out))
		l.end()
		var stdout, stderr []byte
		for at := int64(0); ; {
			p, err := l.Read(at, int64(step)+1)
			if err != nil {
				t.Fatal(err)
			}
			if p.Next == at {
				break
			}
			o, e := Split(p.Stream, p.First)
			stdout, stderr = append(stdout, o...), append(stderr, e...)
			at = p.Next
		}
		if step >= 8 && (string(stdout) != out+out || string(stderr) != errs) {
			t.Errorf("got %q %q, want %q %q", stdout, stderr, out+out, errs)
		}
	})
}

// TestLogTrims gives old output back to the disk without moving offsets.
func TestLogTrims(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := newLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	line := bytes.Repeat([]byte("0123456789abcdef"), 64<<10/16)
	for range (keep + slack) / len(line) * 2 {
		l.Write(Stderr, line)
	}
	p, err := l.Read(0, 100)
	if err != nil || p.Offset == 0 || !bytes.HasPrefix(p.Stream, Stderr.marker()) {
		t.Errorf("got offset %d, channel %d, %v, want a later one at a marker of stderr", p.Offset, p.First, err)
	}
	var st int64
	if i, err := os.Stat(path); err == nil {
		st = blocks(i)
	}
	if st > keep+2*slack {
		t.Errorf("the log holds %d bytes of disk", st)
	}
}
