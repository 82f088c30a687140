package preview

import (
	"embed"
	"html/template"
	"net/http"
	"strings"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/gateway/wire"
)

//go:embed web
var web embed.FS

var errorPage = template.Must(template.ParseFS(web, "web/error.html"))

// fail answers with the error: a page for people, JSON for programs.
func (p *Previews) fail(w http.ResponseWriter, r *http.Request, port int, err error) {
	problem := wire.NewProblem(err)
	problem.Source = wire.SourceProxy
	switch problem.Kind {
	case engine.KindUnavailable:
		problem.StatusCode = http.StatusBadGateway
	case engine.KindExhausted:
		problem.StatusCode = http.StatusTooManyRequests
	}
	problem.Reason = http.StatusText(problem.StatusCode)
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if !wantsPage(r) {
		wire.WriteProblem(w, r, problem)
		return
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(problem.StatusCode)
	e := engine.AsError(err)
	_ = errorPage.Execute(w, map[string]any{
		"Status": problem.StatusCode, "Message": sentence(e.Message), "Hint": sentence(e.Hint), "Port": port,
		"Private": e.Kind == engine.KindUnauthenticated,
	})
}

func wantsPage(r *http.Request) bool {
	return safe(r.Method) && r.Header.Get("Upgrade") == "" && strings.Contains(r.Header.Get("Accept"), "text/html")
}

// sentence makes an error's text one for a page.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
