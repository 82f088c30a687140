package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// endless is a toolbox that was replaced by somebody hostile.
type endless struct {
	status int
	header http.Header
	read   int
	calls  int
}

func (e *endless) RoundTrip(*http.Request) (*http.Response, error) {
	e.calls++
	body := io.MultiReader(strings.NewReader(`{"version":"`), e)
	return &http.Response{StatusCode: e.status, Header: e.header, Body: io.NopCloser(body)}, nil
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	e.read += len(p)
	return len(p), nil
}

// The server asks every toolbox for its status, all at once. Eighteen hostile
// ones once made it read two gigabytes.
func TestInternalAnswersAreSmall(t *testing.T) {
	for _, status := range []int{http.StatusOK, http.StatusInternalServerError} {
		e := &endless{status: status}
		if _, err := New(e).Status(context.Background()); err == nil {
			t.Errorf("%d: got no error", status)
		}
		if most := 2 * maxInternal; e.read > most {
			t.Errorf("%d: read %d bytes, want at most %d", status, e.read, most)
		}
	}
}

func TestRedirectsAreErrors(t *testing.T) {
	e := &endless{status: http.StatusTemporaryRedirect, header: http.Header{"Location": {"http://198.51.100.1/"}}}
	_, err := New(e).Status(context.Background())
	var got *wire.Error
	if !errors.As(err, &got) || got.Status != e.status || e.calls != 1 {
		t.Errorf("got %v after %d calls, want status %d after one", err, e.calls, e.status)
	}
}
