package toolbox

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// crowd is how many calls at once are worth more than one processor, and
// maxWidth to how many the toolbox goes then. Mostly it waits for commands, and
// to hand work from thread to thread costs more than the work.
const (
	crowd    = 4
	maxWidth = 4
)

// trimAfter is how long the toolbox waits after the last call before it gives
// memory back. There is one toolbox per sandbox, and most of them idle.
const trimAfter = 2 * time.Second

// trimmer gives memory and processors back when nothing was asked for a while.
// It has no ticker, so that an idle sandbox never wakes a processor. Before its
// first call a sandbox is left as it is: a member of the warm pool shares most
// of its memory with others, and shall answer fast.
type trimmer struct {
	mu     sync.Mutex
	calls  int
	wide   bool
	timer  *time.Timer // nil: nobody has called yet
	closed bool
}

// begin notes a call.
func (t *trimmer) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.calls++; t.calls >= crowd && !t.wide {
		t.wide = true
		runtime.GOMAXPROCS(min(maxWidth, runtime.NumCPU()))
	}
}

// end notes the end of a call. One that the server made by itself does not
// count as the first.
func (t *trimmer) end(counts bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls--
	switch {
	case t.closed, t.timer == nil && !counts:
	case t.timer == nil:
		t.timer = time.AfterFunc(trimAfter, t.trim)
	default:
		t.timer.Reset(trimAfter)
	}
}

func (t *trimmer) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.timer != nil {
		t.timer.Stop()
	}
}

func (t *trimmer) trim() {
	t.mu.Lock()
	if t.wide && t.calls < crowd {
		t.wide = false
		runtime.GOMAXPROCS(1)
	}
	t.mu.Unlock()
	trim()
}

// trim frees the heap's unused pages and unmaps the program's.
func trim() {
	debug.FreeOSMemory()
	unmapProgram()
}

// unmapProgram unmaps the program's own read-only pages. They stay in the page
// cache, shared with all other sandboxes, and are mapped again one by one as
// they are needed.
func unmapProgram() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) {
		if from, to, ok := programPages(line, exe); ok {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED)
		}
	}
}

// programPages reads a line of /proc/self/maps. It accepts only mappings that
// cannot have been written to, since those would lose their content.
func programPages(line, exe string) (from, to uintptr, ok bool) {
	f := strings.Fields(line)
	if len(f) < 6 || f[5] != exe || (f[1] != "r--p" && f[1] != "r-xp") {
		return 0, 0, false
	}
	a, b, ok := strings.Cut(f[0], "-")
	lo, err1 := strconv.ParseUint(a, 16, 64)
	hi, err2 := strconv.ParseUint(b, 16, 64)
	return uintptr(lo), uintptr(hi), ok && err1 == nil && err2 == nil && hi > lo
}
