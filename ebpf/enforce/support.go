package enforce

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/ebpf/kernel"
)

// ErrUnsupported is what Open and Supported fail with where the kernel cannot
// enforce rules. The message names what is missing.
var ErrUnsupported = errors.New("the kernel cannot enforce rules for programs and files")

// Supported tries a program that notes that it was called when a file is
// opened. Some kernels refuse to load it, and some never call it. nil: rules
// can be enforced.
func Supported() error {
	kernel.FreeMemlock()
	called, err := ebpf.NewMap(&ebpf.MapSpec{Name: "called", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return unsupported("it has no BPF", err)
	}
	defer called.Close()
	if why := skips(); why != "" {
		return unsupported(why, nil)
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "called", Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "file_open", License: "GPL",
		Instructions: asm.Instructions{
			asm.LoadMapValue(asm.R1, called.FD(), 0),
			asm.Mov.Imm(asm.R2, 1),
			asm.StoreMem(asm.R1, 0, asm.R2, asm.DWord),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
	})
	if errors.Is(err, unix.EPERM) {
		return unsupported("it refuses BPF trampolines", unix.EPERM) // the library suspects a limit
	}
	if err != nil {
		return unsupported("it does not load BPF programs for LSM hooks", err)
	}
	defer p.Close()
	l, err := link.AttachLSM(link.LSMOptions{Program: p})
	if err != nil {
		return unsupported("it does not attach BPF programs to LSM hooks", err)
	}
	defer l.Close()
	f, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	f.Close()
	var n uint64
	if err := called.Lookup(uint32(0), &n); err != nil {
		return err
	}
	if n == 0 {
		return unsupported("its list of security modules lacks bpf; start it with lsm=…,bpf", nil)
	}
	return nil
}

func unsupported(why string, err error) error {
	if err == nil {
		return fmt.Errorf("%w: %s", ErrUnsupported, why)
	}
	return fmt.Errorf("%w: %s: %w", ErrUnsupported, why, err)
}

// skips tells why a kernel may leave out programs. Before Linux 6.2 it does so
// when a program is still at work on the same processor, which happens where
// tasks may be interrupted anywhere in the kernel.
func skips() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err.Error()
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err.Error()
	}
	if preempted(unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Version[:]), string(line)) {
		return "before Linux 6.2, it leaves programs out where it is fully preemptible; start it with preempt=voluntary"
	}
	return ""
}

func preempted(release, version, commandLine string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil || major > 6 || major == 6 && minor >= 2 {
		return err != nil
	}
	words := strings.Fields(version)
	return slices.Contains(words, "PREEMPT") || slices.Contains(words, "PREEMPT_RT") ||
		slices.Contains(strings.Fields(commandLine), "preempt=full")
}
