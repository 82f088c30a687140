package refused

import "golang.org/x/sys/unix"

// audit is how the kernel names this architecture.
const audit = unix.AUDIT_ARCH_X86_64

var processorCalls = map[uintptr]call{
	unix.SYS_IOPL:       {name: "iopl", params: []param{{"level", number}}},
	unix.SYS_IOPERM:     {name: "ioperm", params: []param{{"from", number}, {"count", number}, {"on", number}}},
	unix.SYS_MODIFY_LDT: {name: "modify_ldt", params: []param{{"function", number}}},
}
