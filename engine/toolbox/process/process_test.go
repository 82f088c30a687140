package process

import (
	"bytes"
	"strings"
	"testing"
)

func TestCapture(t *testing.T) {
	for _, tt := range []struct {
		writes []string
		want   string
	}{
		{[]string{"ab", "cd"}, "abcd"},
		{[]string{"abcdefgh"}, "abcdefgh"},
		{[]string{"abcdefghi"}, "abcd\n[... 1 bytes of output dropped ...]\nfghi"},
		{[]string{"abcde", "f", "ghijkl", "m"}, "abcd\n[... 5 bytes of output dropped ...]\njklm"},
		{strings.Split(strings.Repeat("xyz", 9), ""), "xyzx\n[... 19 bytes of output dropped ...]\nzxyz"},
	} {
		c := NewCapture(8)
		for _, w := range tt.writes {
			_, _ = c.Write([]byte(w))
		}
		if got := c.String(); got != tt.want || c.Truncated() != strings.Contains(tt.want, "dropped") {
			t.Errorf("%q: got %q, want %q", tt.writes, got, tt.want)
		}
	}
}

func FuzzCapture(f *testing.F) {
	f.Add([]byte("0123456789"), uint8(3))
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		c := NewCapture(16)
		for rest := b; len(rest) > 0; {
			n := min(int(step)+1, len(rest))
			_, _ = c.Write(rest[:n])
			rest = rest[n:]
		}
		got := []byte(c.String())
		if len(b) <= 16 && !bytes.Equal(got, b) {
			t.Errorf("got %q, want %q", got, b)
		}
		if len(b) > 16 && (!bytes.HasPrefix(got, b[:8]) || !bytes.HasSuffix(got, b[len(b)-8:])) {
			t.Errorf("%q became %q", b, got)
		}
	})
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("12 (a) b) S 1 12 12 0"))
	f.Add([]byte("()"))
	f.Fuzz(func(_ *testing.T, b []byte) { parseStat(b) })
}

func TestParseStat(t *testing.T) {
	s, ok := parseStat([]byte("12 (a) R (b) S 1 13 14 0 -1"))
	if want := (stat{pid: 12, parent: 1, group: 13, session: 14, state: 'S'}); !ok || s != want {
		t.Errorf("got %+v, want %+v", s, want)
	}
}

func TestMembers(t *testing.T) {
	if m := members(1<<30, nil); len(m) != 0 {
		t.Errorf("got %v, want none", m)
	}
}

func FuzzCheckEnv(f *testing.F) {
	f.Add("A", "b")
	f.Fuzz(func(t *testing.T, k, v string) {
		if CheckEnv("envs", map[string]string{k: v}) == nil && (k == "" || strings.ContainsAny(k, "=\x00 ") || strings.Contains(v, "\x00")) {
			t.Errorf("%q=%q was accepted", k, v)
		}
	})
}
