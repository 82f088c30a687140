package activity

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// mountInfo is a line of mountinfo.
type mountInfo struct {
	device, root, point, kind string
	readOnly                  bool
}

func readMounts(path string) ([]mountInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []mountInfo
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		left, right, _ := strings.Cut(lines.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) < 6 || len(r) < 3 {
			continue
		}
		out = append(out, mountInfo{
			device: l[2], root: l[3], point: unescape.Replace(l[4]), kind: r[0],
			readOnly: strings.HasPrefix(l[5], "ro") || strings.HasPrefix(r[2], "ro"),
		})
	}
	return out, lines.Err()
}

// unescape undoes what mountinfo does to blanks.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// memoryMounts lists the file systems in memory that a sandbox can write to and
// nobody else has, by where it sees them. root is /proc/PID/root; of another
// directory nothing is known.
func memoryMounts(root string) ([]mountInfo, error) {
	dir := filepath.Dir(filepath.Clean(root))
	if filepath.Dir(dir) != "/proc" || filepath.Base(root) != "root" {
		return nil, nil
	}
	ours, err := readMounts("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	shared := map[string]bool{}
	for _, m := range ours {
		shared[m.device] = true
	}
	theirs, err := readMounts(filepath.Join(dir, "mountinfo"))
	if err != nil {
		return nil, err
	}
	var out []mountInfo
	for _, m := range theirs {
		if m.kind == "tmpfs" && m.root == "/" && !m.readOnly && !shared[m.device] {
			shared[m.device] = true
			out = append(out, m)
		}
	}
	return out, nil
}

// openIn opens a directory as one sees it whose root is root.
func openIn(root, path string) (*os.File, error) {
	base, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", root, err)
	}
	defer unix.Close(base)
	fd, err := unix.Openat2(base, strings.TrimPrefix(path, "/"), &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, fmt.Errorf("open %s in %s: %w", path, root, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func (m mountInfo) is(f *os.File) bool {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)) == m.device
}

// gonePath takes a path that vanished for success.
func gonePath(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}
