package refused

import "golang.org/x/sys/unix"

// audit is how the kernel names this architecture.
const audit = unix.AUDIT_ARCH_AARCH64

var processorCalls = map[uintptr]call{}
