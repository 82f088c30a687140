package tools

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// newContext asks sandbox_code for an interpreter of its own.
const newContext = "new"

func (k *kit) codeTools() []Tool {
	return []Tool{{
		Name: "sandbox_code", Set: SetCode, Title: "Run code",
		Description: "Run a program; plots come back as images. With context, Python keeps its variables between calls: new makes one, end deletes it.",
		Schema:      `{"type":"object","properties":{"id":{"type":"string"},"code":{"type":"string"},"language":{"type":"string","enum":["python","javascript","typescript"]},"context":{"type":"string"},"end":{"type":"boolean"},"timeout_s":{"type":"integer","minimum":1,"maximum":600}},"required":["id","code"],"additionalProperties":false}`,
		Hints:       Hints{Destructive: true, OpenWorld: true}, Handler: k.code,
	}}
}

// code runs a program: in an interpreter that goes on living when a context is
// named, else in a process of its own.
func (k *kit) code(ctx context.Context, a Args) (Result, error) {
	language := a.Str("language")
	if language == "" {
		language = "python"
	}
	switch {
	case a.Bool("end") && (a.Str("context") == "" || a.Str("context") == newContext || a.Str("context") == "default"):
		return Result{}, invalid("Name the one to delete, as new gave it; the default one stays", `"end" needs "context"`)
	case strings.TrimSpace(a.Str("code")) == "" && !a.Bool("end"):
		return Result{}, invalid(`As {"code":"print(6*7)"}`, `"code" is empty`)
	case language != "python" && a.Str("context") != "":
		return Result{}, invalid("Leave it out; each program of this language runs fresh", `"context" is for python, not %s`, language)
	}
	b, err := k.box(ctx, a)
	if err != nil {
		return Result{}, err
	}
	if a.Str("context") != "" {
		return b.interpret(ctx, a)
	}
	began := time.Now()
	out, err := b.CodeRun(ctx, wire.CodeRunRequest{Code: a.Str("code"), Language: language, Timeout: a.Int("timeout_s", 0)})
	if err != nil {
		return Result{}, codeError(err, a)
	}
	r := codeText(fmt.Sprintf("exit %d · %s", out.ExitCode, seconds(time.Since(began))), printable([]byte(out.Result)))
	left := maxImage
	for _, c := range out.Artifacts.Charts {
		if left -= len(c.PNG); c.PNG != "" && left >= 0 {
			r.Images = append(r.Images, Image{MIME: "image/png", Base64: c.PNG})
		}
	}
	r.Meta = map[string]any{metaExec: map[string]any{"exitCode": out.ExitCode, "ms": time.Since(began).Milliseconds()}}
	return r, nil
}

// interpret runs Python where its variables stay, and deletes the context when
// that is asked for. One that was made for a program that never ran is deleted.
func (b *box) interpret(ctx context.Context, a Args) (Result, error) {
	id := a.Str("context")
	if id == newContext {
		c, err := b.CreateContext(ctx, wire.CreateContext{})
		if err != nil {
			return Result{}, err
		}
		id = c.ID
	}
	began := time.Now()
	status, text, err := b.converse(ctx, a, id)
	if err != nil {
		if a.Str("context") == newContext {
			_ = b.DeleteContext(context.WithoutCancel(ctx), id)
		}
		return Result{}, err
	}
	status += " · " + seconds(time.Since(began))
	switch {
	case a.Str("context") == newContext:
		status += fmt.Sprintf(` · go on with "context":%q`, id)
	case a.Bool("end"):
		if err := b.DeleteContext(ctx, id); err != nil {
			return Result{}, noContext(err, a)
		}
		status += " · context deleted"
	}
	r := codeText(status, text)
	r.Meta = map[string]any{metaExec: map[string]any{"context": id, "ms": time.Since(began).Milliseconds()}}
	return r, nil
}

// converse runs the program and returns how it ended and what it printed.
func (b *box) converse(ctx context.Context, a Args, id string) (status, text string, err error) {
	status = "ok"
	if strings.TrimSpace(a.Str("code")) == "" {
		return status, "", nil
	}
	q := wire.InterpreterExecute{Code: a.Str("code"), ContextID: id}
	if a.Has("timeout_s") {
		limit := a.Num("timeout_s")
		q.Timeout = &limit
	}
	var out capture
	end, err := b.Interpret(ctx, q, func(c wire.InterpreterChunk) error {
		if c.Type == wire.ChunkError {
			status = "raised " + c.Name
			c.Text = c.Traceback
		}
		out.write([]byte(c.Text))
		return nil
	})
	switch {
	case err != nil:
		return "", "", codeError(noContext(err, a), a)
	case end == wire.Interrupted:
		status = "interrupted"
	}
	return status, out.text(maxText-200, moreOutput), nil
}

const moreOutput = "write it to a file and read that with sandbox_read"

func codeText(status, text string) Result {
	r := Text("%s\n%s", status, clip(text, maxText-len(status)-1, moreOutput))
	r.Text = strings.TrimRight(r.Text, "\n")
	return r
}

// streamCode is the code of an error that the interpreter's stream ended with.
// Unlike answers, such errors do not say that they are the toolbox's.
func streamCode(err error) wire.Code {
	var e *wire.Error
	if errors.As(err, &e) && (e.Source == "" || e.Source == wire.Source) {
		return e.Code
	}
	return ""
}

// codeError tells of a program that ran out of time.
func codeError(err error, a Args) error {
	switch streamCode(err) {
	case wire.CodeExecTimeout, wire.CodeTimeout:
		return invalid(`Raise it, or run it with sandbox_exec and "background":true`, `the program was ended after "timeout_s" (%d)`, a.Int("timeout_s", 600))
	}
	return err
}

// noContext tells of a context that is not there, or not any more. The stream
// closes with one code for all that is wrong with a request, so for an unknown
// one the reason has to tell.
func noContext(err error, a Args) error {
	code := streamCode(err)
	if code == wire.CodeBadRequest && strings.Contains(err.Error(), "interpreter context") {
		code = wire.CodeNotFound
	}
	switch code {
	case wire.CodeNotFound, wire.CodeSessionEnded, wire.CodeGone:
		return invalid(`Make one with "context":"new"; a restart of the sandbox ends them all`, `there is no "context" %s`, quote(a.Str("context")))
	}
	return err
}
