package activity

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// touch makes and removes so many files: two events each.
func touch(args []string) {
	args = enter(args)
	n, err := strconv.Atoi(args[1])
	check(err)
	path := filepath.Join(args[0], "file")
	for range n {
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
		check(err)
		check(unix.Close(fd))
		check(unix.Unlink(path))
	}
}

// TestOneSandboxCannotSilenceAnother floods from one and reads from both.
func TestOneSandboxCannotSilenceAnother(t *testing.T) {
	r, err := Open(Options{Buffer: 1 << 20, Budget: 128 << 10})
	if err != nil {
		t.Fatal(err)
	}
	s := newStream(r)
	loud, quiet := s.sandbox(t, ""), s.sandbox(t, "")
	const n = 10000
	flood := loud.joining("touch", t.TempDir(), strconv.Itoa(n))
	if err := flood.Start(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		quiet.run("/bin/true")
	}
	if err := flood.Wait(); err != nil {
		t.Fatal(err)
	}
	if told, lost := count(quiet.all()); told != 40 || lost != 0 {
		t.Errorf("the quiet one: %d told, %d lost", told, lost)
	}
	told, lost := count(loud.all())
	if told+lost != 2*n+1 || lost == 0 || told == 0 {
		t.Errorf("the loud one: %d told and %d lost of %d", told, lost, 2*n+1)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(); err != os.ErrClosed {
		t.Errorf("read after close: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

// TestSlowReaderIsTold lets the buffer run full before anything is read.
func TestSlowReaderIsTold(t *testing.T) {
	r, err := Open(Options{Buffer: 64 << 10, Budget: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	b := (&stream{r: r}).sandbox(t, "")
	const n = 2000
	if err := b.joining("touch", t.TempDir(), strconv.Itoa(n)).Run(); err != nil {
		t.Fatal(err)
	}
	b.stream = newStream(r)
	told, lost := count(b.all())
	if told+lost != 2*n+1 || lost == 0 || told == 0 {
		t.Errorf("%d told and %d lost of %d", told, lost, 2*n+1)
	}
	if err := b.close(); err != nil {
		t.Fatal(err)
	}
}
