// Command toolbox is a small stand-in for process 1 of a sandbox, for tests of
// the driver alone: it answers the status, and runs commands and system calls.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "syscalls" {
		runtime.LockOSThread() // the main thread must not be the one that is killed
		json.NewEncoder(os.Stdout).Encode(syscalls())
		return
	}
	if len(os.Args) > 3 && os.Args[1] == "flood" {
		flood(os.Args[2], os.Args[3])
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "choices" {
		json.NewEncoder(os.Stdout).Encode(choices())
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "time-calls" {
		json.NewEncoder(os.Stdout).Encode(timeCalls())
		return
	}
	if len(os.Args) > 2 && os.Args[1] == "as-user" {
		cmd := exec.Command(os.Args[2], os.Args[3:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
		b, err := cmd.CombinedOutput()
		fmt.Print(string(b))
		if err != nil {
			fmt.Println(err)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "euid" {
		fmt.Print(os.Geteuid())
		return
	}
	if words := os.Getenv("TEST_DIE"); words != "" {
		fmt.Fprintln(os.Stderr, words)
		os.Exit(7)
	}
	if os.Getenv("TEST_DEAF") != "" {
		time.Sleep(time.Hour)
	}
	l, err := net.Listen("unix", os.Getenv("ATOLL_TOOLBOX_SOCKET"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	if os.Getenv("TEST_STUBBORN") != "" {
		signal.Ignore(syscall.SIGTERM)
	}
	go func() {
		<-ended
		os.Exit(0)
	}()
	http.HandleFunc("GET /internal/status", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"version":"test"}`)
	})
	http.HandleFunc("POST /exit", func(_ http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.FormValue("code"))
		os.Exit(code)
	})
	http.HandleFunc("POST /exec", run)
	fmt.Fprintln(os.Stderr, http.Serve(l, nil))
	os.Exit(1)
}

func run(w http.ResponseWriter, r *http.Request) {
	var args []string
	if err := json.NewDecoder(r.Body).Decode(&args); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	cmd := exec.Command(args[0], args[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Start()
	if err == nil {
		// Memory kills shall hit the command, not us.
		os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", cmd.Process.Pid), []byte("1000"), 0)
		err = cmd.Wait()
	}
	code := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
		if ws := exit.Sys().(syscall.WaitStatus); ws.Signaled() {
			code = 128 + int(ws.Signal())
		}
	case err != nil:
		code = 127
		out.WriteString(err.Error())
	}
	json.NewEncoder(w).Encode(map[string]any{"exit": code, "output": out.String()})
}

// syscalls tries what must be refused and returns the error of each.
func syscalls() map[string]string {
	got := map[string]string{}
	try := func(name string, nr uintptr, args ...uintptr) {
		var a [6]uintptr
		copy(a[:], args)
		_, _, errno := syscall.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
		got[name] = "allowed"
		if errno != 0 {
			got[name] = errno.Error()
		}
	}
	tmpfs, mnt := append([]byte("tmpfs"), 0), append([]byte("/mnt"), 0)
	p := func(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }
	var attr [128]byte
	try("mount", 165, p(tmpfs), p(mnt), p(tmpfs))
	try("umount", 166, p(append([]byte("/proc"), 0)), 2)
	try("unshare-user", 272, 0x10000000)
	try("unshare-mount", 272, 0x00020000)
	try("setns", 308, 0, 0)
	try("clone-user", 56, 0x10000000|17)
	try("clone3", 435, p(attr[:]), 88)
	try("bpf", 321, 0, p(attr[:]), 128)
	try("perf_event_open", 298, p(attr[:]), 0, ^uintptr(0), ^uintptr(0), 0)
	try("userfaultfd", 323, 0)
	try("io_uring_setup", 425, 8, p(attr[:]))
	try("io_uring_enter", 426, 0)
	try("io_uring_register", 427, 0)
	try("keyctl", 250, 0, 0)
	try("add_key", 248, p(tmpfs), p(mnt), 0, 0, 0)
	try("request_key", 249, p(tmpfs), p(mnt), 0, 0)
	try("mknod-block", 133, p(append([]byte("/tmp/sda"), 0)), 0x6000|0o600, 8<<8)
	try("mknod-kmem", 133, p(append([]byte("/tmp/mem"), 0)), 0x2000|0o600, 1<<8|1)
	try("init_module", 175, 0, 0, 0)
	try("finit_module", 313, 0, 0, 0)
	try("kexec_load", 246, 0, 0, 0, 0)
	try("reboot", 169, 0xfee1dead, 672274793, 0x01234567)
	try("swapon", 167, p(mnt), 0)
	try("settimeofday", 164, p(attr[:]), 0)
	try("clock_settime", 227, 0, p(attr[:]))
	try("sethostname", 170, p(mnt), 4)
	try("syslog", 103, 3, p(attr[:]), 128)
	try("open_by_handle_at", 304, 0, p(attr[:]), 0)
	try("fsopen", 430, p(tmpfs), 0)
	try("open_tree", 428, 0, p(mnt), 1)
	try("move_mount", 429, 0, p(mnt), 0, p(mnt), 0)
	try("pivot_root", 155, p(mnt), p(mnt))
	try("iopl", 172, 3)
	try("ptrace-host", 101, 16, 1<<21) // no such process inside
	try("socket-alg", 41, 38, 5, 0)
	try("socket-vsock", 41, 40, 1, 0)
	try("socket-packet", 41, 17, 3, 0)
	try("socket-raw", 41, 2, 3, 1)
	try("quotactl", 179, 0, 0, 0, 0)
	try("acct", 163, 0)
	try("modify_ldt", 154, 0, p(attr[:]), 16)
	got["x32-getpid"] = foreign()
	return got
}

// flood makes refused calls, first the same and then different ones.
func flood(same, other string) {
	n, _ := strconv.Atoi(same)
	for range n {
		syscall.Syscall(272, 0x10000000, 0, 0)
	}
	n, _ = strconv.Atoi(other)
	for i := range n {
		path := append([]byte(strconv.Itoa(i)), 0)
		syscall.Syscall(163, uintptr(unsafe.Pointer(&path[0])), 0, 0)
	}
}

// choices returns what the filter lets through: families of sockets, of a type
// that no family has, and personalities.
func choices() map[string][]uint64 {
	let := map[string][]uint64{}
	for family := range uint64(64) {
		if _, _, errno := syscall.RawSyscall(41, uintptr(family), 0x7f, 0); errno != syscall.EPERM {
			let["socket"] = append(let["socket"], family)
		}
	}
	for _, p := range []uint64{0, 1, 8, 9, 0x10, 0x20000, 0x20008, 0x20009, 0x40000, 0xfffffffe, 0xffffffff, 1 << 32, 1<<32 | 8} {
		if _, _, errno := syscall.RawSyscall(135, uintptr(p), 0, 0); errno != syscall.EPERM {
			let["personality"] = append(let["personality"], p)
		}
	}
	return let
}

// timeCalls returns the time of one call, allowed and refused.
func timeCalls() map[string]time.Duration {
	runtime.LockOSThread()
	each := func(n int, do func()) time.Duration {
		since := time.Now()
		for range n {
			do()
		}
		return time.Since(since) / time.Duration(n)
	}
	raw := func(nr, arg uintptr) func() { return func() { syscall.RawSyscall(nr, arg, 0, 0) } }
	return map[string]time.Duration{
		"getppid": each(50000, raw(110, 0)),
		"clone":   each(2000, raw(56, 0x10000)), // a thread without signal handlers: allowed, and not possible
		"socket":  each(2000, raw(41, 38)),
		"refused": each(300, raw(272, 0x10000000)),
	}
}

// foreign makes a call of another architecture on a thread of its own, which
// the filter kills.
func foreign() string {
	back := make(chan string, 1)
	go func() {
		runtime.LockOSThread()
		_, _, errno := syscall.RawSyscall(0x40000000|39, 0, 0, 0)
		back <- fmt.Sprintf("came back: %d", errno)
	}()
	select {
	case s := <-back:
		return s
	case <-time.After(300 * time.Millisecond):
		return "killed"
	}
}
