package vmtest

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// The machine's own files.
const (
	workFile   = "work.json"
	modulesDir = "modules"
)

// work is what the machine is told.
type work struct {
	Disk bool // its root is the first disk
	Jobs []Job
}

// modules are the files to load, in an order in which each finds what it needs.
// What the kernel has built in is left out.
func (m Machine) modules() ([]string, error) {
	f, err := os.Open(filepath.Join(m.Kernel.Modules, "modules.dep"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	files, needs := map[string]string{}, map[string][]string{}
	for in := bufio.NewScanner(f); in.Scan(); {
		file, list, _ := strings.Cut(in.Text(), ":")
		files[moduleName(file)], needs[file] = file, strings.Fields(list)
	}
	var paths []string
	done := map[string]bool{"": true}
	var add func(file string)
	add = func(file string) {
		if done[file] {
			return
		}
		done[file] = true
		for _, other := range needs[file] {
			add(other)
		}
		paths = append(paths, filepath.Join(m.Kernel.Modules, file))
	}
	wanted := m.Modules
	if m.Disk != "" {
		wanted = append([]string{"virtio_pci", "virtio_blk"}, wanted...)
	}
	for _, name := range wanted {
		add(files[name])
	}
	return paths, nil
}

func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return name
}

// pack writes the file system that the machine starts with.
func (m Machine) pack(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	a := archive{w: bufio.NewWriter(f)}
	for _, dir := range []string{"bin", "dev", "etc", "proc", "sys", "tmp", "run", "jobs", "disk", modulesDir} {
		a.add(dir, fs.ModeDir|0o755, nil)
	}
	a.add("etc/passwd", 0o644, []byte("root:x:0:0::/:/bin/sh\n"))
	a.copy("init", m.Init)
	a.copy("bin/busybox", cmp.Or(m.Busybox, "/bin/busybox"))
	modules, err := m.modules()
	if err != nil {
		return err
	}
	for i, p := range modules { // they are loaded in the order of their names
		a.copy(path.Join(modulesDir, fmt.Sprintf("%03d-%s", i, filepath.Base(p))), p)
	}
	jobs := make([]Job, len(m.Jobs))
	for i, j := range m.Jobs {
		jobs[i] = j
		jobs[i].Program = "/jobs/" + strconv.Itoa(i)
		a.copy(jobs[i].Program[1:], j.Program)
	}
	for to, from := range m.Files {
		a.add(path.Dir(to)[1:], fs.ModeDir|0o755, nil)
		a.copy(to[1:], from)
	}
	list, err := json.Marshal(work{Disk: m.Disk != "", Jobs: jobs})
	if err != nil {
		return err
	}
	a.add(workFile, 0o644, list)
	a.add("TRAILER!!!", 0, nil)
	if a.err != nil {
		return a.err
	}
	return a.w.Flush()
}

// archive writes files in the format that the kernel unpacks at its start,
// "newc" of cpio. The first error is kept and ends it.
type archive struct {
	w     *bufio.Writer
	inode int
	err   error
}

func (a *archive) add(name string, mode fs.FileMode, content []byte) {
	if a.err != nil {
		return
	}
	kind := 0o100000
	if mode.IsDir() {
		kind = 0o040000
	}
	a.inode++
	_, err := fmt.Fprintf(a.w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.inode, kind|int(mode.Perm()), 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
	if err == nil {
		err = a.pad(110 + len(name) + 1)
	}
	if err == nil {
		_, err = a.w.Write(content)
	}
	if err == nil {
		err = a.pad(len(content))
	}
	a.err = err
}

// pad fills up to the next multiple of four.
func (a *archive) pad(n int) error {
	_, err := io.WriteString(a.w, "\x00\x00\x00"[:-n&3])
	return err
}

func (a *archive) copy(name, from string) {
	if a.err != nil {
		return
	}
	content, err := os.ReadFile(from)
	if err != nil {
		a.err = err
		return
	}
	a.add(name, 0o755, content)
}
