package mcp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	mcpgo "github.com/mark3labs/mcp-go/mcp"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/mcp/reqstream"
)

const sessionHeader = "Mcp-Session-Id"

var errUnknownSession = errors.New("unknown session")

// Handler serves streamable HTTP, for /mcp and /mcp/x/{set}.
func (s *Server) Handler() http.Handler {
	return reqstream.Handler(s.guard(s.tasks.Handler(s.http)), s.opt.KeepAlive)
}

// guard refuses what mcp-go would let through, in this order: foreign hosts
// and pages, strangers, unknown toolsets, large bodies, session ids that are
// not the caller's, and attempts to cancel others' requests.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.checkSource(r); err != nil {
			refuse(w, http.StatusForbidden, err.Error())
			return
		}
		if r.Method != http.MethodPost && r.Method != http.MethodGet && r.Method != http.MethodDelete {
			w.Header().Set("Allow", "POST, GET, DELETE")
			refuse(w, http.StatusMethodNotAllowed, "use POST")
			return
		}
		p, ok := s.authenticate(r)
		if !ok {
			w.Header().Set("WWW-Authenticate", `Bearer realm="atoll"`)
			refuse(w, http.StatusUnauthorized, "send an API key as Authorization: Bearer KEY")
			return
		}
		sc, err := s.requestScope(r)
		if err != nil {
			refuse(w, http.StatusNotFound, err.Error())
			return
		}
		ctx := context.WithValue(withPrincipal(r.Context(), p), scopeKey{}, sc)
		if r = s.admit(w, r.WithContext(ctx)); r != nil {
			next.ServeHTTP(w, r)
		}
	})
}

// message is the part of a request that the guard has to know.
type message struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params struct {
		Meta *mcpgo.Meta `json:"_meta"`
	} `json:"params"`
}

// admit reads the body and checks the session. It answers and returns nil when
// the request ends here.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) *http.Request {
	var m message
	var body []byte
	if r.Method == http.MethodPost {
		var err error
		if body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, s.opt.MaxBody)); err != nil {
			refuseBody(w, err)
			return nil
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		_ = json.Unmarshal(body, &m) // mcp-go answers what does not parse
		r = r.WithContext(context.WithValue(r.Context(), listingKey{}, m.Method == string(mcpgo.MethodToolsList)))
	}
	modern := mcpgo.IsModernProtocol(m.Params.Meta.ProtocolVersion()) ||
		mcpgo.IsModernProtocol(r.Header.Get(mcpgo.HeaderProtocolVersion))
	if modern {
		if m.Method == string(mcpgo.MethodNotificationCancelled) {
			// This era cancels by closing the stream. mcp-go would look the id
			// up among the requests of all clients.
			w.WriteHeader(http.StatusAccepted)
			return nil
		}
		if named := r.Header.Get(mcpgo.HeaderMethod); named != m.Method {
			return r // mcp-go says what is wrong with the headers
		}
		return s.extend(w, r, m.Method, body)
	}
	if m.Method != string(mcpgo.MethodInitialize) && !s.checkSession(w, r) {
		return nil
	}
	if r.Method == http.MethodPost {
		// In this era a lost connection is no cancellation. The call goes on
		// until it ends, is cancelled by name, or the server closes.
		r = r.WithContext(context.WithoutCancel(r.Context()))
	}
	return s.extend(w, r, m.Method, body)
}

// extend answers requests that mcp-go does not know.
func (s *Server) extend(w http.ResponseWriter, r *http.Request, method string, body []byte) *http.Request {
	answer := s.extension(method, body)
	if answer == nil {
		return r
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
	return nil
}

func (s *Server) checkSession(w http.ResponseWriter, r *http.Request) bool {
	id := r.Header.Get(sessionHeader)
	switch {
	case id == "":
		refuse(w, http.StatusBadRequest, "the header "+sessionHeader+" is missing; initialize first")
		return false
	case !s.sessions.valid(id, principalOf(r.Context())):
		refuse(w, http.StatusNotFound, "unknown session; initialize again")
		return false
	}
	return true
}

func (s *Server) authenticate(r *http.Request) (p engine.Principal, ok bool) {
	if s.opt.Principal == nil {
		return p, false
	}
	p, ok = s.opt.Principal(r)
	return p, ok && p.OrganizationID != ""
}

// checkSource keeps web pages out: a page of another site carries its Origin,
// and one that pointed its own name at this computer carries that name as Host.
func (s *Server) checkSource(r *http.Request) error {
	if local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr); local != nil &&
		isLoopback(hostOf(local.String())) && !isLoopback(hostOf(r.Host)) &&
		!slices.Contains(s.opt.AllowedHosts, hostOf(r.Host)) {
		return fmt.Errorf("host %q is not allowed here", r.Host)
	}
	origin := r.Header.Get("Origin")
	if origin == "" || slices.Contains(s.opt.AllowedOrigins, origin) {
		return nil
	}
	u, err := url.Parse(origin)
	if err != nil || !(isLoopback(u.Hostname()) || slices.Contains(s.opt.AllowedHosts, u.Hostname())) {
		return fmt.Errorf("origin %q is not allowed here", origin)
	}
	return nil
}

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	return strings.ToLower(strings.Trim(host, "[]"))
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

func refuseBody(w http.ResponseWriter, err error) {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the request is larger than %d bytes", large.Limit))
		return
	}
	refuse(w, http.StatusBadRequest, "the request body could not be read")
}

// refuse answers with a JSON-RPC error without id, which both eras allow
// together with an HTTP status.
func refuse(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"jsonrpc": "2.0", "id": nil,
		"error": map[string]any{"code": mcpgo.INVALID_REQUEST, "message": text},
	})
}
