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
var metric = regexp.MustCompile(`([0-9.e+-]+) ((?:rr|throughput|update|proxy|direct)_[a-z0-9_]+)`)

// egress runs the benchmarks of the network policies, which need a host and an
// internet made of network namespaces, and takes their numbers over.
func (b *bench) egress(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, ".ci/go", "test", "-run", "^$", "-bench", "^Benchmark(Egress|Update|Proxy)$", "-benchtime", "1x", "./engine/egress").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, tail(out, 400))
	}
	details := map[string]string{
		"rr_ratio":         "a byte there and back over TCP, list of %s networks to one that allows all, same programs",
		"throughput_ratio": "MiB a second, list of %s networks to one that allows all",
	}
	for _, m := range metric.FindAllStringSubmatch(string(out), -1) {
		v, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return err
		}
		r := row{Name: "egress_" + m[2], Value: v, Unit: "ratio"}
		for _, unit := range []string{"ms", "us"} {
			if strings.HasSuffix(m[2], "_"+unit) {
				r.Unit = unit
			}
		}
		if i := strings.LastIndexByte(m[2], '_'); details[m[2][:i]] != "" {
			r.Detail = fmt.Sprintf(details[m[2][:i]], m[2][i+1:])
		}
		b.add(r)
	}
	return nil
}
