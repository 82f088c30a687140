package toolbox

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"math"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

func (t *Toolbox) metrics(w http.ResponseWriter, _ *http.Request) error {
	now := time.Now().UTC()
	m := wire.SystemMetrics{Timestamp: now.Format(time.RFC3339Nano), TimestampUnix: now.Unix()}
	limit := cpuLimit()
	m.CPUCount = int(math.Ceil(limit))
	m.CPUUsedPct = t.cpu.percent(limit)
	m.MemTotal, m.MemUsed, m.MemCache = memory()
	var st syscall.Statfs_t
	if err := syscall.Statfs("/", &st); err == nil {
		size := int64(st.Bsize) //nolint:unconvert // its type differs between machines
		m.DiskTotal = int64(st.Blocks) * size
		m.DiskFree = int64(st.Bavail) * size
		m.DiskUsed = int64(st.Blocks-st.Bfree) * size
	}
	return writeJSON(w, http.StatusOK, m)
}

// The first of these files that exists is read: cgroup v2, then v1.
var (
	cpuUsageFiles = []string{"/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/cpuacct/cpuacct.usage"}
	memMaxFiles   = []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}
	memUseFiles   = []string{"/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes"}
	memStatFiles  = []string{"/sys/fs/cgroup/memory.stat", "/sys/fs/cgroup/memory/memory.stat"}
)

func firstFile(paths []string) []byte {
	for _, p := range paths {
		if b, err := os.ReadFile(p); err == nil {
			return b
		}
	}
	return nil
}

// cpuLimit returns how many cores the sandbox may use.
func cpuLimit() float64 {
	host := float64(runtime.NumCPU())
	quota, period := int64(-1), int64(0)
	if f := strings.Fields(string(firstFile([]string{"/sys/fs/cgroup/cpu.max"}))); len(f) == 2 && f[0] != "max" {
		quota, period = number(f[0]), number(f[1])
	} else if len(f) == 0 {
		quota = number(string(firstFile([]string{"/sys/fs/cgroup/cpu/cpu.cfs_quota_us"})))
		period = number(string(firstFile([]string{"/sys/fs/cgroup/cpu/cpu.cfs_period_us"})))
	}
	if quota > 0 && period > 0 {
		return min(host, float64(quota)/float64(period))
	}
	return host
}

func number(s string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// cpuMeter turns the cgroup's used time into a load since the last look.
type cpuMeter struct {
	mu   sync.Mutex
	at   time.Time
	used time.Duration
	last float64
}

func newCPUMeter() *cpuMeter { return &cpuMeter{at: time.Now(), used: cpuUsed()} }

// percent returns the load of all allowed cores together, 0 to 100.
func (c *cpuMeter) percent(cores float64) float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, used := time.Now(), cpuUsed()
	passed := now.Sub(c.at)
	if passed < 50*time.Millisecond { // too short to mean anything
		return c.last
	}
	c.last = min(100, max(0, 100*float64(used-c.used)/float64(passed)/cores))
	c.at, c.used = now, used
	return c.last
}

func cpuUsed() time.Duration {
	b := firstFile(cpuUsageFiles)
	if usec, ok := statValue(b, "usage_usec"); ok {
		return time.Duration(usec) * time.Microsecond
	}
	if n := number(string(b)); n > 0 {
		return time.Duration(n)
	}
	return hostCPUUsed()
}

// hostCPUUsed sums the busy time of all cores, where no cgroup tells.
func hostCPUUsed() time.Duration {
	b, _ := os.ReadFile("/proc/stat")
	line, _, _ := bytes.Cut(b, []byte("\n"))
	var ticks int64
	for i, f := range strings.Fields(string(line)) {
		if i >= 1 && i != 4 && i != 5 && i <= 8 { // without idle and iowait
			ticks += number(f)
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func statValue(b []byte, key string) (int64, bool) {
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(line, []byte(key+" ")); ok {
			return number(string(v)), true
		}
	}
	return 0, false
}

// memory returns the limit, what is used without caches that the kernel would
// give back, and those caches.
func memory() (total, used, cache int64) {
	info := meminfo()
	total, used = number(string(firstFile(memMaxFiles))), number(string(firstFile(memUseFiles)))
	if total <= 0 || total > info["MemTotal"] {
		total = info["MemTotal"]
	}
	if used == 0 {
		return total, info["MemTotal"] - info["MemAvailable"], info["Cached"]
	}
	stat := firstFile(memStatFiles)
	cache, ok := statValue(stat, "total_inactive_file")
	if !ok {
		cache, _ = statValue(stat, "inactive_file")
	}
	if file, ok := statValue(stat, "file"); ok {
		cache = max(cache, file)
	} else if file, ok := statValue(stat, "total_cache"); ok {
		cache = max(cache, file)
	}
	return total, max(0, used-cache), cache
}

func meminfo() map[string]int64 {
	b, _ := os.ReadFile("/proc/meminfo")
	m := map[string]int64{}
	for line := range bytes.Lines(b) {
		if k, v, ok := strings.Cut(string(line), ":"); ok {
			m[k] = number(strings.TrimSuffix(strings.TrimSpace(v), " kB")) << 10
		}
	}
	return m
}

// Ports shown by /port; lower ones belong to services, higher ones to the
// kernel's choice.
const firstPort, lastPort = 3000, 9999

func (t *Toolbox) ports(w http.ResponseWriter, _ *http.Request) error {
	list := []int{}
	for p := range listening() {
		if p >= firstPort && p <= lastPort {
			list = append(list, p)
		}
	}
	slices.Sort(list)
	return writeJSON(w, http.StatusOK, wire.Ports{Ports: list})
}

func (t *Toolbox) portInUse(w http.ResponseWriter, r *http.Request) error {
	port, err := parsePort(r.PathValue("port"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, wire.PortInUse{IsInUse: listening()[port]})
}

// listening returns the TCP ports that something listens on.
func listening() map[int]bool {
	ports := map[int]bool{}
	for _, path := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			if p, ok := listenPort(s.Text()); ok {
				ports[p] = true
			}
		}
		f.Close()
	}
	return ports
}

// listenPort reads one line of /proc/net/tcp; state 0A is listening.
func listenPort(line string) (int, bool) {
	f := strings.Fields(line)
	if len(f) < 4 || f[3] != "0A" {
		return 0, false
	}
	_, port, ok := strings.Cut(f[1], ":")
	b, err := hex.DecodeString(port)
	if !ok || err != nil || len(b) != 2 {
		return 0, false
	}
	return int(b[0])<<8 | int(b[1]), true
}
