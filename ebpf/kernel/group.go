package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// version1 marks ids of that hierarchy, which are unique only within it.
const version1 = 1 << 63

// maxDepths is at how many depths below the root groups may lie, as in owner.h.
const maxDepths = 4

// Group is a control group as owner.h knows it.
type Group struct {
	Dir   string // without symbolic links
	ID    uint64 // key of the map "groups"
	depth uint32
	v1    bool
}

// FindGroup reads what a directory is: one of the version 2 tree, or of the pids
// controller of version 1, below the root. The id of a group is its inode.
func FindGroup(dir string) (Group, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Group{}, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return Group{}, err
	}
	var fsys unix.Statfs_t
	if err := unix.Statfs(dir, &fsys); err != nil {
		return Group{}, fmt.Errorf("look at control group %s: %w", dir, err)
	}
	g := Group{Dir: dir, v1: fsys.Type == unix.CGROUP_SUPER_MAGIC}
	if !g.v1 && fsys.Type != unix.CGROUP2_SUPER_MAGIC {
		return Group{}, fmt.Errorf("%s is not a control group", dir)
	}
	if _, err := os.Stat(filepath.Join(dir, "pids.current")); g.v1 && err != nil {
		return Group{}, fmt.Errorf("%s is not a control group of the pids controller: %w", dir, err)
	}
	var st, up unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return Group{}, err
	}
	g.ID = st.Ino
	for ; ; g.depth++ {
		dir = filepath.Dir(dir)
		if err := unix.Stat(dir, &up); err != nil {
			return Group{}, err
		}
		if up.Dev != st.Dev {
			break
		}
		st.Ino = up.Ino
	}
	if st.Ino != 1 || g.depth == 0 {
		return Group{}, fmt.Errorf("control group %s is a root, or does not lie below the root of its hierarchy", g.Dir)
	}
	if g.v1 {
		g.ID |= version1
	}
	return g, nil
}

// WatchDepth makes programs that use owner.h look for groups at the depth of
// this one. depths is their map of that name. Calls must not run side by side.
func WatchDepth(depths *ebpf.Map, g Group) error {
	version := uint32(1)
	if g.v1 {
		version = 0
	}
	var known [maxDepths]uint32
	if err := depths.Lookup(version, &known); err != nil {
		return err
	}
	if slices.Contains(known[:], g.depth) {
		return nil
	}
	free := slices.Index(known[:], 0)
	if free < 0 {
		return fmt.Errorf("control groups already lie at %d different depths", maxDepths)
	}
	known[free] = g.depth
	return depths.Put(version, known)
}
