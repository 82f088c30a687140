package secret_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/secret"
)

func TestValueHidesItself(t *testing.T) {
	v := secret.NewValue("hunter2")
	out, err := json.Marshal(map[string]any{"v": v, "p": &v})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(v), fmt.Sprintf("%v %+v %#v %s %q", v, v, v, v, v), fmt.Sprintf("%+v", struct{ v secret.Value }{v}), string(out), v.LogValue().String()} {
		if strings.Contains(text, "hunter2") {
			t.Errorf("the value shows in %q", text)
		}
	}
	if v.Reveal() != "hunter2" {
		t.Errorf("got %q", v.Reveal())
	}
}

func TestSealAndOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret.key")
	box, err := secret.OpenFile(path, true)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", st.Mode(), err)
	}
	a, err := box.Seal("org/1", secret.NewValue("hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := box.Seal("org/1", secret.NewValue("hunter2"))
	if err != nil || a.Text == b.Text || strings.Contains(a.Text, "hunter2") {
		t.Errorf("two seals are alike or show the value: %+v %+v %v", a, b, err)
	}
	again, err := secret.OpenFile(path, false)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := again.Open("org/1", a); err != nil || v.Reveal() != "hunter2" {
		t.Errorf("got %q, %v", v.Reveal(), err)
	}
	for name, open := range map[string]func() error{
		"another owner": func() error { _, err := box.Open("org/2", a); return err },
		"damaged": func() error {
			_, err := box.Open("org/1", secret.Sealed{KeyID: a.KeyID, Text: b.Text[:20]})
			return err
		},
		"no base64":   func() error { _, err := box.Open("org/1", secret.Sealed{KeyID: a.KeyID, Text: "!"}); return err },
		"another key": func() error { _, err := box.Open("org/1", secret.Sealed{KeyID: "x", Text: a.Text}); return err },
	} {
		if open() == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

func TestRotate(t *testing.T) {
	old, _ := secret.NewKey()
	fresh, _ := secret.NewKey()
	first, err := secret.ParseKeys([]byte(old + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := first.Seal("o", secret.NewValue("v"))
	if err != nil {
		t.Fatal(err)
	}
	both, err := secret.ParseKeys([]byte("# new one first\n" + fresh + "\n\n" + old + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if v, err := both.Open("o", sealed); err != nil || v.Reveal() != "v" {
		t.Errorf("the old key does not open: %v", err)
	}
	if again, err := both.Seal("o", secret.NewValue("v")); err != nil || again.KeyID == sealed.KeyID {
		t.Errorf("got key %s, %v, want the new one", again.KeyID, err)
	}
}

func TestBadKeyFiles(t *testing.T) {
	line, _ := secret.NewKey()
	for name, text := range map[string]string{
		"empty": "", "only a comment": "# x\n", "no key": "abc\n", "short": "a:AAAA\n", "twice": line + "\n" + line + "\n",
		"rubbish after": line + " x\n",
	} {
		path := filepath.Join(t.TempDir(), "k")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := secret.OpenFile(path, true); engine.KindOf(err) != engine.KindInvalid {
			t.Errorf("%s: got %v", name, err)
		}
	}
	path := filepath.Join(t.TempDir(), "k")
	if _, err := secret.OpenFile(path, false); engine.KindOf(err) != engine.KindInvalid {
		t.Errorf("absent: got %v", err)
	}
	if err := os.WriteFile(path, []byte(line+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := secret.OpenFile(path, false); engine.KindOf(err) != engine.KindDenied {
		t.Errorf("readable by all: got %v", err)
	}
}

func TestAllows(t *testing.T) {
	b := secret.Binding{Hosts: []string{"api.example.com", "*.Example.org"}}
	for host, want := range map[string]bool{
		"api.example.com": true, "API.example.com.": true, "x.api.example.com": false, "example.com": false, "": false,
		"a.example.org": true, "a.b.example.org": true, "example.org": false, "notexample.org": false,
	} {
		if got := b.Allows(host); got != want {
			t.Errorf("%q: got %v, want %v", host, got, want)
		}
	}
	if (secret.Binding{}).Allows("example.com") {
		t.Error("a secret without hosts goes nowhere")
	}
}

func FuzzParseKeys(f *testing.F) {
	line, _ := secret.NewKey()
	f.Add([]byte(line + "\n"))
	f.Add([]byte("#\n:\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		box, err := secret.ParseKeys(text)
		if err != nil {
			return
		}
		s, err := box.Seal("o", secret.NewValue("v"))
		if err != nil {
			t.Fatal(err)
		}
		if v, err := box.Open("o", s); err != nil || v.Reveal() != "v" {
			t.Errorf("got %v", err)
		}
	})
}
