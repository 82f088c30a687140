package storage

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inNamespace tells the test binary that it runs in a mount namespace of its own.
const inNamespace = "ATOLL_STORAGE_TEST_NAMESPACE"

// TestMain runs the tests in their own mount namespace. A namespace that
// anybody else makes at the same time would copy our mounts and hold their
// loop devices for as long as it lives.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(crashHome) != "":
		fmt.Fprintln(os.Stderr, churn(os.Getenv(crashHome)))
		os.Exit(1)
	case os.Getenv(inNamespace) == "":
		os.Exit(runInNamespace())
	}
	if err := leaveOthersAlone(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func runInNamespace() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// leaveOthersAlone drops our copies of what other tests have mounted.
func leaveOthersAlone() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], os.TempDir()+"/Test") {
			_ = unix.Unmount(f[4], unix.MNT_DETACH) // gone with one above it, perhaps
		}
	}
	return nil
}
