package preview

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/atoll-sh/atoll/engine"
)

// Sign returns the signature of a URL for one file: method and path as they
// are sent, and the time in Unix seconds after which it is worthless, 0 for
// never.
func Sign(key, method, path string, expires int64) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte("v1:files:" + method + ":" + path + ":" + strconv.FormatInt(expires, 10)))
	return "v1_" + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// Files lets requests for one file pass to the toolbox that have a signature
// instead of a key: downloads and uploads, and nothing else. All others go on.
func (p *Previews) Files(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, path, ok := signedPath(r)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		v, file, err := p.verify(r, id)
		if err != nil {
			p.refuse(w, r, target{}, err)
			return
		}
		ctx, done := p.live.add(r.Context(), v.access.Token)
		defer done()
		r.URL.RawQuery = url.Values{"path": {file}}.Encode() // what was signed and nothing else
		p.toolbox(w, r.WithContext(ctx), path, v)
	})
}

// signedPath tells whether a request claims to be signed, and which sandbox
// and which of the toolbox's paths it is for.
func signedPath(r *http.Request) (id, path string, ok bool) {
	rest, below := strings.CutPrefix(r.URL.EscapedPath(), "/toolbox/")
	id, path, _ = strings.Cut(rest, "/")
	path = "/" + path
	fits := r.Method == http.MethodGet && path == "/files/download" || r.Method == http.MethodPost && path == "/files/upload-v2"
	return id, path, below && fits && r.Header.Get("Authorization") == "" && r.URL.Query().Has("signature")
}

func (p *Previews) verify(r *http.Request, id string) (*visit, string, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || len(q["path"]) != 1 || len(q["expires"]) != 1 || len(q["signature"]) != 1 || !plain(id) {
		return nil, "", engine.Errorf(engine.KindInvalid, "a signed URL has one path, one expires and one signature, and the sandbox's id")
	}
	file, stamp := q.Get("path"), q.Get("expires")
	expires, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || expires < 0 || strconv.FormatInt(expires, 10) != stamp {
		return nil, "", engine.Errorf(engine.KindInvalid, "expires: %.40q is no time in Unix seconds", stamp)
	}
	access, err := p.links.AccessByID(r.Context(), id)
	if engine.KindOf(err) == engine.KindNotFound {
		return nil, "", badSignature() // no word on which sandboxes are there
	}
	if err != nil {
		return nil, "", err
	}
	if !same(q.Get("signature"), Sign(access.SigningKey, r.Method, file, expires)) {
		return nil, "", badSignature()
	}
	if expires != 0 && p.now().Unix() >= expires {
		return nil, "", engine.Errorf(engine.KindUnauthenticated, "this signed URL has expired").WithHint("ask for a new one")
	}
	return &visit{access: access}, file, nil
}

func badSignature() error {
	return engine.Errorf(engine.KindUnauthenticated, "the signature does not fit this URL").
		WithHint("the key may have been changed since; sign it again")
}
