package probe

import (
	"context"
	"errors"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/ebpf/enforce"
	"github.com/atoll-sh/atoll/engine"
)

// bpf tries what egress control and activity records are made of.
func bpf(context.Context, Options) engine.Check {
	_ = rlimit.RemoveMemlock() // needed before Linux 5.11 only
	var have, lack []string
	for _, f := range []struct {
		name string
		try  func() error
	}{
		{"ring buffers", func() error { return features.HaveMapType(ebpf.RingBuf) }},
		{"traffic control", func() error { return features.HaveProgramType(ebpf.SchedCLS) }},
		{"TCX", TCX},
		{"tracing", func() error { return features.HaveProgramType(ebpf.Tracing) }},
		{"LSM", func() error { return features.HaveProgramType(ebpf.LSM) }},
	} {
		if f.try() == nil {
			have = append(have, f.name)
		} else {
			lack = append(lack, f.name)
		}
	}
	d := "with " + strings.Join(have, ", ")
	if len(have) == 0 {
		return bad("not available", "use a kernel with CONFIG_BPF_SYSCALL, and CAP_BPF or CAP_SYS_ADMIN")
	}
	if len(lack) > 0 {
		d += "; without " + strings.Join(lack, ", ")
	}
	return good(d)
}

// TCX tells whether programs can be attached to devices by links, as of Linux
// 6.6. It attaches one that passes everything to the loopback device of a
// network namespace of its own.
func TCX() error {
	return apart(unix.CLONE_NEWNET, func() error {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.SchedCLS, License: "GPL",
			Instructions: asm.Instructions{asm.LoadImm(asm.R0, -1, asm.DWord), asm.Return()},
		})
		if err != nil {
			return err
		}
		l, err := link.AttachTCX(link.TCXOptions{Interface: 1, Program: p, Attach: ebpf.AttachTCXIngress})
		if err == nil {
			err = l.Close()
		}
		return errors.Join(err, p.Close())
	})
}

// confinement tries what rules about programs and files are enforced with.
func confinement(context.Context, Options) engine.Check {
	if err := enforce.Supported(); err != nil {
		return bad(err.Error(), "use a kernel that runs BPF programs at LSM hooks, as Debian's from 6.1 on; policies with such rules are refused here unless they say best-effort")
	}
	return good("enforced by BPF programs at LSM hooks")
}
