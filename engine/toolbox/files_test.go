package toolbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

func TestUpload(t *testing.T) {
	b := open(t)
	ctx := t.Context()
	check := func(t *testing.T, path, content, stat string) {
		t.Helper()
		if got := read(t, path); got != content {
			t.Errorf("got %q, want %q", got, content)
		}
		if got := strings.TrimSpace(b.run("stat -c '%a %u %g' '" + path + "'")); got != stat {
			t.Errorf("%s: got %s, want %s", path, got, stat)
		}
	}
	t.Run("new file with parents", func(t *testing.T) {
		if err := b.Upload(ctx, "a/b/f.txt", strings.NewReader("hi")); err != nil {
			t.Fatal(err)
		}
		check(t, b.dir+"/a/b/f.txt", "hi", "644 41234 41235")
		if got := b.run("stat -c '%a %u' a a/b"); got != "755 41234\n755 41234\n" {
			t.Errorf("parents: got %q", got)
		}
	})
	t.Run("existing file keeps mode and owner", func(t *testing.T) {
		write(t, b.dir+"/run.sh", "old")
		if err := os.Chmod(b.dir+"/run.sh", 0o750); err != nil {
			t.Fatal(err)
		}
		if err := b.Upload(ctx, "run.sh", strings.NewReader("new")); err != nil {
			t.Fatal(err)
		}
		if got := b.run("stat -c '%a %u' run.sh"); got != "750 0\n" || read(t, b.dir+"/run.sh") != "new" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("symbolic links", func(t *testing.T) {
		b.run("mkdir -p real; echo old >real/target; ln -s real/target link; ln -s real/missing dangling; ln -s ../chain2 real/c; ln -s real/c chain1; ln -s loop loop")
		for name, target := range map[string]string{"link": "real/target", "dangling": "real/missing", "chain1": "chain2"} {
			if err := b.Upload(ctx, name, strings.NewReader(name)); err != nil {
				t.Fatal(name, err)
			}
			if got := read(t, b.dir+"/"+target); got != name {
				t.Errorf("%s: got %q", name, got)
			}
			if i, err := os.Lstat(b.dir + "/" + name); err != nil || i.Mode()&os.ModeSymlink == 0 {
				t.Errorf("%s is no link any more: %v", name, err)
			}
		}
		wantError(t, b.Upload(ctx, "loop", strings.NewReader("")), 400, wire.CodeInvalidPath, "too many symbolic links")
	})
	t.Run("refused", func(t *testing.T) {
		b.run("mkdir -p dir; mkfifo fifo; echo x >plain")
		for path, want := range map[string]string{"dir": "is a directory", "fifo": "not a regular file", "plain/x": "not a directory", "x/": "ends with a slash", "a\x00b": "NUL byte", "": "path: it is missing", "/dev/null": "not a regular file", strings.Repeat("n", 300): "too long"} {
			var e *wire.Error
			err := b.Upload(ctx, path, strings.NewReader("x"))
			if !errors.As(err, &e) || e.Status != 400 || !strings.Contains(e.Message, want) {
				t.Errorf("%q: got %v, want 400 %s", path, err, want)
			}
		}
		if i, err := os.Stat("/dev/null"); err != nil || i.Mode()&os.ModeDevice == 0 {
			t.Fatal("/dev/null was replaced")
		}
	})
	t.Run("broken off", func(t *testing.T) {
		conn, err := net.Dial("unix", b.tb.config.Socket)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST /files/upload-v2?path=broken HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n%s", strings.Repeat("x", 100_000))
		eventually(t, "the upload to begin", func() bool { return len(leftovers(t, b.dir)) == 1 })
		conn.Close()
		eventually(t, "the upload to be cleaned up", func() bool { return len(leftovers(t, b.dir)) == 0 })
		if _, err := os.Stat(b.dir + "/broken"); !os.IsNotExist(err) {
			t.Errorf("got %v, want no file", err)
		}
	})
	t.Run("form", func(t *testing.T) {
		var form bytes.Buffer
		w := multipart.NewWriter(&form)
		_ = w.WriteField("other", "x")
		f, _ := w.CreateFormFile("file", "upload-1")
		_, _ = f.Write([]byte("from a form"))
		w.Close()
		for _, op := range []string{"upload", "upload-v2"} {
			status, _, got := b.send("POST", "/files/"+op+"?path=form.txt", bytes.NewReader(form.Bytes()), "Content-Type", w.FormDataContentType())
			if want := `{"name":"form.txt","path":"` + b.dir + `/form.txt","type":"file"}`; status != 200 || got != want {
				t.Errorf("got %d %s, want %s", status, got, want)
			}
		}
		check(t, b.dir+"/form.txt", "from a form", "644 41234 41235")
	})
	t.Run("disk full", func(t *testing.T) {
		small := mountTmpfs(t, b.dir+"/small", "size=64k")
		err := b.Upload(ctx, small+"/big", strings.NewReader(strings.Repeat("x", 1<<20)))
		wantError(t, err, 507, wire.CodeDiskFull, "disk is full")
		if l, _ := os.ReadDir(small); len(l) != 0 {
			t.Errorf("left %v", l)
		}
	})
	if l := leftovers(t, b.dir); len(l) != 0 {
		t.Errorf("left %v", l)
	}
}

func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	l, err := filepath.Glob(dir + "/daytona-upload*")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mountTmpfs(t *testing.T, dir, options string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func TestBulkUpload(t *testing.T) {
	b := open(t)
	type field struct{ name, file, content string }
	post := func(fields ...field) (int, string) {
		var form bytes.Buffer
		w := multipart.NewWriter(&form)
		for _, f := range fields {
			if f.file == "" {
				_ = w.WriteField(f.name, f.content)
				continue
			}
			p, _ := w.CreateFormFile(f.name, f.file)
			_, _ = p.Write([]byte(f.content))
		}
		w.Close()
		status, _, got := b.send("POST", "/files/bulk-upload", &form, "Content-Type", w.FormDataContentType())
		return status, got
	}
	status, got := post(field{"files[0].path", "", "one.txt"}, field{"files[0].file", "x", "1"}, field{"files[7].path", "", b.dir + "/d/two"}, field{"files[7].file", "y", "22"})
	if want := `{"files":[{"path":"` + b.dir + `/one.txt","bytes":1},{"path":"` + b.dir + `/d/two","bytes":2}]}`; status != 200 || got != want {
		t.Errorf("got %d %s, want %s", status, got, want)
	}
	status, got = post(field{"files[0].path", "", "/"}, field{"files[0].file", "x", "1"}, field{"files[1].path", "", "ok"}, field{"files[1].file", "y", "22"}, field{"files[2].file", "y", "lost"}, field{"files[3].path", "", "alone"})
	for _, want := range []string{`"errors":[`, `files[2].path must come before`, `alone came without its content`, `"files":[{"path":"` + b.dir + `/ok","bytes":2}]`, `"statusCode":400`} {
		if status != 400 || !strings.Contains(got, want) {
			t.Errorf("got %d %s, want %s in it", status, got, want)
		}
	}
	if read(t, b.dir+"/ok") != "22" || read(t, b.dir+"/d/two") != "22" {
		t.Error("files are not as sent")
	}
	if status, got = post(); status != 400 {
		t.Errorf("empty form: got %d %s", status, got)
	}
	if status, _, got = b.send("POST", "/files/bulk-upload", strings.NewReader("x")); status != 400 {
		t.Errorf("no form: got %d %s", status, got)
	}
}

func TestDownload(t *testing.T) {
	b := open(t)
	ctx := t.Context()
	write(t, b.dir+`/a "q" é.txt`, "hello")
	write(t, b.dir+"/empty", "")
	b.run("mkfifo fifo")
	r, n, err := b.Download(ctx, `a "q" é.txt`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	r.Close()
	if err != nil || string(got) != "hello" || n != 5 {
		t.Errorf("got %q %d %v", got, n, err)
	}
	_, h, _ := b.send("GET", "/files/download?path=a%20%22q%22%20%C3%A9.txt", nil)
	if kind, p, err := mime.ParseMediaType(h.Get("Content-Disposition")); err != nil || kind != "attachment" || p["filename"] != `a "q" é.txt` || h.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("got %v, %v %v", h, p, err)
	}
	if status, _, body := b.send("GET", "/files/download?path=a%20%22q%22%20%C3%A9.txt", nil, "Range", "bytes=1-2"); status != 206 || body != "el" {
		t.Errorf("range: got %d %q", status, body)
	}
	for path, want := range map[string]string{"/proc/self/status": "Pid:", "/sys/devices/system/cpu/online": "0"} {
		if status, _, body := b.send("GET", "/files/download?path="+path, nil); status != 200 || !strings.Contains(body, want) {
			t.Errorf("virtual file %s: got %d %q", path, status, body)
		}
	}
	for path, want := range map[string]struct {
		status int
		code   wire.Code
	}{"none": {404, wire.CodeFileNotFound}, ".": {400, wire.CodeInvalidPath}, "fifo": {400, wire.CodeInvalidPath}, "/dev/zero": {400, wire.CodeInvalidPath}, "": {400, wire.CodeBadRequest}} {
		_, _, err := b.Download(ctx, path)
		wantError(t, err, want.status, want.code, "")
	}
	bulk(t, b)
}

func bulk(t *testing.T, b *box) {
	t.Helper()
	status, h, body := b.send("POST", "/files/bulk-download", b.json(wire.FilesDownload{Paths: []string{`a "q" é.txt`, "none", "empty"}}))
	kind, p, err := mime.ParseMediaType(h.Get("Content-Type"))
	if status != 200 || err != nil || kind != "multipart/form-data" || p["boundary"] != wire.DownloadBoundary {
		t.Fatalf("got %d %v %v", status, h, err)
	}
	form := multipart.NewReader(strings.NewReader(body), p["boundary"])
	var got []string
	for {
		part, err := form.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		_, q, _ := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
		text, _ := io.ReadAll(part)
		if part.FormName() == "error" {
			text = text[:bytes.IndexByte(text, ',')]
		}
		got = append(got, fmt.Sprintf("%s %s %s %s", part.FormName(), q["filename"], part.Header.Get("Content-Length"), text))
	}
	want := []string{`file a "q" é.txt 5 hello`, `error none  {"statusCode":404`, "file empty 0 "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestListInfoFolder(t *testing.T) {
	b := open(t)
	ctx := t.Context()
	if err := b.Mkdir(ctx, "d/e", "0750"); err != nil {
		t.Fatal(err)
	}
	if err := b.Mkdir(ctx, "d/e", "755"); err != nil { // it exists already
		t.Fatal(err)
	}
	b.run("echo hi >d/e/f; ln -s e d/l; ln -s nowhere d/x; touch -d 2020-01-02T03:04:05Z d/e/f")
	info, err := b.Info(ctx, "d/e/f")
	want := wire.FileInfo{Name: "f", Path: b.dir + "/d/e/f", Size: 3, Mode: "-rw-r--r--", Permissions: "0644", Owner: "dev", Group: "dev", ModTime: "2020-01-02 03:04:05 +0000 UTC", ModifiedAt: time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)}
	if diff := cmp.Diff(want, info); err != nil || diff != "" {
		t.Errorf("%v -want +got\n%s", err, diff)
	}
	names := func(dir string, depth int) string {
		l, err := b.List(ctx, dir, depth)
		if err != nil {
			t.Fatal(err)
		}
		var n []string
		for _, f := range l {
			n = append(n, fmt.Sprintf("%s:%v:%s", strings.TrimPrefix(f.Path, b.dir+"/"), f.IsDir, f.Permissions))
		}
		return strings.Join(n, " ")
	}
	if got, want := names("d", 0), "d/e:true:0750 d/l:true:0777 d/x:false:0777"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := names("", 3), "d:true:0755 d/e:true:0750 d/e/f:false:0644 d/l:true:0777 d/x:false:0777"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, tt := range []struct {
		err    error
		status int
		code   wire.Code
		part   string
	}{
		{second(b.Info(ctx, "none")), 404, wire.CodeFileNotFound, "none"},
		{second(b.List(ctx, "none", 1)), 404, wire.CodeFileNotFound, "none"},
		{second(b.List(ctx, "d/e/f", 1)), 400, wire.CodeInvalidPath, "not a directory"},
		{second(b.List(ctx, "d", -0)), 0, "", ""},
		{b.Mkdir(ctx, "d/e/f", "755"), 400, wire.CodeInvalidPath, "not a directory"},
		{b.Mkdir(ctx, "d/z", "9"), 400, wire.CodeBadRequest, "octal"},
		{b.Delete(ctx, "none", false), 404, wire.CodeFileNotFound, "none"},
		{b.Delete(ctx, "d", false), 400, wire.CodeBadRequest, "recursive"},
		{b.Delete(ctx, "/", true), 400, wire.CodeInvalidPath, "root"},
		{b.Permissions(ctx, "d", "", "", "abc"), 400, wire.CodeBadRequest, "octal"},
		{b.Permissions(ctx, "d", "nobody-here", "", ""), 400, wire.CodeBadRequest, "no user"},
		{b.Permissions(ctx, "none", "", "", "644"), 404, wire.CodeFileNotFound, "none"},
	} {
		if tt.status == 0 {
			if tt.err != nil {
				t.Error(tt.err)
			}
			continue
		}
		wantError(t, tt.err, tt.status, tt.code, tt.part)
	}
	if err := b.Permissions(ctx, "d/e/f", "root", "extra", "4711"); err != nil {
		t.Fatal(err)
	}
	if got := b.run("stat -c '%a %U %g' d/e/f"); got != "4711 root 41236\n" {
		t.Errorf("got %q", got)
	}
	if err := b.Delete(ctx, "d/l", false); err != nil { // the link, not what it names
		t.Fatal(err)
	}
	if err := b.Delete(ctx, "d", true); err != nil {
		t.Fatal(err)
	}
	if l, _ := os.ReadDir(b.dir); len(l) != 0 {
		t.Errorf("left %v", l)
	}
}

func second[T any](_ T, err error) error { return err }

func TestMove(t *testing.T) {
	b := open(t)
	ctx := t.Context()
	other := mountTmpfs(t, b.dir+"/other", "size=1m")
	b.run("mkdir -p src/sub; echo 1 >src/sub/f; chmod 600 src/sub/f; ln -s sub/f src/l; echo 2 >taken")
	for _, tt := range []struct {
		from, to string
		status   int
		code     wire.Code
	}{
		{"none", "x", 404, wire.CodeFileNotFound},
		{"src", "taken", 409, wire.CodeConflict},
		{"taken", "src", 409, wire.CodeConflict},
		{"taken", "no/dir", 404, wire.CodeFileNotFound},
		{"src", "src/sub/x", 400, wire.CodeBadRequest},
		{"taken", "", 400, wire.CodeBadRequest},
	} {
		wantError(t, b.Move(ctx, tt.from, tt.to), tt.status, tt.code, "")
	}
	if err := b.Move(ctx, "src", "dst"); err != nil {
		t.Fatal(err)
	}
	if err := b.Move(ctx, "dst", other+"/dst"); err != nil { // to another file system
		t.Fatal(err)
	}
	if got := b.run("cd other/dst && stat -c '%a %u' sub/f && readlink l && cat l; ls ../.. | xargs"); got != "600 41234\nsub/f\n1\nother taken\n" {
		t.Errorf("got %q", got)
	}
	err := b.Move(ctx, "taken", other+"/dst")
	wantError(t, err, 409, wire.CodeConflict, "exists")
	if got := b.run("ls other; cat taken"); got != "dst\n2\n" {
		t.Errorf("got %q", got)
	}
}

func TestFindSearchReplace(t *testing.T) {
	b := open(t)
	ctx := t.Context()
	write(t, b.dir+"/a.py", "import os\nx = 'needle'\r\n")
	write(t, b.dir+"/sub/b.txt", "needle needle\nnone\nneedle")
	write(t, b.dir+"/bin", "needle\x00")
	write(t, b.dir+"/long", strings.Repeat("y", 100_000)+"needle\nz")
	b.run("mkfifo fifo; ln -s sub link; ln -s / root; chmod 755 .")
	m, err := b.Find(ctx, ".", "needle")
	for i := range m {
		m[i].Content = m[i].Content[:min(20, len(m[i].Content))]
	}
	want := []wire.Match{
		{File: b.dir + "/a.py", Line: 2, Content: "x = 'needle'"},
		{File: b.dir + "/long", Line: 1, Content: strings.Repeat("y", 20)},
		{File: b.dir + "/sub/b.txt", Line: 1, Content: "needle needle"},
		{File: b.dir + "/sub/b.txt", Line: 3, Content: "needle"},
	}
	if diff := cmp.Diff(want, m); err != nil || diff != "" {
		t.Errorf("%v -want +got\n%s", err, diff)
	}
	if m, err = b.Find(ctx, "a.py", "import"); err != nil || len(m) != 1 {
		t.Errorf("one file: got %v, %v", m, err)
	}
	_, err = b.Search(ctx, "", "*")
	wantError(t, err, 400, wire.CodeBadRequest, "path: it is missing")
	files, err := b.Search(ctx, ".", "*.[pt][yx]*")
	if diff := cmp.Diff([]string{b.dir + "/a.py", b.dir + "/sub/b.txt"}, files); err != nil || diff != "" {
		t.Errorf("%v -want +got\n%s", err, diff)
	}
	_, err = b.Search(ctx, ".", "[")
	wantError(t, err, 400, wire.CodeBadRequest, "valid glob")
	_, err = b.Find(ctx, ".", "")
	wantError(t, err, 400, wire.CodeBadRequest, "pattern")
	_, err = b.Find(ctx, "none", "x")
	wantError(t, err, 404, wire.CodeFileNotFound, "none")
	res, err := b.Replace(ctx, wire.ReplaceRequest{Files: []string{"a.py", "none", "link/b.txt", "sub"}, Pattern: "needle", NewValue: "pin"})
	if err != nil || len(res) != 4 || !res[0].Success || res[1].Success || !res[2].Success || res[3].Success || !strings.Contains(res[1].Error, "not found") {
		t.Errorf("got %+v, %v", res, err)
	}
	if got := read(t, b.dir+"/sub/b.txt"); got != "pin pin\nnone\npin" {
		t.Errorf("got %q", got)
	}
	_, err = b.Replace(ctx, wire.ReplaceRequest{Files: []string{"a.py"}})
	wantError(t, err, 400, wire.CodeBadRequest, "pattern")
}

func FuzzPartName(f *testing.F) {
	f.Add("files[0].path")
	f.Add("files[999999999].file")
	f.Add("files[-1].file")
	f.Fuzz(func(t *testing.T, name string) {
		i, kind, ok := parsePart(name)
		if !ok {
			return
		}
		if i < 0 || (kind != "path" && kind != "file") || !strings.HasPrefix(name, "files[") || !strings.HasSuffix(name, "]."+kind) {
			t.Errorf("%q became %d %q", name, i, kind)
		}
	})
}

func FuzzDisposition(f *testing.F) {
	f.Add("a\"\r\nX: y")
	f.Fuzz(func(t *testing.T, name string) {
		if d := disposition("form-data", "file", name); strings.ContainsAny(d, "\r\n\x00") {
			t.Errorf("%q breaks out: %q", name, d)
		}
	})
}
