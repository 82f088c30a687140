package storage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine"
)

const (
	mib = 1 << 20
	gib = 1 << 30

	// minDiskSize leaves room for ext4's own tables and journal.
	minDiskSize = 64 * mib
)

// cloneImage makes dst share src's blocks, or copies them where the file
// system has no reflinks. dst must not exist and is not synced.
func cloneImage(ctx context.Context, dst, src string, reflink bool) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if reflink {
		err = unix.IoctlFileClone(int(out.Fd()), int(in.Fd()))
	} else {
		err = copySparse(ctx, out, in)
	}
	if err = errors.Join(err, out.Close()); err != nil {
		_ = os.Remove(dst)
		return fmt.Errorf("clone %s: %w", filepath.Base(src), err)
	}
	return nil
}

// copySparse copies the data of in and keeps its holes.
func copySparse(ctx context.Context, out, in *os.File) error {
	info, err := in.Stat()
	if err != nil {
		return err
	}
	for end := int64(0); ; {
		start, err := unix.Seek(int(in.Fd()), end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // only a hole is left
			// Unlike a reflink, the data is not ordered before the rename.
			return errors.Join(out.Truncate(info.Size()), out.Sync())
		}
		if err != nil {
			return err
		}
		if end, err = unix.Seek(int(in.Fd()), start, unix.SEEK_HOLE); err != nil {
			return err
		}
		if err := copyRange(ctx, out, in, start, end); err != nil {
			return err
		}
	}
}

func copyRange(ctx context.Context, out, in *os.File, start, end int64) error {
	const chunk = 4 * mib
	for at := start; at < end; at += chunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(chunk, end-at)
		if _, err := io.Copy(io.NewOffsetWriter(out, at), io.NewSectionReader(in, at, n)); err != nil {
			return err
		}
	}
	return nil
}

// formatImage makes an empty file system of size bytes in the new file path.
// The journal is small, because every disk pays for the part it has written;
// no block is kept for root, so that df tells the whole truth.
func formatImage(ctx context.Context, path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return fmt.Errorf("size %s: %w", filepath.Base(path), err)
	}
	journal := 4
	if size >= gib {
		journal = 16
	}
	return runTool(ctx, "e2fsprogs", []int{0}, "mkfs.ext4", "-q", "-F", "-b", strconv.Itoa(blockSize), "-m", "0",
		"-J", "size="+strconv.Itoa(journal), "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", path)
}

// checkFS replays the journal of an unused image and repairs what is safe to.
func checkFS(ctx context.Context, image string) error {
	// e2fsck answers 1 when it repaired something, which is fine.
	return runTool(ctx, "e2fsprogs", []int{0, 1}, "e2fsck", "-p", "-f", image)
}

// growFS makes the unmounted file system in image as large as its file.
func growFS(ctx context.Context, image string) error {
	if err := checkFS(ctx, image); err != nil {
		return err
	}
	return runTool(ctx, "e2fsprogs", []int{0}, "resize2fs", image)
}

// runTool runs a program of the named Debian package and accepts the given
// exit codes.
func runTool(ctx context.Context, pkg string, okay []int, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return engine.Errorf(engine.KindUnsupported, "%s is not installed on the runner", name).
			WithHint("install the package %s", pkg).Wrap(err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", name, ctx.Err())
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		for _, code := range okay {
			if exit.ExitCode() == code {
				return nil
			}
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// super is what we read of an ext4 superblock. The kernel brings it up to date
// when the file system is synced by a freeze or an unmount.
type super struct {
	total, used int64 // bytes; total excludes ext4's own tables
	faulty      bool  // the kernel met an error and wants a check
}

// readSuper reads the superblock of an image that nobody writes at the moment.
func readSuper(image string) (super, error) {
	const (
		offset, length = 1024, 1024
		magicAt, magic = 0x38, 0xef53
		stateAt, fault = 0x3a, 2
	)
	f, err := os.Open(image)
	if err != nil {
		return super{}, err
	}
	defer f.Close()
	b := make([]byte, length)
	if _, err := f.ReadAt(b, offset); err != nil {
		return super{}, fmt.Errorf("read superblock of %s: %w", filepath.Base(image), err)
	}
	if binary.LittleEndian.Uint16(b[magicAt:]) != magic {
		return super{}, fmt.Errorf("%s holds no ext4 file system", filepath.Base(image))
	}
	field := func(at int) int64 { return int64(binary.LittleEndian.Uint32(b[at:])) }
	var (
		blocks   = field(0x04) | field(0x150)<<32
		free     = field(0x0c) | field(0x158)<<32
		overhead = field(0x248)
		unit     = int64(1024) << field(0x18)
	)
	return super{
		total:  (blocks - overhead) * unit,
		used:   (blocks - overhead - free) * unit,
		faulty: binary.LittleEndian.Uint16(b[stateAt:])&fault != 0,
	}, nil
}

// syncPath flushes one file or directory to stable storage.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// publish moves a finished file to its name so that either all or nothing of
// it survives a power loss.
func publish(from, to string) error {
	if err := syncPath(from); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncPath(filepath.Dir(to))
}
