package activity

import (
	"os"
	"strconv"
	"testing"
)

// TestOneSandboxCannotSilenceAnother floods from one and reads from both.
func TestOneSandboxCannotSilenceAnother(t *testing.T) {
	r, err := Open(Options{Buffer: 1 << 20, Budget: 128 << 10})
	if err != nil {
		t.Fatal(err)
	}
	s := newStream(r)
	loud, quiet := s.sandbox(t, ""), s.sandbox(t, "")
	const n = 10000
	flood := loud.joining("spawn", tiny(t), strconv.Itoa(n))
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
	if err := b.joining("spawn", tiny(t), strconv.Itoa(n)).Run(); err != nil {
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
