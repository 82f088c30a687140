package refused

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestDescribe(t *testing.T) {
	memory := map[uint64]string{1: "tmpfs", 2: "/a b", 3: "x\x1b[31m\xff", 4: strings.Repeat("y", maxText), 5: ""}
	read := func(address uint64) (string, bool, bool) {
		s, ok := memory[address]
		return s, len(s) == maxText, ok
	}
	for _, c := range []struct {
		number uintptr
		args   [6]uint64
		want   string
		cut    bool
	}{
		{unix.SYS_MOUNT, [6]uint64{1, 2, 1, unix.MS_NOSUID | unix.MS_BIND | 1<<40, 0}, `source=tmpfs target="/a b" type=tmpfs flags=nosuid,bind,0x10000000000`, false},
		{unix.SYS_MOUNT, [6]uint64{3, 5, 9}, `source="x\x1b[31m\xff" target="" type=?`, false},
		{unix.SYS_UMOUNT2, [6]uint64{4}, "target=" + memory[4], true},
		{unix.SYS_UNSHARE, [6]uint64{unix.CLONE_NEWUSER | unix.CLONE_NEWNS}, "flags=newuser,newns", false},
		{unix.SYS_CLONE, [6]uint64{unix.CLONE_NEWNET | uint64(unix.SIGCHLD)}, "flags=newnet", false},
		{unix.SYS_BPF, [6]uint64{5}, "command=prog_load", false},
		{unix.SYS_BPF, [6]uint64{1 << 50}, "command=1125899906842624", false},
		{unix.SYS_SETNS, [6]uint64{1<<32 - 1, unix.CLONE_NEWPID}, "fd=-1 flags=newpid", false},
		{unix.SYS_OPEN_BY_HANDLE_AT, [6]uint64{3, 12345, 0}, "mount=3", false},
		{unix.SYS_SETTIMEOFDAY, [6]uint64{1, 2, 3}, "", false},
	} {
		known := calls[c.number]
		got, cut := known.describe(c.args, read)
		if got != c.want || cut != c.cut {
			t.Errorf("%s: got %q, cut %v; want %q, %v", known.name, got, cut, c.want, c.cut)
		}
	}
	big := call{params: []param{{"a", text}, {"b", text}, {"c", text}, {"d", text}, {"e", text}}}
	if got, cut := big.describe([6]uint64{4, 4, 4, 4, 4}, read); len(got) != maxDetail || !cut {
		t.Errorf("got %d bytes, cut %v", len(got), cut)
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for number, c := range calls {
		if c.name == "" || seen[c.name] {
			t.Errorf("call %d is named %q, which another one is as well", number, c.name)
		}
		seen[c.name] = true
		if len(c.params) > 6 {
			t.Errorf("%s has %d arguments", c.name, len(c.params))
		}
	}
}

func TestRepeatedCallsAreCounted(t *testing.T) {
	var told []string
	s := same{known: map[sameKey]*Call{}, tell: func(c Call) {
		told = append(told, fmt.Sprintf("%s %s by %d: %d", c.Name, c.Detail, c.Caller.ID, c.Times))
	}}
	add := func(at time.Duration, by int, name, detail string, probe bool) {
		s.add(Call{Time: at, Name: name, Detail: detail, Caller: Caller{ID: by, Command: "x"}, Times: 1}, probe)
	}
	for range 3 {
		add(1, 1, "mount", "a", false)
		add(2, 1, "mount", "b", false)
		add(3, 2, "mount", "a", false)
		add(4, 3, "io_uring_setup", "", true)
		add(5, 4, "io_uring_setup", "", true)
	}
	want := []string{"mount a by 1: 1", "mount b by 1: 1", "mount a by 2: 1", "io_uring_setup  by 3: 1"}
	if d := cmp.Diff(want, told); d != "" {
		t.Errorf("at first: %s", d)
	}
	told = nil
	s.flush(repeat+1, false)
	count := 0
	for _, line := range told {
		switch line {
		case "mount a by 1: 2", "mount b by 1: 2", "mount a by 2: 2", "io_uring_setup  by 3: 5":
			count++
		}
	}
	if count != 4 || len(told) != 4 {
		t.Errorf("a minute later: %q", told)
	}
	told = nil
	s.flush(2*repeat, false)
	if len(told) != 0 || len(s.known) != 0 || !s.due().IsZero() {
		t.Errorf("another minute later: %q, %d known", told, len(s.known))
	}
}

// TestNoServer: what nobody takes is kept up to a bound, and counted beyond.
func TestNoServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d", "s")
	tell := newTeller(path, func() Call { return Call{} })
	var wg sync.WaitGroup
	defer wg.Wait()
	defer tell.end()
	wg.Go(tell.run)
	const all = maxQueue + 500
	for range all {
		tell.tell(Call{Name: "mount", Times: 1})
	}
	s, err := Listen(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var told, lost uint64
	s.Run(ctx, func(c Call) {
		told, lost = told+c.Times, lost+c.Lost
		if told+lost >= all {
			cancel()
		}
	})
	if told+lost != all || told > maxQueue+1 || lost == 0 {
		t.Errorf("%d told and %d lost of %d", told, lost, all)
	}
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bucket{left: burst, at: time.Now()}
		since := time.Now()
		for range burst {
			b.take()
		}
		if took := time.Since(since); took != 0 {
			t.Errorf("a burst took %v", took)
		}
		for range 3 * pace {
			b.take()
		}
		if took := time.Since(since); took < 2900*time.Millisecond || took > 3100*time.Millisecond {
			t.Errorf("then %d took %v", 3*pace, took)
		}
	})
}

// TestLook reads about this process.
func TestLook(t *testing.T) {
	c, ok := look(unix.Gettid())
	if !ok || c.ID != unix.Getpid() || c.Inner == 0 || c.Started == 0 || c.Command == "" || int(c.UID) != unix.Getuid() {
		t.Errorf("got %+v, %v", c, ok)
	}
	if got, ok := look(1 << 30); ok {
		t.Errorf("got %+v of nobody", got)
	}
}

// TestReadText reads at the end of a page with nothing behind it.
func TestReadText(t *testing.T) {
	page := unix.Getpagesize()
	m, err := unix.Mmap(-1, 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	if err := unix.Mprotect(m[page:], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	copy(m[page-4:], "end\x00")
	at := uint64(uintptr(unsafe.Pointer(&m[0])))
	if s, cut, ok := readText(unix.Gettid(), at+uint64(page)-4); s != "end" || cut || !ok {
		t.Errorf("got %q, %v, %v", s, cut, ok)
	}
	m[page-1] = '!'
	if s, _, ok := readText(unix.Gettid(), at+uint64(page)-4); ok {
		t.Errorf("got %q from beyond the page", s)
	}
	for i := range m[:page] {
		m[i] = 'x'
	}
	if s, cut, ok := readText(unix.Gettid(), at); len(s) != maxText || !cut || !ok {
		t.Errorf("got %d bytes, %v, %v", len(s), cut, ok)
	}
}
