package mcp

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/mark3labs/mcp-go/server"

	"github.com/atoll-sh/atoll/engine"
)

// sessionLife is how long a session id is good for. Clients that stay longer
// initialize again.
const sessionLife = 30 * 24 * time.Hour

// sessions issues and checks the session ids of the older protocol era. An id
// is random and signed together with its principal, so nobody can invent one
// or use another's, and with a lasting key it survives a restart of the server.
type sessions struct {
	key []byte
	now func() time.Time

	mu    sync.Mutex
	ended map[string]time.Time // deleted by their clients → when they would expire
}

func newSessions(key []byte) *sessions {
	if len(key) == 0 {
		key = make([]byte, 32)
		_, _ = rand.Read(key)
	}
	return &sessions{key: key, now: time.Now, ended: map[string]time.Time{}}
}

// sessionIDSize is 16 random bytes, 8 of the time of issue, 16 of signature.
const sessionIDSize = 16 + 8 + 16

func (s *sessions) issue(p engine.Principal) string {
	id := make([]byte, 24, sessionIDSize)
	_, _ = rand.Read(id[:16])
	binary.BigEndian.PutUint64(id[16:], uint64(s.now().Unix()))
	return base64.RawURLEncoding.EncodeToString(append(id, s.sign(id, p)...))
}

func (s *sessions) sign(id []byte, p engine.Principal) []byte {
	mac := hmac.New(sha256.New, s.key)
	mac.Write(id)
	fmt.Fprintf(mac, "%q %q", p.OrganizationID, p.KeyID)
	return mac.Sum(nil)[:16]
}

// valid tells whether id was issued to p, is fresh, and was not ended.
func (s *sessions) valid(id string, p engine.Principal) bool {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(id)
	if err != nil || len(raw) != sessionIDSize || !hmac.Equal(raw[24:], s.sign(raw[:24], p)) {
		return false
	}
	issued := time.Unix(int64(binary.BigEndian.Uint64(raw[16:24])), 0)
	if s.now().Sub(issued) > sessionLife {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, gone := s.ended[id]
	return !gone
}

// end makes a valid id useless. It forgets those that have expired meanwhile.
func (s *sessions) end(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for old, expires := range s.ended {
		if now.After(expires) {
			delete(s.ended, old)
		}
	}
	s.ended[id] = now.Add(sessionLife)
}

// ResolveSessionIdManager gives mcp-go the view of one principal. The guard
// has checked ids already; mcp-go asks again with the same answer.
func (s *sessions) ResolveSessionIdManager(r *http.Request) server.SessionIdManager {
	if r == nil {
		return idleSessions{}
	}
	return principalSessions{sessions: s, principal: principalOf(r.Context())}
}

// idleSessions is the manager for mcp-go's sweeper and shutdown: they free
// memory, but a client that returns later keeps its id.
type idleSessions struct{}

func (idleSessions) Generate() string               { return "" }
func (idleSessions) Validate(string) (bool, error)  { return false, nil }
func (idleSessions) Terminate(string) (bool, error) { return false, nil }

type principalSessions struct {
	*sessions
	principal engine.Principal
}

func (s principalSessions) Generate() string { return s.issue(s.principal) }

func (s principalSessions) Validate(id string) (terminated bool, err error) {
	if !s.valid(id, s.principal) {
		return false, errUnknownSession
	}
	return false, nil
}

func (s principalSessions) Terminate(id string) (notAllowed bool, err error) {
	s.end(id)
	return false, nil
}
