package storage

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A hostile root once filled the host's /run through the directory of its
// toolbox's socket and through /etc/hosts.
func TestShareIsSmall(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "share")
	for range 2 { // the second finds it mounted
		if err := MountShare(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })

	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Flags&unix.ST_NOEXEC != 0 {
		t.Errorf("got flags %x, %v; want none that a sandbox's mounts lack", st.Flags, err)
	}
	err := os.WriteFile(dir+"/fill", make([]byte, 4<<20), 0o600)
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("writing 4 MiB: got %v, want %v", err, unix.ENOSPC)
	}
	made := 0
	for ; made < 1000 && unix.Mknod(filepath.Join(dir, "f"+string(rune('0'+made))), unix.S_IFREG|0o600, 0) == nil; made++ {
	}
	if made == 1000 {
		t.Errorf("made %d files, want a limit", made)
	}

	for range 2 {
		if err := UnmountShare(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("after unmounting: got %d files, %v; want none", len(left), err)
	}
}
