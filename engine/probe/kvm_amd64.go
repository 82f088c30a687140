package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

const (
	kvmGetAPIVersion     = 0xAE00
	kvmCreateVM          = 0xAE01
	kvmGetVCPUMmapSize   = 0xAE04
	kvmGetSupportedCPUID = 0xC008AE05
	kvmCreateVCPU        = 0xAE41
	kvmSetMemoryRegion   = 0x4020AE46
	kvmSetTSSAddr        = 0xAE47
	kvmRun               = 0xAE80
	kvmSetRegs           = 0x4090AE82
	kvmGetSregs          = 0x8138AE83
	kvmSetSregs          = 0x4138AE84
	kvmSetCPUID2         = 0x4008AE90

	kvmExitHalt = 5
	// guestLimit is how long the guest may take. On real hardware it needs
	// some milliseconds; a host that emulates it needs seconds.
	guestLimit = 150 * time.Millisecond
)

// kvm runs instructions that every kernel uses in a real guest: long mode with
// its own page tables, model specific registers, a locked 16-byte exchange in a
// tight loop. Some hosts have a /dev/kvm that makes a guest and cannot run it.
func kvm(context.Context, Options) engine.Check {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return bad("no /dev/kvm: virtual machines are emulated, which is slow", "switch on virtualization in the firmware, or nested virtualization on the outer host")
	}
	if err != nil {
		return bad("/dev/kvm: "+err.Error(), "give the server access to /dev/kvm")
	}
	defer f.Close()
	var took time.Duration
	if err := apart(0, func() (err error) { took, err = runGuest(int(f.Fd())); return err }); err != nil {
		return bad("/dev/kvm exists but does not run a guest: "+err.Error(), "use a host with hardware virtualization; virtual machines are emulated here, which is slow")
	}
	return good(fmt.Sprintf("a test guest ran in %s", took.Round(time.Microsecond)))
}

func ioctl(fd int, request, arg uintptr) (int, error) {
	for {
		r, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, arg)
		switch e {
		case 0:
			return int(r), nil
		case unix.EINTR:
			if request == kvmRun {
				return 0, e
			}
		default:
			return 0, e
		}
	}
}

// guest is a virtual machine with one processor and 2 MiB of memory.
type guest struct {
	vm, cpu     int
	memory, run []byte
}

func (g *guest) close() {
	if g.run != nil {
		unix.Munmap(g.run)
	}
	for _, fd := range []int{g.cpu, g.vm} {
		if fd > 0 {
			unix.Close(fd)
		}
	}
	if g.memory != nil {
		unix.Munmap(g.memory)
	}
}

func runGuest(kvm int) (time.Duration, error) {
	if v, err := ioctl(kvm, kvmGetAPIVersion, 0); err != nil || v != 12 {
		return 0, fmt.Errorf("version %d: %w", v, err)
	}
	var g guest
	defer g.close()
	if err := g.boot(kvm); err != nil {
		return 0, err
	}
	return g.execute()
}

func (g *guest) boot(kvm int) (err error) {
	const size = 2 << 20
	if g.vm, err = ioctl(kvm, kvmCreateVM, 0); err != nil {
		return fmt.Errorf("create a machine: %w", err)
	}
	if g.memory, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS); err != nil {
		return fmt.Errorf("map memory: %w", err)
	}
	_, _ = ioctl(g.vm, kvmSetTSSAddr, 0xfffbd000) // old Intel processors need it
	region := struct {
		slot, flags           uint32
		address, size, source uint64
	}{size: size, source: uint64(uintptr(unsafe.Pointer(&g.memory[0])))}
	if _, err := ioctl(g.vm, kvmSetMemoryRegion, uintptr(unsafe.Pointer(&region))); err != nil {
		return fmt.Errorf("set memory: %w", err)
	}
	g.load()
	if g.cpu, err = ioctl(g.vm, kvmCreateVCPU, 0); err != nil {
		return fmt.Errorf("create a processor: %w", err)
	}
	n, err := ioctl(kvm, kvmGetVCPUMmapSize, 0)
	if err != nil {
		return fmt.Errorf("size of the run area: %w", err)
	}
	if g.run, err = unix.Mmap(g.cpu, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map the run area: %w", err)
	}
	return g.setup(kvm)
}

