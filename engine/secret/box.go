package secret

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/atoll-sh/atoll/engine"
)

// Sealed is a value as the database holds it.
type Sealed struct {
	KeyID string // of the key that it was sealed with
	Text  string // base64 of nonce and ciphertext
}

// Box seals and opens values with XChaCha20-Poly1305. What it sealed opens
// only for the owner that it was sealed for, so that a row's value cannot be
// moved into another row.
type Box struct {
	current string
	keys    map[string][]byte
}

// Owner is what the value in a row of a table is sealed for.
func Owner(table, organizationID, id string) string { return table + "/" + organizationID + "/" + id }

// CurrentKey is the id of the key that Seal uses.
func (b *Box) CurrentKey() string { return b.current }

// Seal encrypts value for owner.
func (b *Box) Seal(owner string, value Value) (Sealed, error) {
	aead, err := chacha20poly1305.NewX(b.keys[b.current])
	if err != nil {
		return Sealed{}, fmt.Errorf("seal: %w", err)
	}
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(value.Reveal())+aead.Overhead())
	if _, err := rand.Read(nonce); err != nil {
		return Sealed{}, fmt.Errorf("seal: %w", err)
	}
	out := aead.Seal(nonce, nonce, []byte(value.Reveal()), []byte(owner))
	return Sealed{KeyID: b.current, Text: base64.StdEncoding.EncodeToString(out)}, nil
}

// Open decrypts what Seal made for the same owner.
func (b *Box) Open(owner string, s Sealed) (Value, error) {
	key, ok := b.keys[s.KeyID]
	if !ok {
		return Value{}, engine.Errorf(engine.KindUnavailable, "a stored secret was sealed with key %q, which this server does not have", s.KeyID).
			WithHint("give every server of the database the same secret_key_file")
	}
	damaged := engine.Errorf(engine.KindInternal, "a stored secret cannot be opened").WithHint("set its value again")
	raw, err := base64.StdEncoding.DecodeString(s.Text)
	if err != nil {
		return Value{}, damaged.Wrap(err)
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return Value{}, damaged.Wrap(err)
	}
	if len(raw) < aead.NonceSize() {
		return Value{}, damaged
	}
	plain, err := aead.Open(nil, raw[:aead.NonceSize()], raw[aead.NonceSize():], []byte(owner))
	if err != nil {
		return Value{}, damaged.Wrap(err)
	}
	return NewValue(string(plain)), nil
}

// keyLine is one line of the key file: an id and 32 bytes in base64.
var keyLine = regexp.MustCompile(`^([A-Za-z0-9_-]{1,32}):([A-Za-z0-9+/]{43}=)$`)

// maxKeyFile bounds the key file.
const maxKeyFile = 64 << 10

// ParseKeys reads a key file: one key a line, as id:base64. The first seals,
// all open. Empty lines and those that begin with # are skipped.
func ParseKeys(text []byte) (*Box, error) {
	b := &Box{keys: map[string][]byte{}}
	for n, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		m := keyLine.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("line %d is not of the form id:base64 of 32 bytes", n+1)
		}
		key, err := base64.StdEncoding.Strict().DecodeString(m[2])
		if err != nil || len(key) != chacha20poly1305.KeySize {
			return nil, fmt.Errorf("line %d does not hold 32 bytes", n+1)
		}
		if b.keys[m[1]] != nil {
			return nil, fmt.Errorf("line %d: key %s is there twice", n+1, m[1])
		}
		b.keys[m[1]] = key
		if b.current == "" {
			b.current = m[1]
		}
	}
	if b.current == "" {
		return nil, errors.New("it holds no key")
	}
	return b, nil
}

// NewKey makes a line of a key file.
func NewKey() (string, error) {
	var id [4]byte
	var key [chacha20poly1305.KeySize]byte
	for _, b := range [][]byte{id[:], key[:]} {
		if _, err := rand.Read(b); err != nil {
			return "", fmt.Errorf("make a key: %w", err)
		}
	}
	return hex.EncodeToString(id[:]) + ":" + base64.StdEncoding.EncodeToString(key[:]), nil
}

// OpenFile reads the key file at path. When create is set and there is none, a
// new one is made that only its owner can read. A file that others can read is
// refused.
func OpenFile(path string, create bool) (*Box, error) {
	text, err := readKeys(path)
	if create && errors.Is(err, fs.ErrNotExist) {
		if err = writeKeys(path); err == nil {
			text, err = readKeys(path)
		}
	}
	var known *engine.Error
	switch {
	case errors.As(err, &known):
		return nil, err
	case err != nil:
		return nil, engine.Errorf(engine.KindInvalid, "the key file %s cannot be read", path).
			WithHint("check secret_key_file").Wrap(err)
	}
	b, err := ParseKeys(text)
	if err != nil {
		return nil, engine.Errorf(engine.KindInvalid, "the key file %s is not usable: %v", path, err).
			WithHint("restore it from a backup; without it stored secrets cannot be opened")
	}
	return b, nil
}

func readKeys(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, engine.Errorf(engine.KindDenied, "the key file %s can be read by others", path).WithHint("chmod 600 %s", path)
	}
	if info.Size() > maxKeyFile {
		return nil, fmt.Errorf("%s has %d bytes", path, info.Size())
	}
	var b bytes.Buffer
	_, err = b.ReadFrom(f)
	return b.Bytes(), err
}

// writeKeys makes the file so that a crash leaves none or a whole one, and
// that of two servers which start at once one wins.
func writeKeys(path string) error {
	line, err := NewKey()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".secret-key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(line + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
