package container

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// pacer keeps the kernel ready for processes that enter control groups. All
// such moves take one lock of the whole machine, which costs its next writer
// an RCU grace period, 8 to 20 ms, unless the last writer came by just before.
// The runtime makes that move in the middle of every start, so meanwhile the
// pacer moves this process to where it is already, every two milliseconds.
type pacer struct {
	mu    sync.Mutex
	until time.Time
	busy  bool
}

const (
	paceEvery = 2 * time.Millisecond
	paceFor   = 100 * time.Millisecond // from the last call of keep
)

// keep makes moves quick for the next paceFor, beginning with a first grace
// period that nobody waits for. run starts the work, which ends by itself or
// with ctx.
func (p *pacer) keep(ctx context.Context, run func(func())) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until = time.Now().Add(paceFor)
	if !p.busy {
		p.busy = true
		run(func() { p.work(ctx) })
	}
}

// work goes without the gain where there is no control group to write to.
func (p *pacer) work(ctx context.Context) {
	procs := openOwnGroup()
	for ctx.Err() == nil && p.due() {
		if procs != nil {
			_, _ = procs.WriteString("0") // the process that writes
		}
		_ = sleep(ctx, paceEvery)
	}
	if procs != nil {
		_ = procs.Close()
	}
}

// due tells whether to go on; when not, the next keep starts anew.
func (p *pacer) due() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy = time.Now().Before(p.until)
	return p.busy
}

// openOwnGroup opens the list of members of a control group of this process.
// It is looked up each time, because somebody may have moved us.
func openOwnGroup() *os.File {
	groups, _ := os.ReadFile("/proc/self/cgroup") // lines as "4:cpu:/system.slice"
	for line := range strings.Lines(string(groups)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) < 3 {
			continue
		}
		controller := strings.TrimPrefix(part[1], "name=")
		if f, err := os.OpenFile(filepath.Join(cgroupRoot, controller, part[2], "cgroup.procs"), os.O_WRONLY, 0); err == nil {
			return f
		}
	}
	return nil
}
