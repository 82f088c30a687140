package tools

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// maxRead is the largest file that is read as a whole.
const maxRead = 16 << 20

// maxImage is the largest picture that is shown.
const maxImage = 4 << 20

func (k *kit) fileTools() []Tool {
	return []Tool{
		{
			Name: "sandbox_read", Set: SetCore, Title: "Read file",
			Description: "Read a text file or view an image. Page long files with offset/limit (lines).",
			Schema:      `{"type":"object","properties":{"id":{"type":"string"},"path":{"type":"string"},"offset":{"type":"integer","minimum":0},"limit":{"type":"integer","minimum":1,"description":"default 400"}},"required":["id","path"],"additionalProperties":false}`,
			Hints:       Hints{ReadOnly: true, Idempotent: true}, Handler: k.read,
		},
		{
			Name: "sandbox_write", Set: SetCore, Title: "Write file",
			Description: "Write a file, creating parent directories.",
			Schema:      `{"type":"object","properties":{"id":{"type":"string"},"path":{"type":"string"},"content":{"type":"string"},"encoding":{"type":"string","enum":["utf-8","base64"]},"append":{"type":"boolean"},"mode":{"type":"string"}},"required":["id","path","content"],"additionalProperties":false}`,
			Hints:       Hints{Destructive: true, Idempotent: true}, Handler: k.write,
		},
		{
			Name: "sandbox_edit", Set: SetCore, Title: "Edit file",
			Description: "Replace exact text in a file; old must match once unless all is set.",
			Schema:      `{"type":"object","properties":{"id":{"type":"string"},"path":{"type":"string"},"old":{"type":"string"},"new":{"type":"string"},"all":{"type":"boolean"}},"required":["id","path","old","new"],"additionalProperties":false}`,
			Hints:       Hints{Destructive: true}, Handler: k.edit,
		},
		{
			Name: "sandbox_find", Set: SetCore, Title: "Find files",
			Description: "List a directory, or search below it by glob and/or by regex in contents.",
			Schema:      `{"type":"object","properties":{"id":{"type":"string"},"path":{"type":"string"},"glob":{"type":"string"},"grep":{"type":"string"},"depth":{"type":"integer","minimum":1},"cursor":{"type":"string"}},"required":["id"],"additionalProperties":false}`,
			Hints:       Hints{ReadOnly: true, Idempotent: true}, Handler: k.find,
		},
		{
			Name: "sandbox_fs", Set: SetCore, Title: "Move, copy, delete",
			Description: "Make, move, copy or delete files and directories.",
			Schema:      `{"type":"object","properties":{"id":{"type":"string"},"op":{"type":"string","enum":["mkdir","move","copy","delete","chmod"]},"path":{"type":"string"},"to":{"type":"string"},"mode":{"type":"string"}},"required":["id","op","path"],"additionalProperties":false}`,
			Hints:       Hints{Destructive: true}, Handler: k.fs,
		},
	}
}

// target opens the sandbox and resolves the argument path.
func (k *kit) target(ctx context.Context, a Args) (*box, string, error) {
	if a.Str("path") == "" {
		return nil, "", invalid(`As {"path":"src/main.py"}, relative to the working directory, or absolute`, `"path" is empty`)
	}
	b, err := k.box(ctx, a)
	if err != nil {
		return nil, "", err
	}
	path, err := b.path(ctx, a.Str("path"))
	return b, path, err
}

// noFile adds the way to look around to an error about a missing file.
func noFile(err error, a Args) error {
	if code := codeOf(err); code != wire.CodeFileNotFound && code != wire.CodeNotFound {
		return err
	}
	return noSuchFile(a)
}

// badPath adds the way to look around to an error about the argument path.
func badPath(err error, a Args) error {
	var e *wire.Error
	if !errors.As(err, &e) || e.Source != wire.Source || e.Status >= http.StatusInternalServerError {
		return err
	}
	switch e.Code {
	case wire.CodeFileNotFound, wire.CodeNotFound:
		return noSuchFile(a)
	case wire.CodeDiskFull, wire.CodeTooMany:
		return err
	}
	return invalid(fmt.Sprintf(`Look around with sandbox_find {"id":%q}`, a.Str("id")), `"path" cannot be used: %s`, firstLine(strings.TrimSuffix(e.Message, ".")))
}

