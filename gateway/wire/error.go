package wire

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// The values of Problem.Source.
const (
	SourceAPI   = "DAYTONA_API"
	SourceProxy = "DAYTONA_PROXY"
)

// CodeNotBuilt is the Error.Code of an operation that this server does not
// have yet, in contrast to one that a class of sandbox can never have.
const CodeNotBuilt = "NOT_BUILT"

// Problem is the error body of the control API. Kind and Hint are ours: they
// let our own client restore the engine's error.
type Problem struct {
	StatusCode int         `json:"statusCode"`
	Reason     string      `json:"error"`
	Message    string      `json:"message"`
	Path       string      `json:"path"`
	Timestamp  string      `json:"timestamp"`
	Source     string      `json:"source"`
	Code       string      `json:"code,omitempty"`
	Kind       engine.Kind `json:"kind,omitempty"`
	Hint       string      `json:"hint,omitempty"`
}

// Error returns the message for people.
func (p *Problem) Error() string { return p.Message }

// GetStatus returns the HTTP status.
func (p *Problem) GetStatus() int { return p.StatusCode }

// StatusOf maps an error to the HTTP status of the contract. It is the only
// place where kinds become status codes.
func StatusOf(e *engine.Error) int {
	switch e.Kind {
	case engine.KindInvalid, engine.KindExhausted:
		return http.StatusBadRequest
	case engine.KindUnauthenticated:
		return http.StatusUnauthorized
	case engine.KindDenied:
		return http.StatusForbidden
	case engine.KindNotFound:
		return http.StatusNotFound
	case engine.KindConflict:
		return http.StatusConflict
	case engine.KindUnsupported:
		if e.Code == CodeNotBuilt {
			return http.StatusNotImplemented
		}
		return http.StatusUnprocessableEntity
	case engine.KindUnavailable:
		return http.StatusServiceUnavailable
	case engine.KindTimeout:
		return http.StatusGatewayTimeout
	case engine.KindCanceled:
		return StatusClientClosed
	}
	return http.StatusInternalServerError
}

// StatusClientClosed is the status of a request whose caller went away. It is
// seen in logs only.
const StatusClientClosed = 499

// NewProblem makes the body for err. The cause stays out of it.
func NewProblem(err error) *Problem {
	e := engine.AsError(err)
	return &Problem{
		StatusCode: StatusOf(e),
		Reason:     reason(StatusOf(e)),
		Message:    join(e.Message, e.Hint),
		Timestamp:  Time(time.Now()),
		Source:     SourceAPI,
		Code:       e.Code,
		Kind:       e.Kind,
		Hint:       e.Hint,
	}
}

func reason(status int) string {
	if status == StatusClientClosed {
		return "Client Closed Request"
	}
	return http.StatusText(status)
}

const joiner = ": "

func join(message, hint string) string {
	if hint == "" {
		return message
	}
	return message + joiner + hint
}

// Err returns the engine's error that p was made of, as far as it tells.
func (p *Problem) Err() *engine.Error {
	return &engine.Error{
		Kind:    p.kind(),
		Message: strings.TrimSuffix(p.Message, joiner+p.Hint),
		Hint:    p.Hint,
		Code:    p.Code,
	}
}

func (p *Problem) kind() engine.Kind {
	if p.Kind != "" {
		return p.Kind
	}
	return kindOfStatus(p.StatusCode)
}

func kindOfStatus(status int) engine.Kind {
	switch status {
	case http.StatusUnauthorized:
		return engine.KindUnauthenticated
	case http.StatusForbidden:
		return engine.KindDenied
	case http.StatusNotFound, http.StatusGone:
		return engine.KindNotFound
	case http.StatusConflict:
		return engine.KindConflict
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return engine.KindTimeout
	case http.StatusUnprocessableEntity, http.StatusNotImplemented:
		return engine.KindUnsupported
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return engine.KindUnavailable
	case http.StatusTooManyRequests:
		return engine.KindExhausted
	}
	if status >= 500 {
		return engine.KindInternal
	}
	return engine.KindInvalid
}

// ParseProblem reads an error body of the control API or of a toolbox. A body
// of another shape becomes the message.
func ParseProblem(status int, body []byte) *engine.Error {
	p := Problem{StatusCode: status}
	if json.Unmarshal(body, &p) != nil || p.Message == "" {
		p = Problem{StatusCode: status, Message: plain(status, body)}
	}
	p.StatusCode = status
	return p.Err()
}

func plain(status int, body []byte) string {
	text := strings.TrimSpace(string(body))
	if text == "" || len(text) > 500 {
		return "the server answered " + reason(status)
	}
	return text
}
