package sshd

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/atoll-sh/atoll/engine"
)

// HostKey reads the server's key from a file of OpenSSH's format. A missing
// one is made: clients remember it, so that nobody else can pose as the server.
func HostKey(path string) (ssh.Signer, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = makeHostKey(path)
	}
	if err != nil {
		return nil, engine.Errorf(engine.KindInternal, "the SSH host key cannot be read or made").Wrap(err)
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, engine.Errorf(engine.KindInvalid, "%s is not an SSH key", path).
			WithHint("remove it to have a new one made; clients will then warn that the host has changed").Wrap(err)
	}
	return key, nil
}

// makeHostKey writes the file in one step, so that a crash leaves none.
func makeHostKey(path string) ([]byte, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "atoll")
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(block)
	f, err := os.CreateTemp(filepath.Dir(path), ".ssh_host_key") // mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return text, err
}

// PublicKey is a key as lines of known_hosts have it, without the host.
func PublicKey(key ssh.Signer) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey())))
}

// Fingerprint is a key as clients show it to people.
func Fingerprint(key ssh.Signer) string { return ssh.FingerprintSHA256(key.PublicKey()) }
