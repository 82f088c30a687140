package activity

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// touch makes and removes so many files: two events each.
func touch(args []string) {
	args = enter(args)
	n, err := strconv.Atoi(args[1])
	check(err)
	path := filepath.Join(args[0], "file")
	for range n {
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
		check(err)
		check(unix.Close(fd))
		check(unix.Unlink(path))
	}
}

// mount mounts something for a test.
func mount(t testing.TB, kind, at, options string) {
	t.Helper()
	if err := unix.Mount("activity-test", at, kind, 0, options); err != nil {
		t.Fatalf("mount %s: %v", kind, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Errorf("unmount %s: %v", at, err)
		}
	})
}

// overlay makes a root as a sandbox has it: an image with files, and a disk.
func overlay(t testing.TB) (root, upper string) {
	t.Helper()
	dir := real(t, t.TempDir())
	mount(t, "tmpfs", dir, "mode=755")
	for _, d := range []string{"image/etc/old/deep", "image/empty", "disk", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"etc/passwd", "etc/gone", "etc/renamed", "etc/old/deep/file", "etc/read", "etc/mode"} {
		if err := os.WriteFile(filepath.Join(dir, "image", f), []byte("image"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	disk := filepath.Join(dir, "disk")
	mount(t, "tmpfs", disk, "mode=755")
	for _, d := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(disk, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root, upper = filepath.Join(dir, "root"), filepath.Join(disk, "upper")
	mount(t, "overlay", root, "lowerdir="+dir+"/image,upperdir="+upper+",workdir="+disk+"/work,index=off,redirect_dir=on,xino=auto,metacopy=off")
	return root, upper
}

// watched is a sandbox with files.
func watched(t *testing.T) (b *sandboxed, root string) {
	t.Helper()
	b = sandbox(t, "")
	root, upper := overlay(t)
	if err := b.r.Watch(b.number, root, upper); err != nil {
		t.Fatal(err)
	}
	// Before the file systems are unmounted.
	t.Cleanup(func() {
		if err := b.r.Remove(b.number); err != nil {
			t.Error(err)
		}
	})
	return b, root
}

// told is what a change of files became.
type told struct {
	kind     Kind
	path, to string
}

var fileKinds = []Kind{KindOpen, KindCreate, KindUnlink, KindRename, KindMkdir, KindRmdir, KindLink, KindSymlink, KindTruncate}

func allTold(events []Event) []told {
	var out []told
	for _, e := range only(events, fileKinds...) {
		out = append(out, told{e.Kind, e.Path, e.To})
	}
	return out
}

func TestFilesOfAnOverlay(t *testing.T) {
	for _, test := range []struct {
		script string
		want   []told
	}{
		{"echo a >new", []told{{KindCreate, "/new", ""}}},
		{"mkdir -p a/b && echo >a/b/c", []told{{KindMkdir, "/a", ""}, {KindMkdir, "/a/b", ""}, {KindCreate, "/a/b/c", ""}}},
		{"mkdir -p a/b && echo >a/b/c && rm -r a", []told{
			{KindMkdir, "/a", ""},
			{KindMkdir, "/a/b", ""},
			{KindCreate, "/a/b/c", ""},
			{KindUnlink, "/a/b/c", ""},
			{KindRmdir, "/a/b", ""},
			{KindRmdir, "/a", ""},
		}},
		{"cat etc/read >/dev/null", nil},
		{"echo a >>etc/passwd", []told{{KindOpen, "/etc/passwd", ""}}},
		{"echo a >etc/passwd && echo b >etc/passwd", []told{{KindOpen, "/etc/passwd", ""}}},
		{"echo a >>etc/passwd && rm etc/passwd", []told{{KindOpen, "/etc/passwd", ""}, {KindUnlink, "/etc/passwd", ""}}},
		{"echo a >new && echo b >>new", []told{{KindCreate, "/new", ""}}},
		{"rm etc/gone", []told{{KindUnlink, "/etc/gone", ""}}},
		{"rm etc/gone && echo x >etc/gone && rm etc/gone", []told{{KindUnlink, "/etc/gone", ""}, {KindCreate, "/etc/gone", ""}, {KindUnlink, "/etc/gone", ""}}},
		{"mv etc/renamed etc/better", []told{{KindOpen, "/etc/renamed", ""}, {KindRename, "/etc/renamed", "/etc/better"}}},
		{"echo >new && mv new etc/other", []told{{KindCreate, "/new", ""}, {KindRename, "/new", "/etc/other"}}},
		{"ln etc/read link", []told{{KindOpen, "/etc/read", ""}, {KindCreate, "/link", ""}}},
		{"ln -s etc/read soft", []told{{KindSymlink, "etc/read", "/soft"}}},
		{"rm -r etc/old", []told{{KindUnlink, "/etc/old/deep/file", ""}, {KindRmdir, "/etc/old/deep", ""}, {KindRmdir, "/etc/old", ""}}},
		{"rm -r etc/old && mkdir etc/old", []told{
			{KindUnlink, "/etc/old/deep/file", ""}, {KindRmdir, "/etc/old/deep", ""}, {KindRmdir, "/etc/old", ""}, {KindMkdir, "/etc/old", ""},
		}},
		{"mv etc conf && echo a >>conf/passwd", []told{{KindRename, "/etc", "/conf"}, {KindOpen, "/conf/passwd", ""}}},
		{"mkfifo pipe && rm pipe", []told{{KindCreate, "/pipe", ""}, {KindUnlink, "/pipe", ""}}},
		{"chmod 600 etc/mode", []told{{KindOpen, "/etc/mode", ""}}},
	} {
		t.Run(test.script, func(t *testing.T) {
			b, root := watched(t)
			b.run("/bin/sh", "-c", "cd \"$0\" && "+test.script, root)
			events := b.all()
			got := allTold(events)
			if !slices.Equal(got, test.want) {
				t.Errorf("got  %v\nwant %v", got, test.want)
			}
			started := map[Process]bool{}
			for _, e := range events {
				if e.Kind == KindExec || e.Kind == KindExit {
					started[key(e.Process)] = true
				}
			}
			for _, e := range only(events, fileKinds...) {
				if !started[key(e.Process)] || e.Process.Command == "" || e.Cut {
					t.Errorf("by an unknown process: %+v", e)
				}
			}
		})
	}
}

// key is what is unique of a process.
func key(p Process) Process { return Process{ID: p.ID, Start: p.Start} }

// TestFilesOfALivingProcess have the same process as its end.
func TestFilesOfALivingProcess(t *testing.T) {
	b, root := watched(t)
	c := b.command("/bin/sh", "-c", `: >"$0/made"; read line`, root)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	wait(t, func() bool { return len(only(b.of(b.number), KindCreate)) == 1 })
	_ = in.Close()
	_ = c.Wait()
	all := b.all()
	made, exit := only(all, KindCreate)[0], only(b.all(), KindExit)
	if key(made.Process) != key(exit[len(exit)-1].Process) || made.Process.Parent != os.Getpid() {
		t.Errorf("made by %+v, which ended as %+v", made.Process, exit)
	}
}

// files opens one file by openat2 and changes it by its memory alone, and reads
// another.
func files(args []string) {
	dir := args[0]
	fd, err := unix.Openat2(unix.AT_FDCWD, dir+"/etc/passwd", &unix.OpenHow{Flags: unix.O_RDWR})
	check(err)
	m, err := unix.Mmap(fd, 0, 5, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	check(err)
	check(unix.Close(fd))
	m[0] = 'I'
	check(unix.Munmap(m))
	fd, err = unix.Open(dir+"/etc/read", unix.O_RDONLY, 0)
	check(err)
	check(unix.Close(fd))
}

func TestMappedFileIsTold(t *testing.T) {
	b, root := watched(t)
	b.work("files", root)
	if got, want := allTold(b.all()), []told{{KindOpen, "/etc/passwd", ""}}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestFilesOfOthersAreNotTold(t *testing.T) {
	b, root := watched(t)
	if err := os.WriteFile(filepath.Join(root, "host"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.run("/bin/sh", "-c", `: >"$0/inside"`, root)
	if got, want := allTold(b.all()), []told{{KindCreate, "/inside", ""}}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// TestFilesInMemory are those of a mount namespace of the sandbox's own.
func TestFilesInMemory(t *testing.T) {
	b := sandbox(t, "")
	root, upper := overlay(t)
	for _, d := range []string{"bin", "lib", "lib64", "usr", "shm"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script := `for d in bin lib lib64 usr; do mount --rbind /$d "$0/$d"; done; mount -t tmpfs none "$0/shm"
		exec chroot "$0" /bin/sh -c 'echo; read line; : >/shm/made; mv /shm/made /shm/better; : >/root'`
	c := b.command("/usr/bin/unshare", "-m", "/bin/sh", "-c", script, root)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := b.r.Watch(b.number, "/proc/"+strconv.Itoa(c.Process.Pid)+"/root", upper); err != nil {
		t.Fatal(err)
	}
	_, _ = in.Write([]byte("go\n"))
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	got := allTold(b.all())
	slices.SortStableFunc(got, func(a, b told) int { return int(a.kind) - int(b.kind) })
	want := []told{{KindCreate, "/root", ""}, {KindCreate, "/shm/made", ""}, {KindRename, "/shm/made", "/shm/better"}}
	slices.SortStableFunc(want, func(a, b told) int { return int(a.kind) - int(b.kind) })
	for _, w := range want {
		if !slices.Contains(got, w) || len(got) != len(want) {
			t.Errorf("got %v, want %v", got, want)
			break
		}
	}
	if err := b.r.Remove(b.number); err != nil {
		t.Fatal(err)
	}
}

// TestFloodOfFilesIsTold does more than the budget allows.
func TestFloodOfFilesIsTold(t *testing.T) {
	r, err := Open(Options{Budget: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	s := newStream(r)
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	loud, quiet := s.sandbox(t, ""), s.sandbox(t, "")
	roots := map[*sandboxed]string{}
	for _, b := range []*sandboxed{loud, quiet} {
		root, upper := overlay(t)
		if err := r.Watch(b.number, root, upper); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Remove(b.number) })
		roots[b] = root
	}
	flood := loud.joining("touch", roots[loud], "5000")
	if err := flood.Start(); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		quiet.run("/bin/sh", "-c", `: >"$0"`, filepath.Join(roots[quiet], strconv.Itoa(i)))
	}
	if err := flood.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := allTold(quiet.all()); len(got) != 10 {
		t.Errorf("the quiet one: %v", got)
	}
	if _, lost := count(loud.all()); lost == 0 {
		t.Error("the loud one lost nothing")
	}
}

// TestFullQueueIsTold makes more changes than the kernel keeps.
func TestFullQueueIsTold(t *testing.T) {
	b, err := os.ReadFile("/proc/sys/fs/fanotify/max_queued_events")
	if err != nil {
		t.Skip("before Linux 5.13 the length of the queue is not told")
	}
	length, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || length > 1<<16 {
		t.Skipf("the queue of this host is too long to fill: %s", b)
	}
	r, err := Open(Options{})
	if err != nil {
		t.Fatal(err)
	}
	box := (&stream{r: r}).sandbox(t, "")
	root, upper := overlay(t)
	if err := r.Watch(box.number, root, upper); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	if err := box.joining("touch", root, strconv.Itoa(length+100)).Run(); err != nil {
		t.Fatal(err)
	}
	box.stream = newStream(r)
	var full, told int
	for _, e := range box.all() {
		if e.Kind == KindLost && e.Unknown {
			full++
		}
		if e.Kind == KindCreate {
			told++
		}
	}
	if full != 1 || told == 0 {
		t.Errorf("a full queue was told %d times, behind %d files", full, told)
	}
}

// FuzzParse reads what no kernel would write.
func FuzzParse(f *testing.F) {
	b := make([]byte, metadataSize+40)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	b[4] = unix.FANOTIFY_METADATA_VERSION
	binary.NativeEndian.PutUint16(b[6:], uint16(metadataSize))
	info := b[metadataSize:]
	info[0] = unix.FAN_EVENT_INFO_TYPE_DFID_NAME
	binary.NativeEndian.PutUint16(info[2:], 40)
	binary.NativeEndian.PutUint32(info[12:], 8)
	copy(info[28:], "name")
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		all, _, _ := parse(b, nil)
		for _, c := range all {
			if len(c.at.dir)+len(c.at.name)+len(c.to.dir)+len(c.to.name)+len(c.target) > len(b) {
				t.Errorf("%+v from %d bytes", c, len(b))
			}
		}
	})
}

func TestWatchRefuses(t *testing.T) {
	b, root := watched(t)
	if err := b.r.Watch(b.number, root, ""); err == nil {
		t.Error("watched twice")
	}
	if err := b.r.Watch(1<<20, root, ""); err == nil {
		t.Error("an unknown sandbox was watched")
	}
	if err := b.r.Watch(sandbox(t, "").number, "/nowhere", ""); err == nil {
		t.Error("a root that is not there was watched")
	}
	if err := b.r.Watch(sandbox(t, "").number, "/", ""); err == nil {
		t.Error("the host's own file system was watched")
	}
	if s, err := b.r.Stats(b.number); err != nil || !s.Files {
		t.Errorf("got %+v, %v", s, err)
	}
}

// wait waits for something that happens soon.
func wait(t *testing.T, happened func() bool) {
	t.Helper()
	for range 3000 {
		if happened() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it did not happen")
}
