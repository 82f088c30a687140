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
var overhead = regexp.MustCompile(`([0-9.e+-]+) (off|ratio|control)_([a-z_]+)`)

// activity runs the benchmark of the recorder and takes its numbers over: work
// inside a watched sandbox and outside of all, with the recorder and without,
// in turns.
func (b *bench) activity(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, ".ci/go", "test", "-run", "^$", "-bench", "^BenchmarkActivity$", "-benchtime", "1x", "./ebpf/activity").CombinedOutput()
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
		b.add(row{
			Name: "activity_" + name + "_ratio", Value: values["ratio "+name], Unit: "ratio",
			Detail: fmt.Sprintf("recorded to not recorded, %.4g µs; not recorded twice: %.3f", values["off "+name]/1000, values["control "+name]),
		})
	}
	return nil
}
