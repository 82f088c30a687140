package refused

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxText bounds one text of a call.
const maxText = 512

// look reads who a thread of the host is. It may be wrong unless the thread is
// known to have waited all the time.
func look(thread int) (Caller, bool) {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(thread) + "/status")
	if err != nil {
		return Caller{}, false
	}
	c := Caller{Thread: thread}
	for line := range bytes.Lines(status) {
		name, value, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(":\t"))
		switch string(name) {
		case "Name":
			c.Command = string(value)
		case "Tgid":
			c.ID = first(value)
		case "Uid":
			c.UID = uint32(first(value))
		case "NStgid":
			c.Inner = first(value[bytes.LastIndexByte(value, '\t')+1:])
		}
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(c.ID) + "/stat")
	if err != nil {
		return Caller{}, false
	}
	// The name in brackets may hold anything.
	rest := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const started = 19 // the 22nd of all, from the 3rd on
	if len(rest) <= started {
		return Caller{}, false
	}
	c.Started, err = strconv.ParseUint(string(rest[started]), 10, 64)
	return c, err == nil && c.ID > 0
}

func first(b []byte) int {
	b, _, _ = bytes.Cut(bytes.TrimSpace(b), []byte("\t"))
	n, _ := strconv.ParseInt(string(b), 10, 64)
	return int(n)
}

// readText reads a text from a process's memory, up to maxText bytes.
func readText(thread int, address uint64) (s string, cut, ok bool) {
	var buf [maxText]byte
	page := uint64(os.Getpagesize())
	n := 0
	for n < len(buf) {
		// One page at a time: the next one may not be there.
		size := min(uint64(len(buf)-n), page-(address+uint64(n))%page)
		local := []unix.Iovec{{Base: &buf[n]}}
		local[0].SetLen(int(size))
		got, err := unix.ProcessVMReadv(thread, local, []unix.RemoteIovec{{Base: uintptr(address) + uintptr(n), Len: int(size)}}, 0)
		if err != nil || got <= 0 {
			return "", false, false
		}
		if end := bytes.IndexByte(buf[n:n+got], 0); end >= 0 {
			return string(buf[:n+end]), false, true
		}
		n += got
	}
	return string(buf[:]), true, true
}
