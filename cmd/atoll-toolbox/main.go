// Command atoll-toolbox is the daemon inside a sandbox, its PID 1. Called by
// the name sudo it is that program's stand-in, and by the name of the desktop's
// worker that; with the argument sftp-server it serves files over its stdin and
// stdout.
package main

import (
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/atoll-sh/atoll/engine/toolbox"
	"github.com/atoll-sh/atoll/engine/toolbox/process"
	"github.com/atoll-sh/atoll/engine/toolbox/sftp"
	"github.com/atoll-sh/atoll/engine/toolbox/sudo"
)

// version is set when the program is built.
var version = "dev"

// grace is how long processes have between SIGTERM and SIGKILL at the end.
const grace = 8 * time.Second

func main() {
	if filepath.Base(os.Args[0]) == "sudo" {
		os.Exit(sudo.Main(os.Args[1:], sudo.DefaultSocket))
	}
	if len(os.Args) == 2 && os.Args[1] == process.RehearseArg {
		return
	}
	if os.Args[0] == toolbox.DesktopWorker {
		os.Exit(toolbox.DesktopMain())
	}
	if len(os.Args) > 1 && os.Args[1] == sftp.Command {
		os.Exit(sftp.Main())
	}
	os.Exit(run())
}

func run() int {
	tune()
	syscall.Umask(0o022)
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	t, err := toolbox.New(toolbox.FromEnv(version, os.Environ(), log))
	if err != nil {
		log.Error("start", "err", err)
		return 1
	}
	if err := t.Open(); err != nil {
		log.Error("start", "err", err)
		t.Close(0)
		return 1
	}
	debug.FreeOSMemory()
	<-stop
	t.Close(grace)
	return 0
}

// tune keeps the daemon small: it serves one sandbox and mostly waits.
func tune() {
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(64 << 20)
	runtime.GOMAXPROCS(1) // more when there is a crowd
}
