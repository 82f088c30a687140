package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// toolboxPSS returns the proportional set size of the largest toolbox process
// of the server with this id, in MB.
func toolboxPSS(id string) (float64, error) {
	most := 0.0
	for _, pid := range pids() {
		args, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
		group, _ := os.ReadFile(filepath.Join("/proc", pid, "cgroup"))
		if !bytes.HasPrefix(args, []byte("/.atoll/toolbox")) || !bytes.Contains(group, []byte("/atoll-"+id+"/")) {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", pid, "smaps_rollup"))
		if err != nil {
			continue
		}
		most = max(most, field(string(b), "Pss:")/1000)
	}
	if most == 0 {
		return 0, errors.New("no toolbox process found")
	}
	return most, nil
}

// serverMemory adds up the proportional set sizes of the server, its
// containerd and its spare shims, in MB; the first two are one binary and share
// its pages. Other shims belong to sandboxes and are named in the detail only.
func serverMemory(home, id string, server int) (mb float64, detail string, err error) {
	pss := func(pid string) float64 {
		b, _ := os.ReadFile(filepath.Join("/proc", pid, "smaps_rollup"))
		return field(string(b), "Pss:") / 1000
	}
	own := pss(strconv.Itoa(server))
	var ctrd, shims, spares float64
	n := 0
	for _, pid := range pids() {
		args, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
		line := string(bytes.ReplaceAll(args, []byte{0}, []byte(" ")))
		switch {
		case strings.Contains(line, " containerd ") && strings.Contains(line, home):
			ctrd += pss(pid)
		case strings.Contains(line, home) && strings.HasSuffix(line, " waiting "):
			spares += pss(pid)
		case strings.Contains(line, "containerd-shim-runc-v2") && strings.Contains(line, "/run/atoll/"+id+"/"):
			shims += pss(pid)
			n++
		}
	}
	if ctrd == 0 {
		return 0, "", errors.New("the server's containerd was not found")
	}
	return own + ctrd + spares, fmt.Sprintf("PSS: server %.0f + containerd %.0f + spare shims %.0f; beside them %d shims of pooled sandboxes, %.0f", own, ctrd, spares, n, shims), nil
}

func pids() []string {
	list, _ := filepath.Glob("/proc/[0-9]*")
	for i, p := range list {
		list[i] = filepath.Base(p)
	}
	return list
}

// field reads a number of kB that follows name in a /proc file.
func field(text, name string) float64 {
	_, rest, ok := strings.Cut(text, name)
	if !ok {
		return 0
	}
	v, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	return v
}