func noSuchFile(a Args) error {
	return invalid(fmt.Sprintf(`sandbox_find {"id":%q} lists the working directory`, a.Str("id")), "there is no %s in the sandbox", quote(a.Str("path")))
}

// load reads a regular file of a size that fits.
func (b *box) load(ctx context.Context, a Args, path string) (content []byte, mode string, err error) {
	info, err := b.Info(ctx, path)
	if err != nil {
		return nil, "", noFile(err, a)
	}
	if info.IsDir {
		return nil, "", invalid(fmt.Sprintf(`List it with sandbox_find {"id":%q,"path":%q}`, a.Str("id"), a.Str("path")), "%s is a directory", quote(a.Str("path")))
	}
	if info.Size > maxRead {
		return nil, "", invalid("Look at parts of it with sandbox_exec and head, tail or sed -n", "%s has %s, too much to read whole", quote(a.Str("path")), size(info.Size))
	}
	content, err = b.download(ctx, path, maxRead)
	return content, info.Permissions, noFile(err, a)
}

func (k *kit) read(ctx context.Context, a Args) (Result, error) {
	b, path, err := k.target(ctx, a)
	if err != nil {
		return Result{}, err
	}
	content, _, err := b.load(ctx, a, path)
	if err != nil {
		return Result{}, err
	}
	if r, shown := notText(path, content); shown {
		return r, nil
	}
	return page(path, content, max(1, a.Int("offset", 1)), a.Int("limit", 400)), nil
}

// notText shows a picture, or says what other file it is. It reports false for
// a text.
func notText(path string, content []byte) (Result, bool) {
	kind := http.DetectContentType(content)
	switch {
	case strings.HasPrefix(kind, "image/") && len(content) <= maxImage:
		r := Text("%s · %s · %s", path, kind, size(int64(len(content))))
		r.Images = []Image{{MIME: kind, Base64: base64.StdEncoding.EncodeToString(content)}}
		return r, true
	case bytes.IndexByte(content[:min(len(content), 8000)], 0) >= 0:
		return Text("%s · %s · binary (%s). Look into it with sandbox_exec, as xxd %s | head.", path, size(int64(len(content))), kind, shellQuote(path)), true
	}
	return Result{}, false
}

