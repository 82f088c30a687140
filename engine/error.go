package engine

import (
	"context"
	"errors"
	"fmt"
)

// Kind classifies an Error for machines. Each edge (HTTP, MCP, CLI) maps kinds
// to its own codes in exactly one place.
type Kind string

// The kinds of errors.
const (
	KindInvalid         Kind = "invalid"         // the request is wrong; retrying it unchanged fails again
	KindNotFound        Kind = "not_found"       // the named object does not exist for this caller
	KindConflict        Kind = "conflict"        // the name is taken, or a state change is under way
	KindDenied          Kind = "denied"          // the caller or a policy forbids it
	KindExhausted       Kind = "exhausted"       // a quota or the host's capacity is used up
	KindUnsupported     Kind = "unsupported"     // this class, runtime or host cannot do it
	KindUnavailable     Kind = "unavailable"     // a part is down or starting; retrying may help
	KindCanceled        Kind = "canceled"        // the caller went away
	KindTimeout         Kind = "timeout"         // a limit of time ran out
	KindInternal        Kind = "internal"        // a fault of ours; Err has the cause
	KindUnauthenticated Kind = "unauthenticated" // no key, or one that is unknown, expired or revoked
)

// Error is the one error type that crosses package borders. Message and Hint
// may be shown to anybody; Err is for the log only and may hold paths.
type Error struct {
	Kind    Kind
	Message string // what is wrong, naming the field or object
	Hint    string // what the user can do about it; may be empty
	Code    string // optional machine code of the wire contract, as FILE_NOT_FOUND
	Err     error  // the cause, for the log; may be nil
}

// Error returns the message, and the cause when there is one.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// WithHint returns a copy of e with the given hint.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// Wrap returns a copy of e with err as its cause.
func (e *Error) Wrap(err error) *Error {
	c := *e
	c.Err = err
	return &c
}

// Errorf makes an Error of the given kind. The text is shown to users, so it
// names the field or object and holds no host paths; attach causes with Wrap.
func Errorf(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Message: fmt.Sprintf(format, args...)}
}

// KindOf returns the kind of the first Error in err's tree. Context errors
// count as canceled and timeout, nil as "", anything else as internal.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, context.Canceled):
		return KindCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return KindTimeout
	}
	return KindInternal
}

// AsError returns the first Error in err's tree, or an internal one that wraps
// err without showing its text.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	switch k := KindOf(err); k {
	case KindCanceled:
		return &Error{Kind: k, Message: "the request was canceled", Err: err}
	case KindTimeout:
		return &Error{Kind: k, Message: "the request took too long", Err: err}
	}
	return &Error{Kind: KindInternal, Message: "internal error", Hint: "see the server's log", Err: err}
}