// load writes page tables that map the first 2 MiB to themselves, and the code.
func (g *guest) load() {
	le := binary.LittleEndian
	le.PutUint64(g.memory[0x2000:], 0x3003)
	le.PutUint64(g.memory[0x3000:], 0x4003)
	le.PutUint64(g.memory[0x4000:], 0x83)
	copy(g.memory[0x1000:], []byte{
		0xB9, 0x82, 0x00, 0x00, 0xC0, // mov ecx, MSR_LSTAR
		0x31, 0xD2, 0xB8, 0x34, 0x12, 0, 0, // xor edx, edx; mov eax, 0x1234
		0x0F, 0x30, // wrmsr
		0x0F, 0x32, // rdmsr
		0x0F, 0x01, 0x3C, 0x25, 0x00, 0x50, 0, 0, // invlpg [0x5000]
		0xB9, 0x40, 0x0D, 0x03, 0x00, // mov ecx, 200000
		0x31, 0xC0, 0x31, 0xD2, 0x31, 0xDB, // xor eax, eax; xor edx, edx; xor ebx, ebx
		0xF0, 0x48, 0x0F, 0xC7, 0x0F, // lock cmpxchg16b [rdi]
		0xFF, 0xC9, // dec ecx
		0x75, 0xF7, // jnz to the exchange
		0xF4, // hlt
	})
}

// setup puts the processor into 64-bit mode at the code.
func (g *guest) setup(kvm int) error {
	le := binary.LittleEndian
	cpuid := make([]byte, 8+40*256)
	le.PutUint32(cpuid, 256)
	if _, err := ioctl(kvm, kvmGetSupportedCPUID, address(cpuid)); err != nil {
		return fmt.Errorf("ask for processor features: %w", err)
	}
	if _, err := ioctl(g.cpu, kvmSetCPUID2, address(cpuid)); err != nil {
		return fmt.Errorf("set processor features: %w", err)
	}
	s := make([]byte, 312)
	if _, err := ioctl(g.cpu, kvmGetSregs, address(s)); err != nil {
		return fmt.Errorf("get special registers: %w", err)
	}
	segment(s, 0, 8, 11, 0, 1) // code
	for i := 1; i < 6; i++ {
		segment(s, i, 16, 3, 1, 0) // data
	}
	const control = 192 + 32 // after eight segments and two tables
	le.PutUint64(s[control:], 0x80050033)
	le.PutUint64(s[control+16:], 0x2000)
	le.PutUint64(s[control+24:], 0x620)
	le.PutUint64(s[control+40:], 0x500)
	if _, err := ioctl(g.cpu, kvmSetSregs, address(s)); err != nil {
		return fmt.Errorf("enter 64-bit mode: %w", err)
	}
	r := make([]uint64, 18)
	r[5], r[6], r[16], r[17] = 0x8000, 0x7000, 0x1000, 2 // rdi, rsp, rip, rflags
	if _, err := ioctl(g.cpu, kvmSetRegs, uintptr(unsafe.Pointer(&r[0]))); err != nil {
		return fmt.Errorf("set registers: %w", err)
	}
	return nil
}

// segment fills segment i: selector, type, default size, long mode.
func segment(s []byte, i int, selector uint16, kind, db, l byte) {
	b := s[i*24:]
	binary.LittleEndian.PutUint64(b, 0)
	binary.LittleEndian.PutUint32(b[8:], 0xffffffff)
	binary.LittleEndian.PutUint16(b[12:], selector)
	copy(b[14:23], []byte{kind, 1, 0, db, 1, l, 1, 0, 0})
}

func address(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }

// execute runs the guest until it halts. A guest that takes too long is
// stopped by a signal to this thread, which the Go runtime ignores.
func (g *guest) execute() (time.Duration, error) {
	thread := unix.Gettid()
	start := time.Now()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		wait := guestLimit
		for {
			select {
			case <-stop:
				return
			case <-time.After(wait):
				_ = unix.Tgkill(unix.Getpid(), thread, unix.SIGURG)
				wait = 10 * time.Millisecond
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	for {
		_, err := ioctl(g.cpu, kvmRun, 0)
		took := time.Since(start)
		switch {
		case errors.Is(err, unix.EINTR) && took < guestLimit:
			continue // the Go runtime's own signal
		case errors.Is(err, unix.EINTR):
			return 0, fmt.Errorf("the guest is still running after %s: its instructions are emulated", guestLimit)
		case err != nil:
			return 0, fmt.Errorf("run: %w", err)
		}
		if reason := binary.LittleEndian.Uint32(g.run[8:]); reason != kvmExitHalt {
			return 0, fmt.Errorf("the guest stopped with reason %d instead of halting", reason)
		}
		return took, nil
	}
}
