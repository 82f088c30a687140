package vmtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Guest is what the machine's first process does. It does not return.
func Guest() {
	err := guest()
	if err != nil {
		fmt.Println("vmtest:", err)
	}
	_ = unix.IoctlSetInt(int(os.Stdout.Fd()), unix.TCSBRK, 1) // the console is slower than we: wait for it
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

func guest() error {
	b, err := os.ReadFile("/" + workFile)
	if err != nil {
		return err
	}
	var w work
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	if err := loadModules(); err != nil {
		return err
	}
	if w.Disk {
		if err := toDisk(); err != nil {
			return err
		}
	}
	if err := mountAll(w.Disk); err != nil {
		return err
	}
	if err := exec.Command("/bin/busybox", "--install", "-s", "/bin").Run(); err != nil {
		return fmt.Errorf("install the commands: %w", err)
	}
	if err := exec.Command("/bin/busybox", "ip", "link", "set", "lo", "up").Run(); err != nil {
		return fmt.Errorf("bring the loopback device up: %w", err)
	}
	for _, j := range w.Jobs {
		res := Result{Name: j.Name, Exit: run(j)}
		line, err := json.Marshal(res)
		if err != nil {
			return err
		}
		fmt.Printf("\n%s%s\n", ended, line)
	}
	return nil
}

func run(j Job) int {
	c := exec.Command(j.Program, j.Args...)
	c.Env = append([]string{"PATH=/bin:/sbin:/usr/sbin", "HOME=/root", "TMPDIR=/tmp"}, j.Env...)
	c.Stdout, c.Stderr = os.Stdout, os.Stdout
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Println(err)
		return 127
	}
	return c.ProcessState.ExitCode()
}

// toDisk makes the disk the root. The programs of jobs stay where they are.
func toDisk() error {
	if err := unix.Mount("devtmpfs", "/dev", "devtmpfs", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mount /dev: %w", err)
	}
	const dir, disk = "/disk", "/dev/vda"
	if err := unix.Mount(disk, dir, "ext4", unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount the disk: %w", err)
	}
	if err := unix.Mount("/jobs", dir+"/jobs", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind the jobs: %w", err)
	}
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the disk to the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// mountAll mounts what is no disk's. With a disk, temporary files lie there.
func mountAll(disk bool) error {
	for _, m := range []struct{ kind, dir string }{
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"devtmpfs", "/dev"},
		{"tmpfs", "/tmp"},
		{"tmpfs", "/run"},
		{"cgroup2", "/sys/fs/cgroup"},
		{"securityfs", "/sys/kernel/security"},
	} {
		if disk && m.dir == "/tmp" {
			continue
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	return os.Chmod("/tmp", 0o1777)
}

// loadModules loads what was packed, in the order of the names.
func loadModules() error {
	files, err := filepath.Glob(filepath.Join("/", modulesDir, "*"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := loadModule(file); err != nil {
			return fmt.Errorf("load %s: %w", file, err)
		}
	}
	return nil
}

func loadModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if !strings.HasSuffix(file, ".ko") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	return unix.FinitModule(int(f.Fd()), "", flags)
}
