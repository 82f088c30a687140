package tools

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

const (
	maxTransfer      = 512 << 20 // bytes of one call
	maxTransferFiles = 20_000    // of one call
)

// localTools are for a server that its user runs for themselves.
func (k *kit) localTools() []Tool {
	if len(k.opt.LocalDirs) == 0 {
		return nil
	}
	return []Tool{{
		Name: "sandbox_transfer", Set: SetLocal, Title: "Copy local files",
		Description: "Copy a file or directory between this computer and a sandbox, without passing it through the conversation.",
		Schema:      `{"type":"object","properties":{"id":{"type":"string"},"direction":{"type":"string","enum":["upload","download"]},"local_path":{"type":"string"},"path":{"type":"string"},"exclude":{"type":"array","items":{"type":"string"}}},"required":["id","direction","local_path","path"],"additionalProperties":false}`,
		Hints:       Hints{Destructive: true, Idempotent: true, OpenWorld: true}, Handler: k.transfer,
	}}
}

// place is a file or directory below one of the allowed directories. It is
// reached through root, which no link and no .. leads out of.
type place struct {
	root *os.Root
	rel  string
}

// place finds the allowed directory that a path of this computer is below. A
// relative path is below the first.
func (k *kit) place(given string) (place, error) {
	wanted := given
	if !filepath.IsAbs(wanted) {
		wanted = filepath.Join(k.opt.LocalDirs[0], wanted)
	}
	for _, dir := range k.opt.LocalDirs {
		rel, err := filepath.Rel(dir, filepath.Clean(wanted))
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			return place{}, invalid("Ask your user to make it", "the directory %s cannot be opened", dir)
		}
		return place{root, rel}, nil
	}
	return place{}, invalid("Use a path below one of them, or have your user name another with --local-dir",
		`"local_path" %s is outside what your user allowed: %s`, quote(given), strings.Join(k.opt.LocalDirs, ", "))
}

func (k *kit) transfer(ctx context.Context, a Args) (Result, error) {
	if a.Str("local_path") == "" {
		return Result{}, invalid(`As "local_path":"src"`, `"local_path" is empty`)
	}
	for _, pattern := range a.List("exclude") {
		if _, err := path.Match(pattern, ""); err != nil {
			return Result{}, invalid(`As "exclude":["node_modules","*.log"]`, `"exclude" has a pattern that does not parse: %s`, quote(pattern))
		}
	}
	b, remote, err := k.target(ctx, a)
	if err != nil {
		return Result{}, err
	}
	local, err := k.place(a.Str("local_path"))
	if err != nil {
		return Result{}, err
	}
	defer local.root.Close()
	if a.Str("direction") == "upload" {
		return b.uploadLocal(ctx, a, local, remote)
	}
	return b.downloadLocal(ctx, a, local, remote)
}

// excluded tells whether a pattern matches the path or a part of it.
func excluded(rel string, patterns []string) bool {
	for _, p := range patterns {
		if ok, _ := path.Match(p, rel); ok {
			return true
		}
		for _, part := range strings.Split(rel, "/") {
			if ok, _ := path.Match(p, part); ok {
				return true
			}
		}
	}
	return false
}

// count is what a transfer has moved so far.
type count struct {
	files int
	bytes int64
}

func (c *count) add(n int64) error {
	c.files++
	c.bytes += n
	if c.files > maxTransferFiles || c.bytes > maxTransfer {
		return invalid(`Copy a part of it, or leave things out with "exclude"`, `"local_path" or "path" has more than %d files or %s`, maxTransferFiles, size(maxTransfer))
	}
	return nil
}

// uploadLocal packs what it reads and has the sandbox unpack it, so that many
// small files take one request. The sandbox sees nothing unless all was read.
func (b *box) uploadLocal(ctx context.Context, a Args, from place, to string) (Result, error) {
	info, err := from.root.Stat(from.rel)
	if err != nil {
		return Result{}, noLocal(err, a)
	}
	if !info.IsDir() {
		f, err := from.root.Open(from.rel)
		if err != nil {
			return Result{}, noLocal(err, a)
		}
		defer f.Close()
		if err := new(count).add(info.Size()); err != nil {
			return Result{}, err
		}
		if err := b.Upload(ctx, to, f); err != nil {
			return Result{}, err
		}
		if info.Mode()&0o111 != 0 {
			if err := b.chmod(ctx, to, "755"); err != nil {
				return Result{}, err
			}
		}
		return Text("Uploaded %s (%s) to %s.", a.Str("local_path"), size(info.Size()), to), nil
	}
	var done count
	part := "/tmp/.atoll-upload-" + newID("") + ".tar"
	r, w := io.Pipe()
	go func() { w.CloseWithError(pack(ctx, from, a, &done, w)) }()
	err = b.Upload(ctx, part, r)
	_ = r.CloseWithError(io.ErrClosedPipe) // ends pack when the upload gave up
	if err != nil {
		_ = b.Delete(context.WithoutCancel(ctx), part, false)
		return Result{}, err
	}
	out, err := b.execute(ctx, fmt.Sprintf(`mkdir -p -- %[1]s && tar -C %[1]s -xf %[2]s; r=$?; rm -f %[2]s; exit $r`, shellQuote(to), part), 300)
	if err != nil {
		return Result{}, err
	}
	if out.ExitCode != 0 {
		return Result{}, invalid("Check that the path is a directory that can be written", `unpacking into "path" failed: %s`, firstLine(printable([]byte(out.Result))))
	}
	return Text("Uploaded %d files (%s) to %s.", done.files, size(done.bytes), to), nil
}

// pack writes a tar of the directory. Links and special files are left out.
func pack(ctx context.Context, from place, a Args, done *count, w io.Writer) error {
	patterns := a.List("exclude")
	t := tar.NewWriter(w)
	err := fs.WalkDir(from.root.FS(), filepath.ToSlash(from.rel), func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		rel, _ := filepath.Rel(from.rel, filepath.FromSlash(name))
		rel = filepath.ToSlash(rel)
		switch {
		case err != nil:
			return err
		case rel == ".":
			return nil
		case excluded(rel, patterns) && d.IsDir():
			return fs.SkipDir
		case excluded(rel, patterns) || !d.IsDir() && !d.Type().IsRegular():
			return nil
		}
		return packOne(t, from, name, rel, done)
	})
	if err != nil {
		return err
	}
	return t.Close()
}

func packOne(t *tar.Writer, from place, name, rel string, done *count) error {
	f, err := from.root.Open(filepath.FromSlash(name))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h := &tar.Header{Name: rel, Mode: int64(info.Mode().Perm()), ModTime: info.ModTime(), Typeflag: tar.TypeDir}
	if info.IsDir() {
		h.Name += "/"
		return t.WriteHeader(h)
	}
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := done.add(h.Size); err != nil {
		return err
	}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.CopyN(t, f, h.Size)
	return err
}

// downloadLocal writes what the sandbox packs. Nothing in it is trusted: names
// stay below the destination, links are left out, and so is .git, whose hooks
// and settings run programs on this computer.
func (b *box) downloadLocal(ctx context.Context, a Args, to place, from string) (Result, error) {
	if guarded(to.rel) {
		return Result{}, invalid("Choose another place", `"local_path" is inside .git, whose files run programs`)
	}
	info, err := b.Info(ctx, from)
	if err != nil {
		return Result{}, noFile(err, a)
	}
	if !info.IsDir {
		r, n, err := b.Download(ctx, from)
		if err != nil {
			return Result{}, noFile(err, a)
		}
		defer r.Close()
		if err := new(count).add(n); err != nil {
			return Result{}, err
		}
		if st, err := to.root.Stat(to.rel); err == nil && st.IsDir() {
			to.rel = filepath.Join(to.rel, path.Base(from))
		}
		written, err := to.write(to.rel, io.LimitReader(r, maxTransfer), 0o644)
		return Text("Downloaded %s (%s) to %s.", from, size(written), a.Str("local_path")), noLocal(err, a)
	}
	part := "/tmp/.atoll-download-" + newID("") + ".tar"
	defer func() { _ = b.Delete(context.WithoutCancel(ctx), part, false) }()
	out, err := b.execute(ctx, fmt.Sprintf(`tar -C %s -cf %s .`, shellQuote(from), part), 300)
	switch {
	case err != nil:
		return Result{}, err
	case out.ExitCode != 0:
		return Result{}, invalid("Check that its files can be read", `packing "path" failed: %s`, firstLine(printable([]byte(out.Result))))
	}
	r, _, err := b.Download(ctx, part)
	if err != nil {
		return Result{}, err
	}
	defer r.Close()
	done, err := to.unpack(ctx, tar.NewReader(r), a.List("exclude"))
	if err != nil {
		return Result{}, noLocal(err, a)
	}
	return Text("Downloaded %d files (%s) to %s.", done.files, size(done.bytes), a.Str("local_path")), nil
}

// guarded tells whether a path leads into a .git directory.
func guarded(rel string) bool {
	for _, part := range strings.Split(filepath.ToSlash(rel), "/") {
		if strings.EqualFold(part, ".git") {
			return true
		}
	}
	return false
}

func (p place) unpack(ctx context.Context, t *tar.Reader, patterns []string) (count, error) {
	var done count
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return done, nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return done, err
		}
		rel := path.Clean(h.Name)
		if rel == "." || !filepath.IsLocal(rel) || guarded(rel) || excluded(rel, patterns) {
			continue
		}
		name := filepath.Join(p.rel, filepath.FromSlash(rel))
		switch h.Typeflag {
		case tar.TypeDir:
			err = p.root.MkdirAll(name, 0o755)
		case tar.TypeReg:
			if err = done.add(h.Size); err == nil {
				_, err = p.write(name, t, fs.FileMode(h.Mode).Perm()&0o755|0o600)
			}
		}
		if err != nil {
			return done, err
		}
	}
}

// write makes a file, with the directories above it.
func (p place) write(name string, r io.Reader, mode fs.FileMode) (int64, error) {
	if err := p.root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return 0, err
	}
	f, err := p.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(f, r)
	return n, errors.Join(err, f.Close())
}

// noLocal tells of a file of this computer. Other errors pass.
func noLocal(err error, a Args) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return invalid("Check the spelling", `"local_path" %s does not exist`, quote(a.Str("local_path")))
	case errors.Is(err, fs.ErrPermission):
		return invalid("Ask your user", `"local_path" %s may not be read or written`, quote(a.Str("local_path")))
	}
	var outside *fs.PathError
	if errors.As(err, &outside) {
		return invalid("Use a plain file or directory below what your user allowed", `"local_path" %s cannot be used`, quote(a.Str("local_path")))
	}
	return err
}
