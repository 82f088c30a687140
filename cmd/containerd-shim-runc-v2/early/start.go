package early

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const patience = 2 // seconds for a spare shim to answer

// start hands the container to a spare shim and prints its answer. False means
// that nothing happened and the usual way is open.
func start(args []string) bool {
	address := Flag(args, "-address")
	dir, err := os.Getwd()
	if err != nil || address == "" {
		return false
	}
	spares := filepath.Join(filepath.Dir(address), "spare")
	names, _ := os.ReadDir(spares)
	for _, n := range names {
		fd, err := claim(spares, n.Name())
		if err != nil {
			continue
		}
		input, err := io.ReadAll(io.LimitReader(os.Stdin, MaxRequest/2))
		if err != nil {
			return false
		}
		answer, err := ask(fd, Request{Dir: dir, Args: args, Env: os.Environ(), Input: input})
		if err != nil || len(answer) == 0 || answer[0] != Accepted {
			end(fd)
			again(input)
			return false
		}
		_, _ = os.Stdout.Write(answer[1:]) // containerd sees it fail
		return true
	}
	return false
}

// claim connects to a spare shim that nobody else has. The rename decides: of
// those that try, one finds the name.
func claim(dir, name string) (int, error) {
	if strings.HasPrefix(name, ".") {
		return -1, syscall.ENOENT
	}
	mine := filepath.Join(dir, "."+name)
	if err := os.Rename(filepath.Join(dir, name), mine); err != nil {
		return -1, err
	}
	defer os.Remove(mine)
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	limit := &syscall.Timeval{Sec: patience}
	for _, option := range []int{syscall.SO_RCVTIMEO, syscall.SO_SNDTIMEO} {
		if err == nil {
			err = syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, option, limit)
		}
	}
	if err == nil {
		err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: mine})
	}
	if err != nil {
		_ = syscall.Close(fd)
	}
	return fd, err
}

// ask sends the request and reads the answer to its end.
func ask(fd int, r Request) ([]byte, error) {
	for out := r.encode(); len(out) > 0; {
		n, err := syscall.Write(fd, out)
		if err != nil {
			return nil, err
		}
		out = out[n:]
	}
	if err := syscall.Shutdown(fd, syscall.SHUT_WR); err != nil {
		return nil, err
	}
	var answer []byte
	for buf := make([]byte, 4096); ; {
		n, err := syscall.Read(fd, buf)
		if err == syscall.EINTR {
			continue
		}
		if n <= 0 || err != nil {
			return answer, err
		}
		answer = append(answer, buf[:n]...)
	}
}

// end kills the shim at the other side, so that it cannot come back to a
// container that has another one by then.
func end(fd int) {
	if peer, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil && peer.Pid > 0 {
		_ = syscall.Kill(int(peer.Pid), syscall.SIGKILL)
	}
	_ = syscall.Close(fd)
}

// again lets the rest of the program read the input that was read already.
func again(input []byte) {
	r, w, err := os.Pipe()
	if err != nil {
		return // it says that it got no input
	}
	os.Stdin = r
	go func() {
		_, _ = w.Write(input)
		_ = w.Close()
	}()
}
