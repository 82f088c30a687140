package storage

import (
	"context"
	"fmt"
	"os"
	"time"

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

// Room tells how much of the pool is free, which is never more than the host's
// disk under a pool file has. New disks are refused before it reaches zero.
func (p *Pool) Room(ctx context.Context) (free, total int64, err error) {
	free, total, err = space(p.dir)
	if err != nil {
		return 0, 0, err
	}
	under, _, err := space(p.home)
	return min(free, under), total, err
}

// checkRoom refuses new disks when the pool, or the host's disk under the pool
// file, runs low. Disks that exist go on.
func (p *Pool) checkRoom() error {
	// XFS frees the space of deleted files a moment later.
	const attempts, pause = 10, 20 * time.Millisecond
	err := p.roomNow()
	for i := 0; i < attempts && engine.KindOf(err) == engine.KindExhausted; i++ {
		time.Sleep(pause)
		err = p.roomNow()
	}
	return err
}

func (p *Pool) roomNow() error {
	free, total, err := space(p.dir)
	if err != nil {
		return err
	}
	if low := lowWater(total); free < low {
		return nearlyFull("the storage pool", free, low).
			WithHint("delete sandboxes or snapshots, or restart the server with a larger pool size")
	}
	if free, total, err = space(p.home); err != nil {
		return err
	}
	// A large host disk needs no more slack than 1 GiB.
	if low := lowWater(min(total, 20*gib)); free < low {
		return nearlyFull("the disk of the server's home directory", free, low).
			WithHint("free space on that disk")
	}
	return nil
}

func nearlyFull(what string, free, low int64) *engine.Error {
	return engine.Errorf(engine.KindExhausted, "%s is nearly full: %d MiB are free, new disks need %d", what, free/mib, low/mib)
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

// Pending tells how much of a disk its user has written that has not reached
// the pool yet, because it waits in memory. It will take that much of the
// pool's room, even when its writer is gone.
func (p *Pool) Pending(ctx context.Context, id string) (int64, error) {
	used, _, err := p.Usage(ctx, id)
	if err != nil {
		return 0, err
	}
	var st unix.Stat_t
	if err := unix.Stat(p.image(id), &st); err != nil {
		return 0, fmt.Errorf("stat disk %s: %w", id, err)
	}
	return max(0, used-st.Blocks*512), nil
}
