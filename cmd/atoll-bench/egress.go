package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// metric is one "value unit" of a line of a Go benchmark.
var metric = regexp.MustCompile(`([0-9.e+-]+) ((?:rr|throughput|update|cut|report|proxy|direct|packet|deny)_[a-z0-9_]+)`)

// egressDetails say what a metric is whose name begins so, with what comes
// behind that, in order; the first that fits counts.
var egressDetails = []struct{ prefix, text string }{
	{"rr_ratio_again", "a byte there and back over TCP, two sandboxes without programs: the noise"},
	{"rr_ratio_", "a byte there and back over TCP, %s to a sandbox with the guard and no programs"},
	{"throughput_ratio_again", "MiB a second, two sandboxes without programs: the noise"},
	{"throughput_ratio_", "MiB a second, %s to a sandbox with the guard and no programs"},
	{"update_floor_", "as many system calls that change nothing, %s"},
	{"update_", "a new policy of so many networks: %s"},
	{"cut_", "from a new policy to the end of a connection as the sandbox sees it, %s"},
	{"report_ratio_connect", "a new connection, reported to the ledger and not"},
	{"proxy_added_", "a TLS handshake by name, less one that goes straight, %s"},
	{"packet_ns_", "a packet of a standing flow: %s"},
	{"deny_ns_", "a packet that is denied: %s"},
}

// egress runs the benchmarks of the network policies, which need a host and an
// internet made of network namespaces, and takes their numbers over.
func (b *bench) egress(ctx context.Context) error {
	for pkg, which := range map[string]string{"./engine/egress": "Egress|Update|Cut|Reports|Proxy", "./ebpf/egress": "Packet"} {
		out, err := exec.CommandContext(ctx, ".ci/go", "test", "-run", "^$", "-bench", "^Benchmark("+which+")$", "-benchtime", "1x", pkg).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, tail(out, 400))
		}
		for _, m := range metric.FindAllStringSubmatch(string(out), -1) {
			v, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				return err
			}
			b.add(row{Name: "egress_" + m[2], Value: v, Unit: egressUnit(m[2]), Detail: egressDetail(m[2])})
		}
	}
	return nil
}

func egressUnit(name string) string {
	for _, unit := range []string{"ms", "us", "ns", "mibs"} {
		if strings.HasSuffix(name, "_"+unit) || strings.Contains(name, "_"+unit+"_") {
			return unit
		}
	}
	return "ratio"
}

func egressDetail(name string) string {
	for _, d := range egressDetails {
		rest, ok := strings.CutPrefix(name, d.prefix)
		if ok && strings.Contains(d.text, "%s") {
			return fmt.Sprintf(d.text, strings.ReplaceAll(rest, "_", " "))
		}
		if ok {
			return d.text
		}
	}
	return ""
}
