package egress

import (
	"context"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/network"
	"github.com/atoll-sh/atoll/engine/secret"
	"github.com/atoll-sh/atoll/policies"
)

// seal is what puts the secrets of one sandbox into its traffic.
type seal struct {
	sandbox string
	ca      *authority
	// Places for requests, and for those whose body is in memory: a sandbox
	// must not fill the server's.
	requests, bodies chan struct{}
}

const (
	maxRequests = 256
	maxBodies   = 16
)

// enter takes a place, waiting for one. The returned function gives it back.
func enter(ctx context.Context, places chan struct{}) (leave func(), err error) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// SetResolver says who knows the secrets. Until then connections of sandboxes
// that have some are refused where a host is named.
func (f *Filter) SetResolver(r secret.Resolver) { f.resolver.Store(&r) }

// Seal makes the secrets of a sandbox stand in its traffic, from now on, and
// returns the certificate, in PEM, that its processes must trust for that. It
// may come before the slot's first policy. A slot that is sealed keeps its
// certificate.
func (f *Filter) Seal(s network.Slot, sandbox string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st, err := f.slotLocked(s)
	if err != nil {
		return nil, err
	}
	if st.seal != nil && st.seal.sandbox == sandbox {
		return st.seal.ca.pem, nil
	}
	ca, err := newAuthority(sandbox)
	if err != nil {
		return nil, err
	}
	return ca.pem, f.resealLocked(st, &seal{
		sandbox: sandbox, ca: ca, requests: make(chan struct{}, maxRequests), bodies: make(chan struct{}, maxBodies),
	})
}

// Unseal ends what Seal began. Nothing trusts the certificate's key any more,
// and it is forgotten.
func (f *Filter) Unseal(s network.Slot) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	st, err := f.slotLocked(s)
	if err != nil {
		return err
	}
	return f.resealLocked(st, nil)
}

func (f *Filter) resealLocked(st *slot, s *seal) error {
	old := st.seal
	st.seal = s
	if st.policy == nil || (old == nil) == (s == nil) {
		return nil
	}
	err := f.enforceLocked(st, st.policy)
	if err != nil {
		st.seal = old
	}
	return err
}

// bindings returns the secrets that may go from a slot to a host at this
// moment. Of an unsealed slot there are none.
func (f *Filter) bindings(ctx context.Context, slot int, host string) (*seal, []secret.Binding, error) {
	f.mu.Lock()
	var s *seal
	if st := f.slots[slot]; st != nil {
		s = st.seal
	}
	f.mu.Unlock()
	if s == nil {
		return nil, nil, nil
	}
	r := f.resolver.Load()
	if r == nil {
		return nil, nil, engine.Errorf(engine.KindUnavailable, "the server is starting")
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	all, err := (*r).Resolve(ctx, s.sandbox)
	if err != nil {
		return nil, nil, err
	}
	var out []secret.Binding
	for _, b := range all {
		if b.Value.Reveal() != "" && b.Allows(host) {
			out = append(out, b)
		}
	}
	return s, out, nil
}

// sealFor returns what ends the TLS of a host that a secret of the slot's
// sandbox is for; nil where none is, so that the connection stays its own.
func (f *Filter) sealFor(ctx context.Context, slot int, name string) (*seal, error) {
	host, err := policies.CanonicalName(name)
	if err != nil {
		return nil, nil // no secret names it, and the policy refuses it if it is about names
	}
	s, found, err := f.bindings(ctx, slot, host)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return s, nil
}
