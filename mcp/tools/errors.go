package tools

import (
	"context"
	"fmt"
	"strings"

	"github.com/atoll-sh/atoll/engine"
)

// explain turns an error into a result. What engine errors hide stays hidden.
func explain(err error, a Args) Result {
	e := engine.AsError(boxError(err, a.Str("id")))
	text := strings.TrimSuffix(e.Message, ".") + "."
	if hint := nextCall(e, a); hint != "" {
		text += " " + sentence(hint)
	}
	return Result{
		Text:    text,
		IsError: true,
		Meta:    map[string]any{metaError: map[string]any{"kind": string(e.Kind), "code": e.Code}},
	}
}

// sentence begins with a capital letter, unless with the name of a tool, and
// ends with a stop.
func sentence(s string) string {
	if s == "" {
		return "Failed."
	}
	if last := s[len(s)-1]; last != '.' && last != '?' && last != '!' {
		s += "."
	}
	if first, _, _ := strings.Cut(s, " "); strings.Contains(first, "_") {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// nextCall is what a model should do next: the error's own hint, or the usual
// way out of its kind.
func nextCall(e *engine.Error, a Args) string {
	if e.Code != "" {
		return e.Hint
	}
	id := a.Str("id")
	switch e.Kind {
	case engine.KindNotFound:
		if id != "" {
			return "It may have been deleted or have expired: call sandbox_list to see what exists, or sandbox_create"
		}
	case engine.KindConflict:
		switch {
		case id != "" && strings.Contains(e.Message, string(engine.StateStopped)):
			return fmt.Sprintf(`Start it with sandbox_control {"id":%q,"action":"start"}`, id)
		case e.Hint == "":
			return "Repeat the call in a moment"
		}
	case engine.KindUnavailable, engine.KindTimeout:
		return join(e.Hint, "Repeating the call may help")
	case engine.KindCanceled:
		return ""
	}
	return e.Hint
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return sentence(a) + " " + b
}

// codeArgument marks errors of the tools themselves, whose hint is complete.
const codeArgument = "ARGUMENT"

// invalid makes an error about an argument: what is wrong, and the fix.
func invalid(fix, format string, args ...any) error {
	e := engine.Errorf(engine.KindInvalid, format, args...)
	e.Code, e.Hint = codeArgument, fix
	return e
}

// unsupported makes an error about something that this server does not do,
// with the alternative.
func unsupported(instead, format string, args ...any) error {
	e := engine.Errorf(engine.KindUnsupported, format, args...)
	e.Code, e.Hint = codeArgument, instead
	return e
}

// canceled tells whether the caller went away, so that nothing more is to do.
func canceled(ctx context.Context) bool { return ctx.Err() != nil }
