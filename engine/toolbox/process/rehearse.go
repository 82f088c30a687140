package process

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// RehearseArg makes the toolbox's program end at once with success.
const RehearseArg = "rehearse"

// Rehearse runs this very program once, as a command would run, and looks at
// the files that most commands begin with.
func (r *Runner) Rehearse(ctx context.Context) error {
	for _, script := range []string{"true", "true;"} { // plain, and for the shell
		if spec, _, err := r.Prepare(Command{Script: script}); err == nil {
			touch(spec.Path)
		}
	}
	for _, path := range []string{
		"/etc/ld.so.preload", "/etc/ld.so.cache", "/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1",
		"/lib/x86_64-linux-gnu/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6",
		"/lib/x86_64-linux-gnu/libtinfo.so.6", "/lib/aarch64-linux-gnu/libtinfo.so.6",
	} {
		touch(path)
	}
	res, err := r.Run(ctx, Command{Argv: []string{"/proc/self/exe", RehearseArg}}, Input{})
	if err == nil && res.ExitCode != 0 {
		err = fmt.Errorf("rehearse: exit code %d: %s", res.ExitCode, res.Result)
	}
	return err
}

// touch reads the start of a file, if it is one.
func touch(path string) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		var b [4096]byte
		_, _ = unix.Pread(fd, b[:], 0)
	}
}
