package toolbox

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

func (t *Toolbox) listFiles(w http.ResponseWriter, r *http.Request) error {
	depth, err := integer(r, "depth", 1)
	if err != nil {
		return err
	}
	list, err := t.files.List(r.URL.Query().Get("path"), int(depth))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

func (t *Toolbox) fileInfo(w http.ResponseWriter, r *http.Request) error {
	info, err := t.files.Info(r.URL.Query().Get("path"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, info)
}

func (t *Toolbox) deleteFile(w http.ResponseWriter, r *http.Request) error {
	recursive, err := boolean(r, "recursive")
	if err != nil {
		return err
	}
	if err := t.files.Delete(r.URL.Query().Get("path"), recursive); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (t *Toolbox) makeFolder(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if err := t.files.Mkdir(q.Get("path"), q.Get("mode")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (t *Toolbox) moveFile(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if err := t.files.Move(q.Get("source"), q.Get("destination")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (t *Toolbox) setPermissions(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if err := t.files.SetPermissions(q.Get("path"), q.Get("owner"), q.Get("group"), q.Get("mode")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (t *Toolbox) findInFiles(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	m, err := t.files.Find(r.Context(), q.Get("path"), q.Get("pattern"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, m)
}

func (t *Toolbox) searchFiles(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	found, err := t.files.Search(r.Context(), q.Get("path"), q.Get("pattern"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, wire.FileList{Files: found})
}

func (t *Toolbox) replaceInFiles(w http.ResponseWriter, r *http.Request) error {
	var q wire.ReplaceRequest
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	res, err := t.files.Replace(r.Context(), q)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, res)
}

// source marks errors of the caller's stream, so that they are not taken for
// ours.
type source struct{ r io.Reader }

// Read reads and translates.
func (s source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = wire.Errorf(http.StatusBadRequest, wire.CodeInvalidBody, "the upload broke off: %v; nothing was written", err)
	}
	return n, err
}

// upload takes a raw body or the field "file" of a form.
func (t *Toolbox) upload(w http.ResponseWriter, r *http.Request) error {
	path := r.URL.Query().Get("path")
	body, err := uploadBody(r)
	if err != nil {
		return err
	}
	f, _, err := t.files.Upload(path, source{body})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, f)
}

func uploadBody(r *http.Request) (io.Reader, error) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind != "multipart/form-data" {
		return r.Body, nil
	}
	form, err := r.MultipartReader()
	if err != nil {
		return nil, badForm(err)
	}
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			return nil, wire.BadRequest("file: the form has no such field; send the content in it or as the raw body")
		}
		if err != nil {
			return nil, badForm(err)
		}
		if part.FormName() == "file" {
			return part, nil
		}
	}
}

func badForm(err error) error {
	return wire.Errorf(http.StatusBadRequest, wire.CodeInvalidBody, "the form cannot be read: %v", err)
}

// partName matches the fields of a bulk upload.
var partName = regexp.MustCompile(`^files\[([0-9]{1,9})\]\.(path|file)$`)

// parsePart returns the index and the kind, path or file, of a field.
func parsePart(name string) (index int, kind string, ok bool) {
	m := partName.FindStringSubmatch(name)
	if m == nil {
		return 0, "", false
	}
	index, err := strconv.Atoi(m[1])
	return index, m[2], err == nil
}

const (
	maxPath = 16 << 10 // of the path field
	maxBulk = 100_000  // files in one bulk upload
)

// bulkUpload takes pairs of path and content. Each path precedes its content,
// so that everything is streamed.
func (t *Toolbox) bulkUpload(w http.ResponseWriter, r *http.Request) error {
	form, err := r.MultipartReader()
	if err != nil {
		return badForm(err)
	}
	res := wire.BulkUploaded{Files: []wire.BulkUpload{}}
	paths := map[int]string{}
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			res.Errors = append(res.Errors, badForm(err).Error())
			break
		}
		if err := t.bulkPart(part, paths, &res); err != nil {
			res.Errors = append(res.Errors, err.Error())
		}
		if len(paths) > maxBulk {
			res.Errors = append(res.Errors, "too many files in one upload; split it")
			break
		}
	}
	for i, p := range paths {
		res.Errors = append(res.Errors, fmt.Sprintf("files[%d]: %s came without its content", i, p))
	}
	if len(res.Errors) == 0 && len(res.Files) == 0 {
		return wire.BadRequest("files: the form holds none; send pairs of files[0].path and files[0].file")
	}
	if len(res.Errors) > 0 {
		return writeJSON(w, http.StatusBadRequest, bulkFailed{t.errorBody(r, strings.Join(res.Errors, "; ")), res})
	}
	return writeJSON(w, http.StatusOK, res)
}

// bulkFailed is the answer to a bulk upload that failed in part: the contract's
// lists beside an ordinary error.
type bulkFailed struct {
	wire.ErrorResponse
	wire.BulkUploaded
}

func (t *Toolbox) bulkPart(part *multipart.Part, paths map[int]string, res *wire.BulkUploaded) error {
	i, kind, ok := parsePart(part.FormName())
	if !ok {
		return nil // other fields are ignored
	}
	if kind == "path" {
		b, err := io.ReadAll(io.LimitReader(part, maxPath+1))
		if err != nil || len(b) > maxPath {
			return fmt.Errorf("files[%d].path: it cannot be read or is longer than %d bytes", i, maxPath)
		}
		paths[i] = string(b)
		return nil
	}
	path, ok := paths[i]
	if !ok {
		return fmt.Errorf("files[%d].file: files[%d].path must come before it", i, i)
	}
	delete(paths, i)
	f, n, err := t.files.Upload(path, source{part})
	if err != nil {
		return err
	}
	res.Files = append(res.Files, wire.BulkUpload{Path: f.Path, Bytes: n})
	return nil
}

func (t *Toolbox) download(w http.ResponseWriter, r *http.Request) error {
	d, err := t.files.Open(r.URL.Query().Get("path"))
	if err != nil {
		return err
	}
	defer d.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", disposition("attachment", "", d.Name))
	http.ServeContent(w, r, "", d.ModTime, d)
	return nil
}

// disposition builds a Content-Disposition whose file name survives in both
// its old and its UTF-8 form.
func disposition(kind, name, filename string) string {
	var b strings.Builder
	b.WriteString(kind)
	if name != "" {
		fmt.Fprintf(&b, `; name="%s"`, name)
	}
	safe := strings.Map(func(c rune) rune {
		if c < 0x20 || c == 0x7f {
			return '_'
		}
		return c
	}, filename)
	fmt.Fprintf(&b, `; filename="%s"; filename*=UTF-8''%s`,
		strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(safe), strings.ReplaceAll(url.QueryEscape(filename), "+", "%20"))
	return b.String()
}

// bulkDownload streams several files as parts; one that cannot be read becomes
// an error part, since the others are on their way already.
func (t *Toolbox) bulkDownload(w http.ResponseWriter, r *http.Request) error {
	var q wire.FilesDownload
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	if len(q.Paths) == 0 {
		return wire.BadRequest("paths: it is empty; name at least one file")
	}
	form := multipart.NewWriter(w)
	if err := form.SetBoundary(wire.DownloadBoundary); err != nil {
		return err
	}
	w.Header().Set("Content-Type", form.FormDataContentType())
	w.WriteHeader(http.StatusOK)
	for _, p := range q.Paths {
		if err := t.downloadPart(form, r, p); err != nil {
			panic(http.ErrAbortHandler) // the only way to say so in mid-stream
		}
	}
	return form.Close()
}

func (t *Toolbox) downloadPart(form *multipart.Writer, r *http.Request, path string) error {
	d, err := t.files.Open(path)
	if err != nil {
		return t.errorPart(form, r, path, err)
	}
	defer d.Close()
	part, err := form.CreatePart(textproto.MIMEHeader{
		"Content-Disposition": {disposition("form-data", "file", path)},
		"Content-Type":        {"application/octet-stream"},
		"Content-Length":      {strconv.FormatInt(d.Size, 10)},
	})
	if err != nil {
		return err
	}
	// The length is announced, so a file that grows meanwhile is cut and one
	// that shrinks ends the answer.
	n, err := io.Copy(part, io.LimitReader(d, d.Size))
	if err == nil && n < d.Size {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (t *Toolbox) errorPart(form *multipart.Writer, r *http.Request, path string, err error) error {
	part, perr := form.CreatePart(textproto.MIMEHeader{
		"Content-Disposition": {disposition("form-data", "error", path)},
		"Content-Type":        {"application/json"},
	})
	if perr != nil {
		return perr
	}
	body := t.errorBody(r, err.Error())
	var e *wire.Error
	if errors.As(err, &e) {
		body.StatusCode, body.Code = e.Status, e.Code
	}
	return writePart(part, body)
}
