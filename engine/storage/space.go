package storage

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

// space asks the file system at dir for its free and total bytes.
func space(dir string) (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("statfs %s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}

// lowWater is how much must stay free for the disks that exist, since all are
// sparse and may still fill up: 5 % and at least 1 GiB, of small file systems
// at least a quarter.
func lowWater(total int64) int64 { return max(total/20, min(gib, total/4)) }

// checkRoom refuses new disks when the pool, or the host's disk under the pool
// file, runs low. Disks that exist go on.
func (p *Pool) checkRoom() error {
	for _, place := range []struct{ dir, name, fix string }{
		{p.dir, "the storage pool", "delete sandboxes or snapshots, or restart the server with a larger pool size"},
		{p.home, "the host's disk", "free space on the disk of the server's home directory"},
	} {
		free, total, err := space(place.dir)
		if err != nil {
			return err
		}
		if place.dir == p.home {
			total = min(total, 20*gib) // a large host disk needs no more than 1 GiB of slack
		}
		if low := lowWater(total); free < low {
			return engine.Errorf(engine.KindExhausted, "%s is nearly full: %d MiB are free, new disks need %d", place.name, free/mib, low/mib).
				WithHint("%s", place.fix)
		}
	}
	return nil
}

// Usage tells how much of a disk is used and how large it is for its user, as
// df inside the sandbox does. It walks nothing.
func (p *Pool) Usage(ctx context.Context, id string) (used, total int64, err error) {
	if err := checkID("disk", id); err != nil {
		return 0, 0, err
	}
	mounted, err := isMounted(p.mnt(id))
	if err != nil {
		return 0, 0, err
	}
	if mounted {
		free, total, err := space(p.mnt(id))
		return total - free, total, err
	}
	s, err := readSuper(p.image(id))
	if os.IsNotExist(err) {
		return 0, 0, noDisk(id, err)
	}
	return s.used, s.total, err
}
