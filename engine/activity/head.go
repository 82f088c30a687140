package activity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// headsDir holds the heads, apart from the records, so that putting a
// sandbox's directory back to an earlier state shows.
const headsDir = "heads"

// slotBytes is the room of one head in its file. There are two slots, written
// in turn, so that one is whole whenever the machine loses power.
const slotBytes = 2048

// head is where a chain ends, and where what is kept of it begins.
type head struct {
	Sandbox      string    `json:"sandbox"`
	Organization string    `json:"organization,omitempty"`
	Incarnation  uint64    `json:"incarnation"`
	State        string    `json:"state,omitempty"` // the last lifecycle operation
	Sequence     uint64    `json:"sequence"`        // of the last record; 0: none
	Hash         string    `json:"hash"`            // of the last record
	First        uint64    `json:"first"`           // sequence of the oldest record that is kept
	Base         string    `json:"base"`            // hash of the one before it
	Time         time.Time `json:"time"`            // of signing
	Count        uint64    `json:"count"`           // of signings
}

type signedHead struct {
	Head      json.RawMessage `json:"head"`
	Signature []byte          `json:"signature"`
}

func (h head) sign(key ed25519.PrivateKey) ([]byte, error) {
	body, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(signedHead{body, ed25519.Sign(key, body)})
	if err != nil {
		return nil, err
	}
	if len(b) > slotBytes {
		return nil, fmt.Errorf("the head of %s takes %d bytes", h.Sandbox, len(b))
	}
	return append(b, bytes.Repeat([]byte{' '}, slotBytes-len(b))...), nil
}

func openHead(slot []byte, key ed25519.PublicKey) (h head, ok bool) {
	var s signedHead
	if json.Unmarshal(bytes.TrimRight(slot, " \x00"), &s) != nil || !ed25519.Verify(key, s.Head, s.Signature) {
		return h, false
	}
	return h, json.Unmarshal(s.Head, &h) == nil
}

var errUnsigned = errors.New("the head is not signed by this server")

// readHead returns the newest head of a file. It fails with fs.ErrNotExist, or
// with errUnsigned when none in it is good.
func readHead(path string, key ed25519.PublicKey) (head, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return head{}, err
	}
	var newest head
	found := false
	for i := 0; i < len(b) && i < 2*slotBytes; i += slotBytes {
		h, ok := openHead(b[i:min(i+slotBytes, len(b))], key)
		if ok && (!found || h.Count > newest.Count) {
			newest, found = h, true
		}
	}
	if !found {
		return head{}, errUnsigned
	}
	return newest, nil
}

// writeHead signs a head into its slot and waits for the disk.
func writeHead(path string, h head, key ed25519.PrivateKey) error {
	b, err := h.sign(key)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, int64(h.Count%2)*slotBytes)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
