package toolbox

import (
	"os"
	"strings"
	"testing"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

const (
	certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	roots       = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n"
)

func TestTrust(t *testing.T) {
	b := open(t)
	ctx := t.Context()
	one, all := b.etc+"/atoll/ca.pem", b.etc+"/atoll/ca-bundle.pem"
	show := "echo ${SSL_CERT_FILE-none},${REQUESTS_CA_BUNDLE-none},${NODE_EXTRA_CA_CERTS-none}"
	trust := func(q wire.Trust) {
		t.Helper()
		if err := b.SetTrust(ctx, q); err != nil {
			t.Fatal(err)
		}
	}
	// An image without roots gets those of the call.
	trust(wire.Trust{Certificate: certificate, Roots: roots})
	if got, want := b.run(show), all+","+all+","+one+"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if read(t, one) != certificate || read(t, all) != roots+certificate {
		t.Errorf("got %q and %q", read(t, one), read(t, all))
	}
	if st, err := os.Stat(all); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("got %v, %v", st, err)
	}
	// What the environment names is kept, and comes back.
	own := strings.ReplaceAll(roots, "BBBB", "CCCC")
	write(t, b.etc+"/own.pem", own)
	if err := b.SetEnv(ctx, wire.UpdateEnv{Set: map[string]string{"SSL_CERT_FILE": b.etc + "/own.pem"}}); err != nil {
		t.Fatal(err)
	}
	trust(wire.Trust{Certificate: certificate, Roots: roots})
	if got := read(t, all); got != own+certificate {
		t.Errorf("got %q", got)
	}
	trust(wire.Trust{})
	if got, want := b.run(show), b.etc+"/own.pem,none,none\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := os.Stat(one); !os.IsNotExist(err) {
		t.Errorf("the certificate is still there: %v", err)
	}
	for _, bad := range []string{"x", certificate + certificate, strings.ReplaceAll(certificate, "CERTIFICATE", "PRIVATE KEY")} {
		wantError(t, b.SetTrust(ctx, wire.Trust{Certificate: bad}), 400, wire.CodeBadRequest, "certificate:")
	}
	// A sandbox with another identity trusts what that says.
	trust(wire.Trust{Certificate: certificate, Roots: roots})
	if err := b.SetIdentity(ctx, wire.Identity{SandboxID: "y"}); err != nil {
		t.Fatal(err)
	}
	if got, want := b.run(show), b.etc+"/own.pem,none,none\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
