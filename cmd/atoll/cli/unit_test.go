package cli

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

func TestUnpackStaysInside(t *testing.T) {
	base := t.TempDir()
	outside := filepath.Join(base, "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		entries []tar.Header
	}{
		{"parent", []tar.Header{{Name: "../outside/x", Typeflag: tar.TypeReg}}},
		{"absolute", []tar.Header{{Name: outside + "/x", Typeflag: tar.TypeReg}}},
		{"hidden parent", []tar.Header{{Name: "a/../../outside/x", Typeflag: tar.TypeReg}}},
		{"through an absolute link", []tar.Header{
			{Name: "l", Typeflag: tar.TypeSymlink, Linkname: outside}, {Name: "l/x", Typeflag: tar.TypeReg},
		}},
		{"through a relative link", []tar.Header{
			{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../outside"}, {Name: "l/x", Typeflag: tar.TypeReg},
		}},
		{"through a chain of links", []tar.Header{
			{Name: "d/e", Typeflag: tar.TypeDir},
			{Name: "d/up", Typeflag: tar.TypeSymlink, Linkname: "e/../.."},
			{Name: "d/up/outside/x", Typeflag: tar.TypeReg},
		}},
		{"hard link", []tar.Header{{Name: "l", Typeflag: tar.TypeLink, Linkname: "../outside/x"}}},
		{"device", []tar.Header{{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(base, "in")
			defer os.RemoveAll(dir)
			_ = unpack(archive(t, c.entries), dir, io.Discard)
			if left, err := os.ReadDir(outside); err != nil || len(left) != 0 {
				t.Errorf("something was written outside: %v %v", left, err)
			}
			if _, err := os.Lstat(filepath.Join(dir, "null")); err == nil {
				t.Error("a device was made")
			}
		})
	}
}

func TestUnpackDropsSetID(t *testing.T) {
	dir := t.TempDir()
	if err := unpack(archive(t, []tar.Header{{Name: "x", Typeflag: tar.TypeReg, Mode: 0o6755}}), dir, io.Discard); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(dir, "x"))
	if err != nil || fi.Mode() != 0o755 {
		t.Errorf("got %v, %v", fi.Mode(), err)
	}
}

func archive(t *testing.T, entries []tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func FuzzUnpack(f *testing.F) {
	f.Add([]byte("not an archive"))
	f.Fuzz(func(t *testing.T, b []byte) {
		base := t.TempDir()
		_ = unpack(bytes.NewReader(b), filepath.Join(base, "in"), io.Discard)
		if left, _ := os.ReadDir(base); len(left) != 1 {
			t.Errorf("something was written outside: %v", left)
		}
	})
}

func FuzzDemux(f *testing.F) {
	f.Add([]byte("a\x01\x01\x01b\x02\x02\x02c"), 2)
	f.Add([]byte("\x01\x02\x01\x01"), 1)
	f.Fuzz(func(t *testing.T, stream []byte, step int) {
		whole, parts := split(t, stream, len(stream)), split(t, stream, step)
		if diff := cmp.Diff(whole, parts); diff != "" {
			t.Errorf("the result depends on how the stream is cut (-whole +parts):\n%s", diff)
		}
	})
}

func split(t *testing.T, stream []byte, step int) [2]string {
	t.Helper()
	var out, err bytes.Buffer
	d := demux{out: &out, err: &err}
	step = max(step, 1)
	for len(stream) > 0 {
		n := min(step, len(stream))
		if e := d.write(bytes.Clone(stream[:n])); e != nil {
			t.Fatal(e)
		}
		stream = stream[n:]
	}
	if e := d.flush(); e != nil {
		t.Fatal(e)
	}
	return [2]string{out.String(), err.String()}
}

func TestWaterfall(t *testing.T) {
	var b bytes.Buffer
	waterfall(&b, []engine.Stage{
		{Name: "place", Took: time.Millisecond},
		{Name: "start", Start: time.Millisecond, Took: 8 * time.Millisecond},
		{Name: "toolbox", Start: 9 * time.Millisecond, Took: time.Microsecond},
	}, false)
	want := "cold start in 9.00 ms\n" +
		"  place   |████                                    |   1.00 ms\n" +
		"  start   |    ███████████████████████████████████ |   8.00 ms\n" +
		"  toolbox |                                       █|   0.00 ms\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAge(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		ago  time.Duration
		want string
	}{{59 * time.Second, "59s"}, {61 * time.Second, "1m"}, {3 * time.Hour, "3h"}, {47 * time.Hour, "47h"}, {72 * time.Hour, "3d"}, {-time.Second, "0s"}} {
		if got := age(now.Add(-c.ago), now); got != c.want {
			t.Errorf("%s: got %s, want %s", c.ago, got, c.want)
		}
	}
}

func TestPlaces(t *testing.T) {
	for in, want := range map[string]place{
		"a:b": {"a", "b"}, "a:": {"a", "."}, "a:/x:y": {"a", "/x:y"}, "./a:b": {"", "./a:b"}, "/a:b": {"", "/a:b"}, "a": {"", "a"}, ":b": {"", ":b"},
	} {
		if got := parsePlace(in); got != want {
			t.Errorf("%s: got %+v, want %+v", in, got, want)
		}
	}
}

func TestSameServer(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"http://localhost:7777", "http://127.0.0.1:7777/", true},
		{"http://0.0.0.0:1", "http://127.0.0.1:1", true},
		{"http://a", "http://a:80", true},
		{"http://a:1", "http://a:2", false},
		{"http://a:1", "http://b:1", false},
		{"", "", false},
	} {
		if got := sameServer(c.a, c.b); got != c.want {
			t.Errorf("%s and %s: got %v", c.a, c.b, got)
		}
	}
}

