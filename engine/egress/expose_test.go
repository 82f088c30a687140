package egress

import (
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/secret"
)

// trickle is a connection that reads a text in pieces.
type trickle struct {
	net.Conn
	drops
}

func (p *trickle) Read(b []byte) (int, error) { return p.drops.Read(b) }

func TestPlaceholders(t *testing.T) {
	other := secret.Placeholder("22222222-aaaa-4222-8222-222222222222")
	for _, c := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{"nothing of the kind", nil},
		{holder, []string{holder}},
		{"a " + holder + "\r\n" + other + holder, []string{holder, other, holder}},
		{secret.PlaceholderPrefix + holder, []string{holder}},
		{holder[:len(holder)-1], nil},
		{strings.ReplaceAll(holder, "1", "z"), nil},
	} {
		for step := 1; step < 60; step += 7 {
			var got []string
			l := &looked{Conn: &trickle{drops: drops{[]byte(c.text), step}}, found: func(p string) { got = append(got, p) }}
			b, err := io.ReadAll(l)
			if err != nil || string(b) != c.text || !slices.Equal(got, c.want) {
				t.Errorf("%q in steps of %d: read %q, found %q, want %q (%v)", c.text, step, b, got, c.want, err)
			}
		}
	}
}

func FuzzPlaceholders(f *testing.F) {
	f.Add([]byte("x"+holder+"y"), uint8(4))
	f.Add([]byte(secret.PlaceholderPrefix), uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		var whole, parts []string
		placeholders(in, func(p string) { whole = append(whole, p) })
		l := &looked{Conn: &trickle{drops: drops{in, int(step%9) + 1}}, found: func(p string) { parts = append(parts, p) }}
		if b, err := io.ReadAll(l); err != nil || string(b) != string(in) {
			t.Errorf("%q became %q, %v", in, b, err)
		}
		if !slices.Equal(whole, parts) {
			t.Errorf("%q: %q at once, %q in steps of %d", in, whole, parts, step)
		}
	})
}

// TestSecretsAreTold uses a secret rightly and wrongly. What became of it is in
// the ledger, by its name and never with its value.
func TestSecretsAreTold(t *testing.T) {
	w := newWorld(t)
	told := watchEvents(t, w.filter)
	s, v, pool := w.sealed(engine.NetworkPolicy{}, binding("good.example"))
	stranger := secret.Placeholder("22222222-2222-4222-8222-222222222222")
	c := client(t, s, pool, good4+":443", false)
	ask := func(kind, auth, body string) func() {
		return func() {
			if _, _, err := post(c, "https://good.example/echo", kind, auth, body); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		story, operation, name, verdict string
		try                             func()
	}{
		{"the value is sent", engine.SecretSent, "api key", "allow", ask("text/plain", "Bearer "+holder, "")},
		{"the answer held it", engine.SecretRedacted, "api key", "", ask("text/plain", "", holder)},
		{"another secret's placeholder in a header", engine.SecretWithheld, stranger, "deny", ask("text/plain", stranger, "")},
		{"another secret's placeholder in a body", engine.SecretWithheld, stranger, "deny", ask("text/plain", "", stranger)},
		{"one that was taken away while the connection stands", engine.SecretWithheld, holder, "deny", func() {
			v.set("sb", nil)
			defer v.set("sb", nil, binding("good.example"))
			ask("text/plain", holder, "")()
		}},
	} {
		told.mark(t.Context())
		tt.try()
		found := told.wait(t.Context(), func(r engine.ActivityRecord) bool {
			if strings.Contains(r.Detail+r.Reason+r.Host, "s3cr3t") {
				t.Errorf("%s: the record has the value: %+v", tt.story, r)
			}
			return r.Kind == engine.ActivitySecret && r.Operation == tt.operation && r.Detail == tt.name && r.Verdict == tt.verdict && r.Host == "good.example"
		})
		if found == nil {
			t.Errorf("%s: nothing was told", tt.story)
		}
	}
}

func TestWithheld(t *testing.T) {
	question := func(name string, kind dnsmessage.Type, more ...byte) []byte {
		return append(buildQuestion(9, name, kind), more...)
	}
	with := func(q []byte, additional byte, more ...byte) []byte {
		q[11] = additional
		return append(q, more...)
	}
	opt := []byte{0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0}
	options := append(slices.Clone(opt[:10]), 2, 9, 9)
	for _, c := range []struct {
		q    []byte
		want string
	}{
		{question("good.example", dnsmessage.TypeA), ""},
		{question("good.example", dnsmessage.TypeAAAA), ""},
		{with(question("good.example", dnsmessage.TypeA), 1, opt...), ""},
		{question("Good.example", dnsmessage.TypeA), "withheld: case"},
		{question("good.example", dnsmessage.TypeTXT), "withheld: not asked, being of type TXT"},
		{question("gOod.example", dnsmessage.TypeMX, 1, 2, 3), "withheld: not asked, being of type MX, case, 3 bytes behind it"},
		{with(question("good.example", dnsmessage.TypeA), 1, options...), "withheld: 2 bytes of EDNS options"},
		{with(question("good.example", dnsmessage.TypeA), 1, append(slices.Clone(opt), 7)...), "withheld: 1 bytes behind it"},
		{with(question("good.example", dnsmessage.TypeA), 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0), "withheld: records"},
		{with(question("good.example", dnsmessage.TypeA), 2, opt...), "withheld: records"},
	} {
		_, parsed, err := parseQuestion(c.q)
		if got := withheld(c.q, parsed); err != nil || got != c.want {
			t.Errorf("%x: got %q, want %q (%v)", c.q, got, c.want, err)
		}
	}
	for want, q := range map[string][]byte{
		"too short": make([]byte, 12), "an answer": {0, 9, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}, "operation 5": {0, 9, 5 << 3, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0},
		"3 questions": {0, 9, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0}, "a broken name": {0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0},
	} {
		if got := oddity(q); got != want {
			t.Errorf("%x: got %q, want %q", q, got, want)
		}
	}
}

func FuzzOddity(f *testing.F) {
	f.Add(buildQuestion(9, "a.example", dnsmessage.TypeA))
	f.Fuzz(func(t *testing.T, b []byte) {
		if oddity(b) == "" {
			t.Error("no reason")
		}
		if _, q, err := parseQuestion(b); err == nil {
			withheld(b, q)
		}
	})
}

func TestDescribe(t *testing.T) {
	for want, p := range map[string]engine.NetworkPolicy{
		"allow all else": {},
		"deny all else":  {BlockAll: true},
		"allow good.example *.cdn.example (domainAllowList), deny all else": domains("good.example", "*.cdn.example"),
		"everything is allowed while the sandbox learns":                    {Learn: true},
	} {
		policy, err := FromNetwork(p)
		if got := describe(policy, p.Learn); err != nil || got != want {
			t.Errorf("got %q, want %q (%v)", got, want, err)
		}
	}
	var many []string
	for i := range 40 {
		many = append(many, strings.Repeat("a", i+1)+".example")
	}
	policy, err := FromNetwork(domains(many...))
	if got := describe(policy, false); err != nil || !strings.Contains(got, "and 16 more") {
		t.Errorf("got %q (%v)", got, err)
	}
}
