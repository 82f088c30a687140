package gateway

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/oklog/ulid/v2"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/auth"
)

const requestHeader = "X-Request-Id"

// observe names every request, measures it and writes the access log.
func (s *Server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		id := requestID(r)
		r.Header.Set(requestHeader, id)
		w.Header().Set(requestHeader, id)
		rec := &recorder{ResponseWriter: w}
		defer func() {
			took := time.Since(began)
			route := routeOf(r)
			s.metrics.request(r.Method, route, rec.status(), took)
			s.log(r, rec, id, route, took)
		}()
		next.ServeHTTP(rec, r)
	})
}

// requestID takes the caller's name for the request when it is harmless.
func requestID(r *http.Request) string {
	id := r.Header.Get(requestHeader)
	ok := id != "" && len(id) <= 64 && !strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' })
	if ok {
		return id
	}
	return ulid.Make().String()
}

// routeOf names the route with few values, for metrics.
func routeOf(r *http.Request) string {
	pattern := ""
	if rc := chi.RouteContext(r.Context()); rc != nil {
		pattern = strings.TrimSuffix(rc.RoutePattern(), "/*")
	}
	if pattern == "" {
		return "unknown"
	}
	return pattern
}

func (s *Server) log(r *http.Request, rec *recorder, id, route string, took time.Duration) {
	level := slog.LevelInfo
	if quiet(route) && rec.status() < http.StatusInternalServerError {
		level = slog.LevelDebug
	}
	ctx := context.WithoutCancel(r.Context())
	s.config.Log.Log(ctx, level, "request", "request", id, "method", r.Method, "path", loggedPath(r, route),
		"status", rec.status(), "took", took, "bytes", rec.bytes, "remote", auth.RemoteIP(r), "agent", r.UserAgent())
}

// loggedPath is the path without the tokens that some hold.
func loggedPath(r *http.Request, route string) string {
	if strings.Contains(route, "/preview") || strings.Contains(route, "{token}") {
		return route
	}
	return r.URL.Path
}

// quiet routes are called so often that they would hide the rest of the log.
func quiet(route string) bool {
	switch route {
	case "/healthz", "/readyz", "/metrics", "/toolbox", "/api/toolbox", "/preview":
		return true
	}
	return false
}

// recoverPanics answers a panic with the contract's error, so that one bad
// request ends neither the server nor its connection without a word.
func (s *Server) recoverPanics(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler { //nolint:errorlint // the value itself is the signal
				panic(v)
			}
			s.config.Log.ErrorContext(r.Context(), "panic in a request", "request", r.Header.Get(requestHeader),
				"panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			if rec, ok := w.(*recorder); !ok || rec.code == 0 {
				writeError(w, r, engine.Errorf(engine.KindInternal, "internal error"))
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	code  int
	bytes int64
}

// WriteHeader notes the final status.
func (r *recorder) WriteHeader(code int) {
	if r.code == 0 && (code >= 200 || code == http.StatusSwitchingProtocols) {
		r.code = code
	}
	r.ResponseWriter.WriteHeader(code)
}

// Write notes the size.
func (r *recorder) Write(b []byte) (int, error) {
	if r.code == 0 {
		r.code = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// ReadFrom lets large answers go from connection to connection.
func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	if r.code == 0 {
		r.code = http.StatusOK
	}
	n, err := io.Copy(r.ResponseWriter, src)
	r.bytes += n
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) status() int {
	if r.code == 0 {
		return http.StatusOK
	}
	return r.code
}
