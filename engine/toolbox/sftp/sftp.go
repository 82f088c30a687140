// Package sftp is the SFTP server of a sandbox: a process of the sandbox's
// user that speaks the protocol over its stdin and stdout. The kernel checks
// what the user may do with files; the server adds nothing to that.
package sftp

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/pkg/sftp"
)

// Command is the argument by which the toolbox's program becomes the server.
const Command = "sftp-server"

// Main serves until the client leaves and returns the exit code. Relative
// paths start from the directory that the process was started in.
func Main() int {
	syscall.Umask(0o022)
	if err := serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sftp-server:", err)
		return 1
	}
	return 0
}

func serve(in io.Reader, out io.WriteCloser) error {
	s, err := sftp.NewServer(struct {
		io.Reader
		io.WriteCloser
	}{in, out}) // with a directory of its own it would make relative links absolute
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if err := s.Serve(); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
