package sudo

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Main is the program sudo. It returns the exit code.
func Main(args []string, socket string) int {
	q, todo, err := parse(args)
	switch {
	case err != nil:
		return complain("%v", err)
	case todo == showVersion:
		fmt.Println("Sudo version 1.9.0 (atoll)")
		return 0
	case todo == usage:
		fmt.Fprintln(os.Stderr, "usage: sudo [-EHiknsv] [-u user] [-g group] [VAR=value] [-i|-s] [command]")
		return 1
	case todo == validate && len(q.Argv) == 0:
		q.Argv = []string{"true"}
	case todo == list && len(q.Argv) == 0:
		fmt.Println("The user of this sandbox may run the following commands:\n    (ALL : ALL) NOPASSWD: ALL")
		return 0
	}
	q.Env = map[string]string{}
	for _, kv := range os.Environ() {
		if k, v, ok := strings.Cut(kv, "="); ok {
			q.Env[k] = v
		}
	}
	if q.Cwd == "" {
		q.Cwd, _ = os.Getwd()
	}
	code, err := ask(socket, q)
	if err != nil {
		return complain("%v", err)
	}
	return code
}

func complain(format string, args ...any) int {
	fmt.Fprintf(os.Stderr, "sudo: "+format+"\n", args...)
	return 1
}

// ask runs q through the toolbox and passes signals on meanwhile.
func ask(socket string, q request) (int, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return 0, fmt.Errorf("this sandbox does not offer sudo: %w", err)
	}
	defer conn.Close()
	if _, _, err := conn.WriteMsgUnix([]byte{0}, unix.UnixRights(stdio()...), nil); err != nil {
		return 0, fmt.Errorf("pass the streams: %w", err)
	}
	if _, err := conn.Write(encode(q)); err != nil {
		return 0, fmt.Errorf("pass the command: %w", err)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT)
	var wg sync.WaitGroup
	wg.Go(func() {
		for s := range signals {
			if n, ok := s.(syscall.Signal); ok {
				_, _ = conn.Write(encode(message{Signal: int(n)}))
			}
		}
	})
	defer wg.Wait()
	defer close(signals)
	defer signal.Stop(signals)
	var m message
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &m)
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("wait for the command: %w", err)
	case m.Error != "":
		return 0, fmt.Errorf("%s", m.Error)
	case m.Exit == nil:
		return 0, fmt.Errorf("the toolbox gave no result")
	}
	return *m.Exit, nil
}

// stdio returns the three standard streams, with /dev/null for closed ones.
func stdio() []int {
	fds := []int{0, 1, 2}
	for i := range fds {
		if _, err := unix.FcntlInt(uintptr(i), unix.F_GETFD, 0); err != nil {
			if fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
				fds[i] = fd
			}
		}
	}
	return fds
}
