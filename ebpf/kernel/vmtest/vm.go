// Package vmtest runs tests under kernels of the distribution, in an emulated
// machine: what a kernel's verifier takes and which hooks it has can only be
// known by trying. The machine needs no hardware support and no network. It
// boots in seconds and ends with the tests.
package vmtest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrNoKernel is what Find fails with when a kernel was not unpacked.
var ErrNoKernel = errors.New("this kernel is not here")

// Kernel is an unpacked package of a kernel.
type Kernel struct {
	Package string
	Image   string
	Modules string // the directory of its modules, named after its release
}

// Find looks for a kernel where .ci/kernels puts it.
func Find(pkg string) (Kernel, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return Kernel{}, err
	}
	dir := filepath.Join(cache, "atoll", "vmtest", pkg)
	images, _ := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	modules, _ := filepath.Glob(filepath.Join(dir, "lib/modules/*"))
	if len(images) != 1 || len(modules) != 1 {
		return Kernel{}, fmt.Errorf("%s: %w", pkg, ErrNoKernel)
	}
	return Kernel{Package: pkg, Image: images[0], Modules: modules[0]}, nil
}

// Job is a static program that runs as root in the machine.
type Job struct {
	Name    string
	Program string // on the host
	Args    []string
	Env     []string
}

// Result is how a job ended.
type Result struct {
	Name   string
	Exit   int
	Output string
}

// Machine is what Run boots. Busybox and its commands are in it, and every
// kernel file system.
type Machine struct {
	Kernel    Kernel
	Init      string // a static program that calls Guest as process 1
	Busybox   string // static; empty is /bin/busybox
	CPUs      int
	MemoryMiB int
	Modules   []string          // to load at the start, by name; what these need comes by itself
	Files     map[string]string // more static programs: paths here, by their path in the machine
	Disk      string            // the image of its root file system, as Disk writes it; empty: all is in memory
	Options   string            // more of the kernel's command line
	Jobs      []Job
}

// Run boots the machine, runs its jobs one after the other, and returns when it
// is off. Without an error there is a result for each job.
func (m Machine) Run(ctx context.Context) ([]Result, error) {
	dir, err := os.MkdirTemp("", "vmtest-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	initrd := filepath.Join(dir, "initrd")
	if err := m.pack(initrd); err != nil {
		return nil, fmt.Errorf("pack the machine's files: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "q35", "-accel", "tcg", "-cpu", "max",
		"-smp", fmt.Sprint(m.CPUs), "-m", fmt.Sprint(m.MemoryMiB), "-serial", "stdio",
		"-kernel", m.Kernel.Image, "-initrd", initrd, "-append", commandLine+" "+m.Options)
	if m.Disk != "" { // what the machine writes is forgotten
		cmd.Args = append(cmd.Args, "-drive", "if=virtio,format=raw,cache=unsafe,snapshot=on,file="+m.Disk)
	}
	var faults strings.Builder
	cmd.Stderr = &faults
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	results, text := parse(out)
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("run the machine: %w\n%s\n%s", err, faults.String(), text)
	}
	if len(results) != len(m.Jobs) {
		return nil, fmt.Errorf("the machine ended after %d of %d jobs\n%s", len(results), len(m.Jobs), text)
	}
	return results, nil
}

// commandLine leaves out what takes time and is not what is tested.
const commandLine = "console=ttyS0 panic=-1 quiet loglevel=2 no_timer_check nokaslr mitigations=off cryptomgr.notests " +
	"random.trust_cpu=on rcupdate.rcu_expedited=1 audit=0 apparmor=0 rdinit=/init"

// ended begins the line that tells of a job's end.
const ended = "\x1evmtest "

// parse reads what the machine writes to its console, and returns what was no
// job's as well.
func parse(r io.Reader) (results []Result, rest string) {
	var b strings.Builder
	for in := bufio.NewReader(r); ; {
		line, err := in.ReadString('\n')
		line = strings.ReplaceAll(line, "\r", "")
		before, end, ok := strings.Cut(line, ended)
		b.WriteString(before)
		if ok {
			var res Result
			if json.Unmarshal([]byte(end), &res) == nil {
				res.Output = b.String()
				results = append(results, res)
				b.Reset()
			}
		}
		if err != nil {
			return results, b.String()
		}
	}
}
