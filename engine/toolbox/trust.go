package toolbox

import (
	"bytes"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// rootFiles are where images keep the certificates that they trust.
var rootFiles = []string{
	"ssl/certs/ca-certificates.crt", "pki/tls/certs/ca-bundle.crt", "ssl/ca-bundle.pem",
	"pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "ssl/cert.pem",
}

const maxRoots = 8 << 20

// setTrust is a call of trust.
func (t *Toolbox) setTrust(w http.ResponseWriter, r *http.Request) error {
	var q wire.Trust
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	if err := t.trust(q); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// trust makes processes that start later trust one more certificate, beside
// what the image trusts, or no longer. The usual libraries are told by
// variables; one that a single command is given goes before them.
func (t *Toolbox) trust(q wire.Trust) error {
	dir := filepath.Join(t.config.EtcDir, "atoll")
	one, all := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca-bundle.pem")
	if q.Certificate == "" {
		t.runner.SetTrust(nil)
		for _, name := range []string{one, all} {
			if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.log.Warn("a certificate that nothing uses stays", "file", name, "err", err)
			}
		}
		return nil
	}
	if block, rest := pem.Decode([]byte(q.Certificate)); block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return wire.BadRequest("certificate: it is not one certificate in PEM")
	}
	roots := t.roots()
	if roots == nil {
		roots = []byte(q.Roots)
	}
	bundle := append(append(bytes.TrimSpace(roots), '\n'), q.Certificate...)
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // every user's processes read it
		return err
	}
	if err := errors.Join(replaceFile(one, []byte(q.Certificate)), replaceFile(all, bundle)); err != nil {
		return err
	}
	env := map[string]string{"NODE_EXTRA_CA_CERTS": one}
	for _, name := range []string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "AWS_CA_BUNDLE"} {
		env[name] = all
	}
	t.runner.SetTrust(env)
	return nil
}

// roots is what processes trusted so far: the file that the environment names,
// or the image's. Nil when there is none.
func (t *Toolbox) roots() []byte {
	files := []string{t.runner.Variable("SSL_CERT_FILE")}
	for _, f := range rootFiles {
		files = append(files, filepath.Join(t.config.EtcDir, f))
	}
	for _, name := range files {
		if b := readRoots(name); b != nil {
			return b
		}
	}
	return nil
}

func readRoots(name string) []byte {
	if st, err := os.Stat(name); err != nil || !st.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRoots))
	if err != nil || !bytes.Contains(b, []byte("-----BEGIN CERTIFICATE-----")) {
		return nil
	}
	return b
}

// replaceFile writes a file that every user may read, whole or not at all.
func replaceFile(name string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".ca-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
