package vmtest

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// Disk is the root file system of machines in which more than static programs
// run. Machines do not change it, and several may share it.
type Disk struct {
	MiB      int               // its size; what is empty takes no room
	Programs []string          // of this host, by name, at the same place and with the libraries they need
	Files    map[string]string // more programs: paths here, by their path in the machine
	Kernels  []Kernel          // whose modules the machine finds when it wants them
}

// Write makes the image.
func (d Disk) Write(ctx context.Context, file string) error {
	dir, err := os.MkdirTemp("", "vmtest-disk-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"bin", "dev", "etc", "jobs", "proc", "root", "run", "sbin", "sys", "tmp", "var/tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	s := stage(dir)
	if err := d.fill(s); err != nil {
		return fmt.Errorf("gather the files of a disk: %w", err)
	}
	out, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-d", dir, "-O", "^has_journal", "-m", "0", file, fmt.Sprintf("%dM", d.MiB)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make a disk: %w\n%s", err, out)
	}
	return nil
}

func (d Disk) fill(s stage) error {
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/sh\n", "etc/group": "root:x:0:\n", "etc/hosts": "127.0.0.1 localhost\n", "etc/resolv.conf": "",
	} {
		if err := os.WriteFile(s.path(name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := s.copy("/bin/busybox", "/bin/busybox"); err != nil {
		return err
	}
	// The kernel starts this when it wants a module.
	if err := os.Symlink("/bin/busybox", s.path("sbin/modprobe")); err != nil {
		return err
	}
	for _, name := range d.Programs {
		path, err := exec.LookPath(name)
		if err == nil {
			err = s.program(path)
		}
		if err != nil {
			return err
		}
	}
	for to, from := range d.Files {
		if err := s.copy(to, from); err != nil {
			return err
		}
	}
	for _, k := range d.Kernels {
		if err := os.CopyFS(s.path("lib/modules/"+filepath.Base(k.Modules)), os.DirFS(k.Modules)); err != nil {
			return err
		}
	}
	return nil
}

// stage is the directory that becomes the disk.
type stage string

func (s stage) path(name string) string { return filepath.Join(string(s), name) }

func (s stage) copy(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := os.MkdirAll(filepath.Dir(s.path(to)), 0o755); err != nil {
		return err
	}
	dst, err := os.OpenFile(s.path(to), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil // two programs need it
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// program copies a program or a library, and what it needs to be loaded.
func (s stage) program(path string) error {
	if _, err := os.Stat(s.path(path)); err == nil {
		return nil
	}
	if err := s.copy(path, path); err != nil {
		return err
	}
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	if section := f.Section(".interp"); section != nil {
		name, err := section.Data()
		if err != nil {
			return err
		}
		loader := string(name[:len(name)-1])
		if err := s.copy(loader, loader); err != nil {
			return err
		}
	}
	libraries, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, name := range libraries {
		lib, err := library(name)
		if err != nil {
			return err
		}
		if err := s.program(lib); err != nil {
			return err
		}
	}
	return nil
}

// library is where Debian keeps it.
func library(name string) (string, error) {
	for _, dir := range []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("library %s: %w", name, fs.ErrNotExist)
}
