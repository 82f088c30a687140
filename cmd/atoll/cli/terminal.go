package cli

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	toolbox "github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// rawTerminal hands our terminal to a command: keys go through unchanged, the
// size is told, now and when it changes. The function it returns undoes that.
func (a *app) rawTerminal(start *toolbox.ExecStart, run *stream) (func(), error) {
	if start.Env == nil {
		start.Env = map[string]string{}
	}
	if t := a.env("TERM"); t != "" && start.Env["TERM"] == "" {
		start.Env["TERM"] = t
	}
	fd, ok := terminal(a.in)
	if !ok {
		start.Cols, start.Rows = 80, 24
		return func() {}, nil
	}
	if cols, rows, err := term.GetSize(fd); err == nil {
		start.Cols, start.Rows = cols, rows
	}
	old, err := term.MakeRaw(fd)
	if err != nil {
		return nil, err
	}
	stop := watchSize(fd, run)
	return func() {
		stop()
		_ = term.Restore(fd, old)
	}, nil
}

// watchSize sends the size of the terminal to run whenever it changes.
func watchSize(fd int, run *stream) func() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGWINCH)
	sizes := make(chan size, 1)
	run.sizes = sizes
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range signals {
			cols, rows, err := term.GetSize(fd)
			if err != nil {
				continue
			}
			select {
			case sizes <- size{cols, rows}:
			default: // the last one is not sent yet; another signal will come
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-done
	}
}
