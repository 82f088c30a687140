package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// overhead is one "value unit" of a line of the recorder's benchmark.
var overhead = regexp.MustCompile(`([0-9.e+-]+) (off|ratio|control|clock|programs)_([a-z_]+)`)

// activity runs the benchmarks of the recorder and takes their numbers over:
// work inside a watched sandbox and outside of all, with the recorder and
// without, in turns of seconds; the same inside, watched and not, in turns of
// milliseconds; and what the programs take.
func (b *bench) activity(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, ".ci/go", "test", "-run", "^$", "-bench", "^Benchmark(Activity|Watched|Programs)$", "-benchtime", "1x", "./ebpf/activity").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, tail(out, 400))
	}
	values, names := map[string]float64{}, []string{}
	for _, m := range overhead.FindAllStringSubmatch(string(out), -1) {
		v, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(m[3], "_ns")
		values[m[2]+" "+name] = v
		if m[2] == "ratio" {
			names = append(names, name)
		}
	}
	for _, name := range names {
		b.add(row{Name: "activity_" + name + "_us", Value: values["off "+name] / 1000, Unit: "us", Detail: "processor time, not recorded"})
		detail := fmt.Sprintf("processor time, recorded to not recorded; not recorded twice: %.3f", values["control "+name])
		if clock := values["clock "+name]; clock > 0 {
			detail += fmt.Sprintf("; by the clock: %.3f", clock)
		}
		b.add(row{
			Name: "activity_" + name + "_ratio", Value: values["ratio "+name], Unit: "ratio",
			Detail: detail,
		})
	}
	for _, where := range []string{"outside", "inside"} {
		if v := values["programs "+where+"_exec"]; v > 0 {
			b.against(row{
				Name: "activity_programs_" + where + "_exec_us", Value: v / 1000, Unit: "us",
				Detail: "all programs of the recorder in a fork and exec, as the kernel counts; 0.1 µs of each run is the counting",
			}, "activity_"+where+"_exec_us")
		}
	}
	return nil
}
