package preview

import (
	"io/fs"
	"net/http"
	"path"
	"strings"

	"github.com/atoll-sh/atoll/engine"
)

// terminal serves a page with a terminal, and the terminals of the toolbox that
// it talks to; nothing else of the toolbox is at this origin.
func (p *Previews) terminal(w http.ResponseWriter, r *http.Request, at place, v *visit) {
	if under(at.path, "/process/pty") {
		p.talk(w, r, at, v)
		return
	}
	p.page(w, r, at, "terminal.html")
}

// recordings serves a page that lists the recordings of the sandbox's desktop.
func (p *Previews) recordings(w http.ResponseWriter, r *http.Request, at place, v *visit) {
	if under(at.path, "/computeruse/recordings") && (safe(r.Method) || r.Method == http.MethodDelete) {
		p.talk(w, r, at, v)
		return
	}
	p.page(w, r, at, "recordings.html")
}

func under(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// talk passes a call of one of our pages on. A browser must make it from that
// very page, however it proved who it is.
func (p *Previews) talk(w http.ResponseWriter, r *http.Request, at place, v *visit) {
	site := r.Header.Get("Sec-Fetch-Site")
	origin := r.Header.Get("Origin")
	if origin != "" && !strings.EqualFold(strings.TrimPrefix(strings.TrimPrefix(origin, "https://"), "http://"), r.Host) ||
		site == "cross-site" || site == "same-site" {
		p.fail(w, r, at.port, engine.Errorf(engine.KindDenied, "pages of another origin may not use this"))
		return
	}
	p.toolbox(w, r, at.path, v)
}

// page serves one of our own pages and what it is made of. Its addresses are
// relative, so that it works below a path too.
func (p *Previews) page(w http.ResponseWriter, r *http.Request, at place, index string) {
	if !safe(r.Method) {
		p.fail(w, r, at.port, engine.Errorf(engine.KindInvalid, "%s is not possible here", r.Method))
		return
	}
	name := index
	if at.path != "/" {
		name = path.Clean(strings.TrimPrefix(at.path, "/"))
		if !strings.HasPrefix(name, "assets/") {
			p.fail(w, r, at.port, engine.Errorf(engine.KindNotFound, "there is no page %s", at.path))
			return
		}
	}
	root, err := fs.Sub(web, "web")
	if err != nil {
		p.fail(w, r, at.port, err)
		return
	}
	if _, err := fs.Stat(root, name); err != nil {
		p.fail(w, r, at.port, engine.Errorf(engine.KindNotFound, "there is no page %s", at.path))
		return
	}
	h := w.Header()
	// The terminal writes its own style elements; everything else is a file here.
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "+
		"img-src 'self' data:; media-src 'self'; font-src 'self'; connect-src 'self'"+p.socket(r.Host)+"; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache")
	http.ServeFileFS(w, r, root, name)
}

// socket is the source of a page's WebSockets, which older browsers do not take
// 'self' for.
func (p *Previews) socket(host string) string {
	if strings.Trim(strings.ToLower(host), "abcdefghijklmnopqrstuvwxyz0123456789-.:") != "" {
		return ""
	}
	if p.secure {
		return " wss://" + host
	}
	return " ws://" + host
}