// page shows limit lines from line first on, as many as fit.
func page(path string, content []byte, first, limit int) Result {
	lines := strings.SplitAfter(printable(content), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	total := len(lines)
	if total == 0 {
		return Text("%s · empty", path)
	}
	if first > total {
		return Fail("%s has %d lines; offset %d is behind its end.", path, total, first)
	}
	var b strings.Builder
	last := first - 1
	for last < total && last-first+1 < limit {
		line := lines[last]
		if len(line) > 2000 {
			line = clip(strings.TrimRight(line, "\n"), 2000, "the line is long") + "\n"
		}
		if b.Len()+len(line) > maxText-300 {
			break
		}
		b.WriteString(line)
		last++
	}
	status := fmt.Sprintf("%s · lines %d-%d of %d", path, first, last, total)
	if last < total {
		status += fmt.Sprintf(`; go on with "offset":%d`, last+1)
	}
	r := Text("%s\n%s", status, b.String())
	r.Meta = map[string]any{metaFile: map[string]any{"path": path, "lines": total, "bytes": len(content)}}
	return r
}

var octal = regexp.MustCompile(`^0?[0-7]{3,4}$`)

func checkMode(a Args) error {
	if a.Has("mode") && !octal.MatchString(a.Str("mode")) {
		return invalid(`As {"mode":"755"}`, `"mode" must be octal digits, not %s`, quote(a.Str("mode")))
	}
	return nil
}

func (k *kit) write(ctx context.Context, a Args) (Result, error) {
	content := []byte(a.Str("content"))
	if a.Str("encoding") == "base64" {
		var err error
		if content, err = base64.StdEncoding.DecodeString(a.Str("content")); err != nil {
			return Result{}, invalid("Send standard base64 with padding, or leave encoding out for text", `"content" is not base64: %v`, err)
		}
	}
	if err := checkMode(a); err != nil {
		return Result{}, err
	}
	b, path, err := k.target(ctx, a)
	if err != nil {
		return Result{}, err
	}
	if a.Bool("append") {
		err = b.appendFile(ctx, path, content)
	} else {
		err = b.upload(ctx, path, content)
	}
	if err != nil {
		return Result{}, badPath(err, a)
	}
	if a.Has("mode") {
		if err := b.chmod(ctx, path, a.Str("mode")); err != nil {
			return Result{}, err
		}
	}
	verb := "Wrote"
	if a.Bool("append") {
		verb = "Appended"
	}
	return Text("%s %d bytes to %s.", verb, len(content), path), nil
}

// appendFile adds to a file with the sandbox's own shell, so that others who
// append at the same time lose nothing.
func (b *box) appendFile(ctx context.Context, path string, content []byte) error {
	part := "/tmp/.atoll-append-" + newID("")
	if err := b.upload(ctx, part, content); err != nil {
		return err
	}
	p := shellQuote(path)
	out, err := b.execute(ctx, fmt.Sprintf(`mkdir -p -- "$(dirname -- %s)" && cat %s >> %s; r=$?; rm -f %s; exit $r`, p, part, p, part), 30)
	if err != nil {
		return err
	}
	if out.ExitCode != 0 {
		return invalid("Check the path with sandbox_find", "appending failed: %s", strings.TrimSpace(clip(printable([]byte(out.Result)), 300, "cut")))
	}
	return nil
}

func (k *kit) edit(ctx context.Context, a Args) (Result, error) {
	before, after := a.Str("old"), a.Str("new")
	switch {
	case before == "":
		return Result{}, invalid("Give the exact text to replace; sandbox_write makes new files", `"old" is empty`)
	case before == after:
		return Result{}, invalid("Nothing would change", `"old" and "new" are the same`)
	}
	b, path, err := k.target(ctx, a)
	if err != nil {
		return Result{}, err
	}
	raw, mode, err := b.load(ctx, a, path)
	if err != nil {
		return Result{}, err
	}
	content := string(raw)
	n := strings.Count(content, before)
	if n == 0 && strings.Contains(content, "\r\n") && !strings.Contains(before, "\r") {
		crlf := strings.NewReplacer("\n", "\r\n")
		before, after = crlf.Replace(before), crlf.Replace(after)
		n = strings.Count(content, before)
	}
	switch {
	case n == 0:
		return Result{}, invalid(closest(content, a.Str("old")), `"old" does not occur in %s`, path)
	case n > 1 && !a.Bool("all"):
		return Result{}, invalid(`Add lines around it to make it unique, or set "all":true`, `"old" occurs %d times in %s (lines %s)`, n, path, places(content, before))
	}
	edited := strings.ReplaceAll(content, before, after)
	if err := b.upload(ctx, path, []byte(edited)); err != nil {
		return Result{}, err
	}
	if octal.MatchString(mode) && strings.TrimLeft(mode, "0") != "644" {
		if err := b.chmod(ctx, path, mode); err != nil {
			return Result{}, err
		}
	}
	status := fmt.Sprintf("Replaced %d in %s\n", n, path)
	return Text("%s%s", status, clip(printable([]byte(diff(content, before, after))), maxText-len(status), "the change is long")), nil
}

// closest helps when a text was not found: most often only blanks differ.
func closest(content, old string) string {
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	first := ""
	for line := range strings.Lines(old) {
		if first = squeeze(line); first != "" {
			break
		}
	}
	if first != "" {
		n := 0
		for line := range strings.Lines(content) {
			n++
			if squeeze(line) == first {
				return fmt.Sprintf("Line %d is the same but for blanks or what follows; copy the text exactly as sandbox_read shows it", n)
			}
		}
	}
	return "Read the file again with sandbox_read and copy the text exactly"
}

// places lists the lines where text begins, the first few.
func places(content, text string) string {
	var lines []string
	line, at := 1, 0
	for len(lines) < 6 {
		i := strings.Index(content[at:], text)
		if i < 0 {
			return strings.Join(lines, ", ")
		}
		line += strings.Count(content[at:at+i], "\n")
		lines = append(lines, fmt.Sprint(line))
		line += strings.Count(text, "\n")
		at += i + len(text)
	}
	return strings.Join(lines[:5], ", ") + ", …"
}

// diff shows the first replacement as a unified hunk with two lines around it.
func diff(content, before, after string) string {
	at := strings.Index(content, before)
	start := strings.LastIndexByte(content[:at], '\n') + 1
	end := at + len(before)
	if i := strings.IndexByte(content[end:], '\n'); i >= 0 {
		end += i
	} else {
		end = len(content)
	}
	removed := content[start:end]
	added := strings.Replace(removed, before, after, 1)
	var b strings.Builder
	fmt.Fprintf(&b, "@@ line %d @@\n", strings.Count(content[:start], "\n")+1)
	prefix := func(mark, text string) {
		for line := range strings.Lines(text) {
			b.WriteString(mark + strings.TrimRight(line, "\r\n") + "\n")
		}
	}
	prefix(" ", lastLines(content[:start], 2))
	prefix("-", removed)
	prefix("+", added)
	prefix(" ", firstLines(strings.TrimPrefix(content[end:], "\n"), 2))
	return strings.TrimRight(b.String(), "\n")
}

func firstLines(s string, n int) string {
	at := 0
	for range n {
		i := strings.IndexByte(s[at:], '\n')
		if i < 0 {
			return s
		}
		at += i + 1
	}
	return s[:at]
}

func lastLines(s string, n int) string {
	at := len(s)
	for i := 0; i <= n && at > 0; i++ {
		at = strings.LastIndexByte(s[:at], '\n')
		if at < 0 {
			return s
		}
	}
	return s[min(len(s), at+1):]
}

func (k *kit) fs(ctx context.Context, a Args) (Result, error) {
	op := a.Str("op")
	needsTo := op == "move" || op == "copy"
	switch {
	case needsTo && a.Str("to") == "":
		return Result{}, invalid(`As {"to":"new/name"}`, `"to" is missing for op %s`, op)
	case !needsTo && a.Has("to"):
		return Result{}, invalid("Leave it out", `"to" has no meaning for op %s`, op)
	case op == "chmod" && !a.Has("mode"):
		return Result{}, invalid(`As {"mode":"755"}`, `"mode" is missing for op chmod`)
	}
	if err := checkMode(a); err != nil {
		return Result{}, err
	}
	b, path, err := k.target(ctx, a)
	if err != nil {
		return Result{}, err
	}
	to := ""
	if needsTo {
		if to, err = b.path(ctx, a.Str("to")); err != nil {
			return Result{}, err
		}
	}
	if err := b.fileOp(ctx, a, op, path, to); err != nil {
		return Result{}, badPath(err, a)
	}
	done := map[string]string{"mkdir": "Made ", "move": "Moved ", "copy": "Copied ", "delete": "Deleted ", "chmod": "Changed the mode of "}[op] + path
	if to != "" {
		done += " to " + to
	}
	return Text("%s.", done), nil
}

func (b *box) fileOp(ctx context.Context, a Args, op, path, to string) error {
	mode := a.Str("mode")
	switch op {
	case "mkdir":
		if mode == "" {
			mode = "755"
		}
		return b.Mkdir(ctx, path, mode)
	case "move":
		return b.Move(ctx, path, to)
	case "delete":
		return b.Delete(ctx, path, true)
	case "chmod":
		return b.chmod(ctx, path, mode)
	}
	out, err := b.execute(ctx, fmt.Sprintf(`mkdir -p -- "$(dirname -- %s)" && cp -a -- %s %s`, shellQuote(to), shellQuote(path), shellQuote(to)), 120)
	if err == nil && out.ExitCode != 0 {
		err = invalid(`Check "path" and "to" with sandbox_find`, "copying failed: %s", firstLine(printable([]byte(out.Result))))
	}
	return err
}
