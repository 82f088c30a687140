package trace

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// roles are what this binary does inside a sandbox.
var roles = map[string]func(args []string){
	"toolbox": beToolbox,
	"memfd":   memfd,
	"ptrace":  ptrace,
	"flood":   flood,
	"restart": restart,
	"knock":   knock,
}

func contextUntil() (context.Context, func()) { return context.WithCancel(context.Background()) }

// memfd runs a program that lies in memory alone.
func memfd([]string) {
	b, err := os.ReadFile("/bin/true")
	check(err)
	fd, err := unix.MemfdCreate("hidden", 0)
	check(err)
	_, err = unix.Write(fd, b)
	check(err)
	check(syscall.Exec("/proc/self/fd/"+strconv.Itoa(fd), []string{"innocent"}, nil))
}

// ptrace takes hold of a process and lets it go.
func ptrace([]string) {
	runtime.LockOSThread()
	c := exec.Command("/bin/sleep", "300")
	check(c.Start())
	check(syscall.PtraceAttach(c.Process.Pid))
	_, err := syscall.Wait4(c.Process.Pid, nil, 0, nil)
	check(err)
	check(syscall.PtraceDetach(c.Process.Pid))
	check(c.Process.Kill())
}

// flood starts a program so many times.
func flood(args []string) {
	n, err := strconv.Atoi(args[1])
	check(err)
	for range n {
		pid, err := syscall.ForkExec(args[0], []string{"flood"}, &syscall.ProcAttr{})
		check(err)
		for {
			if _, err = syscall.Wait4(pid, nil, 0, nil); err != syscall.EINTR {
				break
			}
		}
		check(err)
	}
}

// knock tries to connect to a Unix socket without a file from a network of its
// own, as a sandbox has, and makes the file args[1] when it gets through.
func knock(args []string) {
	runtime.LockOSThread()
	check(syscall.Unshare(syscall.CLONE_NEWNET))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	check(err)
	if unix.Connect(fd, &unix.SockaddrUnix{Name: args[0]}) == nil {
		check(os.WriteFile(args[1], nil, 0o600))
	}
}

// restart replaces itself by the program it is given, under another name.
func restart(args []string) { check(syscall.Exec(args[0], args[1:], nil)) }

// nothing is a program that ends at once, as small as one can be: an ELF header,
// one segment, and exit(0).
func nothing() []byte {
	if runtime.GOARCH != "amd64" {
		b, _ := os.ReadFile("/bin/true")
		return b
	}
	code := []byte{0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05} // mov eax, 60; xor edi, edi; syscall
	const base, head = 0x400000, 64 + 56
	size := uint64(head + len(code))
	h := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Entry: base + head, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	segment := elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: 0x1000,
	}
	var b bytes.Buffer
	for _, part := range []any{h, segment, code} {
		check(binary.Write(&b, binary.LittleEndian, part))
	}
	return b.Bytes()
}
