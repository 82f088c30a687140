// Package early does what the shim's program can do before the rest of it is
// initialised. Go initialises packages as soon as what they import is ready, in
// the order of their paths: this one imports little, so it runs before
// containerd's packages, which take 2 to 4 ms. Were that order different, only
// time would be lost.
//
// containerd runs "containerd-shim-runc-v2 … start" in the middle of every
// start of a container and waits for the address of a shim that serves it. The
// server keeps spare shims, which wait for a container below the directory of
// containerd's socket; start hands the container to one of them. Without a
// spare, or when anything goes wrong, it does the usual: the program goes on
// and starts a shim itself.
package early

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	program = "containerd-shim-runc-v2"

	// DirVariable names the directory in which a spare shim listens.
	DirVariable = "ATOLL_SPARE_DIR"

	// Spawn, as the only argument, leaves a spare shim behind that waits until
	// its standard input ends. Descriptor 3 must be taken, by anything.
	Spawn = "spare"

	// Waiting is the last argument of a spare shim. Those before make room for
	// the command line that it shows once it has a container.
	Waiting = "waiting"
	room    = 400
)

func init() {
	if len(os.Args) < 2 || filepath.Base(os.Args[0]) != program {
		return
	}
	switch os.Args[len(os.Args)-1] {
	case "start":
		if start(os.Args) {
			os.Exit(0)
		}
	case Spawn:
		if err := spawn(); err != nil {
			_, _ = os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// spawn starts this program again, in a session of its own and as nobody's
// child: it has to outlive the server.
func spawn() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	_, err = syscall.ForkExec(self, []string{self, strings.Repeat(" ", room), Waiting}, &syscall.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []uintptr{0, 1, 2, 3}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	return err
}

// Flag returns the value of a flag in a command line, or "".
func Flag(args []string, name string) string {
	for i, a := range args {
		if a == name && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}