// A key from a file must not go to a server that the file does not name.
func TestKeyGoesOnlyToItsServer(t *testing.T) {
	dir := t.TempDir()
	home := filepath.Join(dir, ".config", "atoll")
	if err := os.MkdirAll(home, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "credentials.json"), []byte(`{"url":"http://127.0.0.1:7777","apiKey":"k"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &app{home: filepath.Join(dir, "none"), env: func(k string) string { return map[string]string{"HOME": dir}[k] }}
	if where, key, err := a.endpoint(); err != nil || key != "k" || where != defaultURL {
		t.Errorf("its own: got %s %s %v", where, key, err)
	}
	a.url = "http://198.51.100.1:7777"
	if _, key, err := a.endpoint(); err == nil || key != "" {
		t.Errorf("another: got %q, %v", key, err)
	}
}

func TestLockHolder(t *testing.T) {
	st := unix.Stat_t{Dev: unix.Mkdev(8, 1), Ino: 42}
	locks := strings.Join([]string{
		"1: FLOCK  ADVISORY  WRITE 100 08:01:41 0 EOF", "2: FLOCK  ADVISORY  WRITE 101 08:02:42 0 EOF",
		"3: POSIX  ADVISORY  WRITE 102 08:01:42 0 EOF", "4: FLOCK  ADVISORY  WRITE 103 08:01:42 0 EOF", "",
	}, "\n")
	if got := findLock(locks, st); got != 103 {
		t.Errorf("got %d, want 103", got)
	}
	if serves(os.Getpid(), "") {
		t.Error("this test was taken for a server")
	}
}

func TestPrintTree(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	a.printTree([]engine.ActivityRecord{
		{Time: at, Kind: engine.ActivityLifecycle, Operation: "started"},
		{Time: at, Kind: engine.ActivityCall, Call: "A", Operation: "exec", Detail: "make"},
		{Kind: engine.ActivityExec, Call: "A", Process: "1", PID: 7, Detail: "sh -c make"},
		{Kind: engine.ActivityExec, Call: "A", Process: "1", PID: 7, Detail: "make \x1b[2J"},
		{Kind: engine.ActivityExit, Call: "A", Process: "1", PID: 7, Code: 2},
		{Kind: engine.ActivityFile, Call: "A", Process: "2", Parent: "1", PID: 8, Operation: "create", Detail: "/x"},
		{Kind: engine.ActivityDeny, Call: "A", Remote: "192.0.2.1:80"},
		{Kind: engine.ActivityDeny, Call: "B", Process: "3", PID: 9, Remote: "192.0.2.1:81"},
	})
	want := `03:04:05.000  lifecycle  started
03:04:05.000  exec make  (call A)
              deny 192.0.2.1:80
              7  sh -c make
              7  then "make \x1b[2J"  → exit 2 after 0s
                8  (what its parent runs)
                    file create /x
          …  a call that is not among these records  (call B)
              9  (what its parent runs)
                  deny 192.0.2.1:81
`
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Error(d)
	}
}
