package files

import (
	"bytes"
	"io"
	"io/fs"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// Download is a file that is open for reading.
type Download struct {
	io.ReadSeekCloser
	Name    string
	Size    int64
	ModTime time.Time
}

// Disk is the file itself, nil when the content is not simply that.
func (d *Download) Disk() *os.File {
	f, _ := d.ReadSeekCloser.(*os.File)
	return f
}

// maxVirtual bounds files whose size is only known by reading, as in /proc.
const maxVirtual = 8 << 20

// sysfsSize is the largest size that the files of /sys and control groups,
// which are mostly shorter, tell of themselves.
const sysfsSize = 4096

// Open opens a regular file.
func (f *FS) Open(path string) (*Download, error) {
	p, err := f.path("path", path)
	if err != nil {
		return nil, err
	}
	// Without O_NONBLOCK a FIFO would block before its kind is known.
	file, err := os.OpenFile(p, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fail(err, path)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = wire.Errorf(http.StatusBadRequest, wire.CodeInvalidPath, "%s: it is not a regular file", path)
		if info.IsDir() {
			err = wire.Errorf(http.StatusBadRequest, wire.CodeInvalidPath, "%s: it is a directory; download its files one by one or pack it first", path)
		}
	}
	if err != nil {
		file.Close()
		return nil, fail(err, path)
	}
	d := &Download{ReadSeekCloser: file, Name: info.Name(), Size: info.Size(), ModTime: info.ModTime()}
	if info.Size() <= sysfsSize {
		return d.virtual(path, info)
	}
	return d, nil
}

// virtual reads a file whose size may be a lie: those of /proc say that they
// are empty and those of /sys that they have a page.
func (d *Download) virtual(path string, info fs.FileInfo) (*Download, error) {
	b, err := io.ReadAll(io.LimitReader(d, maxVirtual))
	d.Close()
	if err != nil {
		return nil, wire.Errorf(http.StatusBadRequest, wire.CodeFileReadFailed, "%s: it cannot be read: %v", path, err)
	}
	return &Download{ReadSeekCloser: nopCloser{bytes.NewReader(b)}, Name: info.Name(), Size: int64(len(b)), ModTime: info.ModTime()}, nil
}

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }
