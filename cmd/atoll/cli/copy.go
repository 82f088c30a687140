package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	toolbox "github.com/atoll-sh/atoll/engine/toolbox/wire"

	"github.com/atoll-sh/atoll/engine"
)

func newCopyCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "cp SOURCE DESTINATION",
		Short: "Copy files and directories to or from a sandbox",
		Long: "Copies a file or a directory with all below it. One side is NAME:PATH in a\n" +
			"sandbox, the other a path on this machine; relative paths in a sandbox start\n" +
			"at its work directory. A destination that is a directory gets the source as\n" +
			"an entry.",
		Example: "  atoll cp ./src build:/home/daytona/\n  atoll cp build:result.txt .",
		Args:    cobra.ExactArgs(2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			var out []string
			for _, n := range a.names(cmd.Context(), prefix) {
				name, _, _ := strings.Cut(n, "\t")
				out = append(out, name+":")
			}
			return out, cobra.ShellCompDirectiveNoSpace
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.copy(cmd.Context(), args[0], args[1]) },
	}
}

// place is one side of a copy. An empty sandbox means this machine.
type place struct{ sandbox, path string }

// parsePlace takes NAME:PATH for a sandbox unless a slash before the colon, or
// a leading dot, says that it is a path here.
func parsePlace(s string) place {
	name, p, ok := strings.Cut(s, ":")
	if !ok || name == "" || strings.ContainsAny(name, "/\\") || strings.HasPrefix(name, ".") {
		return place{path: s}
	}
	if p == "" {
		p = "."
	}
	return place{sandbox: name, path: p}
}

func (a *app) copy(ctx context.Context, from, to string) error {
	src, dst := parsePlace(from), parsePlace(to)
	if (src.sandbox == "") == (dst.sandbox == "") {
		return usagef("one side must be NAME:PATH in a sandbox and the other a path here")
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	rt, err := a.toolbox(ctx, c, src.sandbox+dst.sandbox)
	if err != nil {
		return err
	}
	if dst.sandbox != "" {
		return a.upload(ctx, rt, src.path, dst.path)
	}
	return a.download(ctx, rt, src.path, dst.path)
}

func (a *app) upload(ctx context.Context, rt http.RoundTripper, src, dst string) error {
	fi, err := os.Stat(src)
	if err != nil {
		return localError(src, err)
	}
	target, err := remoteTarget(ctx, rt, src, dst)
	if err != nil {
		return err
	}
	if fi.IsDir() {
		return a.uploadDirectory(ctx, rt, src, target)
	}
	f, err := os.Open(src)
	if err != nil {
		return localError(src, err)
	}
	defer f.Close()
	p := a.progress(filepath.Base(src), fi.Size())
	defer p.end()
	res, err := toolboxCall(ctx, rt, http.MethodPost, "/files/upload-v2", url.Values{"path": {target}}, p.reader(f))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if mode := fi.Mode().Perm(); mode != 0o644 {
		return setMode(ctx, rt, target, mode)
	}
	return nil
}

func setMode(ctx context.Context, rt http.RoundTripper, target string, mode fs.FileMode) error {
	q := url.Values{"path": {target}, "mode": {fmt.Sprintf("%o", mode)}}
	res, err := toolboxCall(ctx, rt, http.MethodPost, "/files/permissions", q, nil)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// remoteTarget puts the source into the destination when that is a directory.
func remoteTarget(ctx context.Context, rt http.RoundTripper, src, dst string) (string, error) {
	into := strings.HasSuffix(dst, "/")
	if !into {
		fi, err := stat(ctx, rt, dst)
		if err != nil {
			return "", err
		}
		into = fi != nil && fi.IsDir
	}
	if !into {
		return dst, nil
	}
	abs, err := filepath.Abs(src)
	if err != nil {
		return "", err
	}
	return path.Join(dst, filepath.Base(abs)), nil
}

// uploadDirectory streams a tar archive into a tar process in the sandbox.
func (a *app) uploadDirectory(ctx context.Context, rt http.RoundTripper, src, target string) error {
	p := a.progress(filepath.Base(src), 0)
	defer p.end()
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := pack(src, w)
		packed <- err
		_ = w.CloseWithError(err)
	}()
	script := `mkdir -p -- "$1" && exec tar -xf - --no-same-owner -C "$1"`
	err := a.tar(ctx, rt, toolbox.ExecStart{Argv: []string{"sh", "-c", script, "sh", target}}, p.reader(r), io.Discard)
	_ = r.Close()
	if perr := <-packed; perr != nil && !errors.Is(perr, io.ErrClosedPipe) {
		return perr
	}
	return err
}

// tar runs a tar process in the sandbox and reports its complaints.
func (a *app) tar(ctx context.Context, rt http.RoundTripper, start toolbox.ExecStart, in io.Reader, out io.Writer) error {
	var complaints tail
	s := stream{in: in, out: out, err: &complaints}
	code, err := s.exec(ctx, rt, start)
	if err == nil && ctx.Err() != nil {
		err = engine.AsError(ctx.Err())
	}
	if err == nil && code != 0 {
		err = engine.Errorf(engine.KindInternal, "tar in the sandbox ended with %d: %s", code, strings.TrimSpace(complaints.String()))
	}
	return err
}

func (a *app) download(ctx context.Context, rt http.RoundTripper, src, dst string) error {
	fi, err := stat(ctx, rt, src)
	if err != nil {
		return err
	}
	if fi == nil {
		return engine.Errorf(engine.KindNotFound, "there is no %s in the sandbox", src)
	}
	target, err := localTarget(src, dst)
	if err != nil {
		return err
	}
	if fi.IsDir {
		return a.downloadDirectory(ctx, rt, src, target)
	}
	res, err := toolboxCall(ctx, rt, http.MethodGet, "/files/download", url.Values{"path": {src}}, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	p := a.progress(path.Base(src), fi.Size)
	defer p.end()
	return writeNew(target, p.reader(res.Body))
}

// localTarget names the file or directory to make here. A name that a sandbox
// could choose never takes part: the last element is of the caller's own src.
func localTarget(src, dst string) (string, error) {
	fi, err := os.Stat(dst)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", localError(dst, err)
	}
	if (err != nil || !fi.IsDir()) && !strings.HasSuffix(dst, string(filepath.Separator)) {
		return dst, nil
	}
	base := path.Base(path.Clean(src))
	if base == "." || base == "/" || base == ".." {
		return dst, nil
	}
	return filepath.Join(dst, base), nil
}

// writeNew writes a file beside its name first, so that a broken transfer
// leaves what was there.
func writeNew(target string, r io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return localError(target, err)
	}
	f, err := os.CreateTemp(filepath.Dir(target), ".atoll-*")
	if err != nil {
		return localError(target, err)
	}
	defer os.Remove(f.Name())
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), target)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", target, err)
	}
	return nil
}

func (a *app) downloadDirectory(ctx context.Context, rt http.RoundTripper, src, target string) error {
	p := a.progress(path.Base(src), 0)
	defer p.end()
	r, w := io.Pipe()
	unpacked := make(chan error, 1)
	go func() {
		err := unpack(p.reader(r), target, a.err)
		unpacked <- err
		_ = r.CloseWithError(err)
	}()
	err := a.tar(ctx, rt, toolbox.ExecStart{Argv: []string{"tar", "-cf", "-", "-C", src, "."}}, nil, w)
	_ = w.CloseWithError(orEOF(err))
	if uerr := <-unpacked; uerr != nil && (err == nil || !errors.Is(uerr, err)) {
		return uerr
	}
	return err
}

func orEOF(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}

func localError(name string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("%s: %w", name, err)
}

// tail keeps the last of what is written to it.
type tail struct{ b []byte }

const tailSize = 4 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if len(t.b) > tailSize {
		t.b = t.b[len(t.b)-tailSize:]
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.b) }
