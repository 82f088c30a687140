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
)

// The machine's own files.
const (
	jobsFile   = "jobs.json"
	modulesDir = "modules"
)

// pack writes the file system that the machine starts with.
func (m Machine) pack(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	a := archive{w: bufio.NewWriter(f)}
	for _, dir := range []string{"bin", "dev", "etc", "proc", "sys", "tmp", "run", "jobs", modulesDir} {
		a.add(dir, fs.ModeDir|0o755, nil)
	}
	a.add("etc/passwd", 0o644, []byte("root:x:0:0::/:/bin/sh\n"))
	a.copy("init", m.Init)
	a.copy("bin/busybox", cmp.Or(m.Busybox, "/bin/busybox"))
	for _, p := range m.Kernel.Modules {
		a.copy(path.Join(modulesDir, filepath.Base(p)), p)
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
	list, err := json.Marshal(jobs)
	if err != nil {
		return err
	}
	a.add(jobsFile, 0o644, list)
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
