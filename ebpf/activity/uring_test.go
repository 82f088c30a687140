package activity

import (
	"encoding/binary"
	"os"
	"slices"
	"strconv"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// uring makes a file without the system call for it: a ring of the kernel takes
// the request.
func uring(args []string) {
	var params [120]byte
	word := func(b []byte, at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params[0])), 0)
	if errno != 0 {
		check(errno)
	}
	const sqOff, cqOff = 40, 80 // of the offsets in the parameters
	entry := func(off int64, size int) []byte {
		m, err := unix.Mmap(int(ring), off, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
		check(err)
		return m
	}
	sq, cq, request := entry(0, 4096), entry(0x8000000, 4096), entry(0x10000000, 64)
	path := append([]byte(args[0]), 0)
	request[0] = 18                                                   // IORING_OP_OPENAT
	binary.NativeEndian.PutUint32(request[4:], uint32(0xffffffff-99)) // AT_FDCWD
	binary.NativeEndian.PutUint64(request[16:], uint64(uintptr(unsafe.Pointer(&path[0]))))
	binary.NativeEndian.PutUint32(request[24:], 0o600)
	binary.NativeEndian.PutUint32(request[28:], unix.O_WRONLY|unix.O_CREAT)
	binary.NativeEndian.PutUint32(sq[word(params[:], sqOff+24):], 0) // array
	binary.NativeEndian.PutUint32(sq[word(params[:], sqOff+4):], 1)  // tail
	if _, _, errno = unix.Syscall6(unix.SYS_IO_URING_ENTER, ring, 1, 1, 1, 0, 0); errno != 0 {
		check(errno)
	}
	fd := int32(word(cq, int(word(params[:], cqOff+20))+8))
	if fd < 0 {
		check(unix.Errno(-fd))
	}
	check(unix.Close(int(fd)))
}

func TestFilesOfRings(t *testing.T) {
	if b, err := os.ReadFile("/proc/sys/kernel/io_uring_disabled"); err == nil {
		if n, _ := strconv.Atoi(string(b[:1])); n == 2 {
			t.Skip("io_uring is off on this host")
		}
	}
	b, root := watched(t)
	b.work("uring", root+"/made")
	events := b.all()
	if got, want := allTold(events), []told{{KindCreate, "/made", ""}}; !slices.Equal(got, want) {
		t.Fatalf("got %v", got)
	}
	made, exit := only(events, KindCreate)[0], only(events, KindExit)
	if key(made.Process) != key(exit[len(exit)-1].Process) {
		t.Errorf("made by %+v, which ended as %+v", made.Process, exit)
	}
}
