package activity

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// legacyFiles uses the calls that only old architectures have. The root is the
// directory of the test.
func legacyFiles() {
	old, older, moved := []byte("/old\x00"), []byte("/older\x00"), []byte("/moved\x00")
	legacy(unix.SYS_OPEN, old, nil, unix.O_WRONLY|unix.O_CREAT)
	legacy(unix.SYS_CREAT, older, nil, 0)
	legacy(unix.SYS_RENAME, old, moved, 0)
	legacy(unix.SYS_UNLINK, moved, nil, 0)
}

func legacy(call uintptr, path, to []byte, flags uintptr) {
	second := flags
	if to != nil {
		second = uintptr(unsafe.Pointer(&to[0]))
	}
	if _, _, errno := unix.Syscall(call, uintptr(unsafe.Pointer(&path[0])), second, 0o600); errno != 0 {
		check(errno)
	}
}
