package probe

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

// diskPool tells how disks will be copied: by reflink right in the home, or in
// a pool file with XFS inside.
func diskPool(_ context.Context, o Options) engine.Check {
	dir := existing(o.Home)
	if reflinks(dir) {
		return good(dir + " can clone files, so disks live there")
	}
	if !fileSystem("xfs") {
		return bad("neither can "+dir+" clone files nor is XFS known to the kernel: copies of disks take time", "modprobe xfs, or keep --home on XFS or btrfs")
	}
	if _, err := exec.LookPath("mkfs.xfs"); err != nil {
		return bad("mkfs.xfs is missing", "apt-get install xfsprogs")
	}
	return good("a pool file with XFS, since " + dir + " cannot clone files")
}

func reflinks(dir string) bool {
	a, err := os.CreateTemp(dir, ".atoll-probe-")
	if err != nil {
		return false
	}
	defer a.Close()
	os.Remove(a.Name())
	b, err := os.CreateTemp(dir, ".atoll-probe-")
	if err != nil {
		return false
	}
	defer b.Close()
	os.Remove(b.Name())
	if _, err := a.Write(make([]byte, 4096)); err != nil {
		return false
	}
	return unix.IoctlFileClone(int(b.Fd()), int(a.Fd())) == nil
}

// fileSystem tells whether the kernel knows name, or has a module for it.
func fileSystem(name string) bool {
	b, _ := os.ReadFile("/proc/filesystems")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == name {
			return true
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	mods, _ := os.ReadFile("/lib/modules/" + unix.ByteSliceToString(u.Release[:]) + "/modules.dep")
	return strings.Contains(string(mods), "/"+name+".ko")
}

func loopDevices(context.Context, Options) engine.Check {
	fd, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return bad("the kernel has none", "modprobe loop")
	}
	if err != nil {
		return bad("/dev/loop-control: "+err.Error(), "give the server access to it")
	}
	defer unix.Close(fd)
	if _, err := unix.IoctlRetInt(fd, unix.LOOP_CTL_GET_FREE); err != nil {
		return bad("none is free: "+err.Error(), "detach unused ones with losetup -d")
	}
	return good("available")
}
