package core

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/atoll-sh/atoll/engine"
)

// SSHStore keeps the tokens of SSH.
type SSHStore interface {
	PutSSHAccess(ctx context.Context, a engine.SSHAccess, token string) error
	SSHAccess(ctx context.Context, token string) (engine.SSHAccess, error)
	DeleteSSHAccess(ctx context.Context, sandboxID, token string) (bool, error)
	KeyHolds(ctx context.Context, id string, now time.Time) (bool, error)
}

const (
	// sshTokenPrefix tells people what they have found.
	sshTokenPrefix = "ssh_"
	// maxSSHAccess bounds for how long a token may be good.
	maxSSHAccess = 30 * 24 * time.Hour
	// sshRecheck is how often a visit asks whether it may go on: another
	// server may have revoked its token, or a key may have been deleted.
	sshRecheck = 2 * time.Second
	// sshPatience is how long a visit goes on while the database fails.
	sshPatience = 30 * time.Second
)

// The reasons for which a visit ends.
var (
	errSSHExpired = engine.Errorf(engine.KindUnauthenticated, "the SSH access has expired")
	errSSHRevoked = engine.Errorf(engine.KindUnauthenticated, "the SSH access was revoked")
	errSSHUnknown = engine.Errorf(engine.KindUnauthenticated, "the SSH access is not valid or has expired").WithHint("ask for another")
	errSSHStopped = engine.Errorf(engine.KindConflict, "the sandbox was stopped")
)

// visits are the connections that are in sandboxes now, by sandbox.
type visits struct {
	mu sync.Mutex
	m  map[string]map[*visit]struct{}
}

type visit struct {
	access engine.SSHAccess
	end    context.CancelCauseFunc
}

func newVisits() *visits { return &visits{m: map[string]map[*visit]struct{}{}} }

func (v *visits) add(x *visit) (remove func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	id := x.access.SandboxID
	if v.m[id] == nil {
		v.m[id] = map[*visit]struct{}{}
	}
	v.m[id][x] = struct{}{}
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		if delete(v.m[id], x); len(v.m[id]) == 0 {
			delete(v.m, id)
		}
	}
}

// end ends the visits to a sandbox that were made with another access.
func (v *visits) end(sandboxID, except string, why error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for x := range v.m[sandboxID] {
		if x.access.ID != except {
			x.end(why)
		}
	}
}

// SSH is access to sandboxes by SSH.
func (c *Core) SSH() engine.SSHDoor { return ssh{c} }

type ssh struct{ *Core }

// Grant makes a token for a sandbox.
func (s ssh) Grant(ctx context.Context, p engine.Principal, ref engine.SandboxRef, validFor time.Duration) (engine.SSHAccess, string, error) {
	if validFor < time.Second || validFor > maxSSHAccess {
		return engine.SSHAccess{}, "", invalid("expiresInMinutes: %g is not possible", validFor.Minutes()).WithHint("use 1 to %d", int(maxSSHAccess.Minutes()))
	}
	if strings.HasPrefix(p.KeyID, tokenKey) {
		// It would have to end with the token, which nobody tells the end of.
		return engine.SSHAccess{}, "", engine.Errorf(engine.KindDenied, "SSH access lasts as long as an API key, and this request came with an access token").
			WithHint("make it with an API key")
	}
	sb, err := s.find(ctx, ref)
	if err != nil {
		return engine.SSHAccess{}, "", public(err)
	}
	now := s.Now().UTC()
	a := engine.SSHAccess{
		ID: uuid.NewString(), SandboxID: sb.ID, OrganizationID: sb.OrganizationID, KeyID: p.KeyID,
		CreatedAt: now, ExpiresAt: now.Add(validFor),
	}
	token := sshTokenPrefix + strings.ToLower(rand.Text()+rand.Text()[:6])
	if err := s.Store.PutSSHAccess(ctx, a, token); err != nil {
		return engine.SSHAccess{}, "", public(err)
	}
	s.visits.end(sb.ID, a.ID, errSSHRevoked)
	return a, token, nil
}

// Revoke ends a sandbox's token.
func (s ssh) Revoke(ctx context.Context, ref engine.SandboxRef, token string) (engine.Sandbox, error) {
	sb, err := s.find(ctx, ref)
	if err != nil {
		return engine.Sandbox{}, public(err)
	}
	had, err := s.Store.DeleteSSHAccess(ctx, sb.ID, token)
	if err == nil && !had && token != "" {
		err = engine.Errorf(engine.KindNotFound, "sandbox %s has no such SSH access", sb.Name).WithHint("leave token out to revoke whatever it has")
	}
	if err != nil {
		return engine.Sandbox{}, public(err)
	}
	s.visits.end(sb.ID, "", errSSHRevoked)
	return s.view(&sb), nil
}

// Check tells what a token is good for.
func (s ssh) Check(ctx context.Context, token string) (engine.SSHAccess, error) {
	if !strings.HasPrefix(token, sshTokenPrefix) || len(token) > 100 {
		return engine.SSHAccess{}, errSSHUnknown
	}
	a, err := s.Store.SSHAccess(ctx, token)
	switch {
	case engine.KindOf(err) == engine.KindNotFound:
		return a, errSSHUnknown
	case err != nil:
		return a, public(err)
	case !s.Now().Before(a.ExpiresAt):
		return a, errSSHExpired
	}
	if holds, err := s.Store.KeyHolds(ctx, a.KeyID, s.Now()); err != nil || !holds {
		if err == nil {
			err = errSSHUnknown
		}
		return a, public(err)
	}
	if _, err := s.find(ctx, engine.SandboxRef{OrganizationID: a.OrganizationID, IDOrName: a.SandboxID}); engine.KindOf(err) == engine.KindNotFound {
		return a, errSSHUnknown
	} else if err != nil {
		return a, public(err)
	}
	return a, nil
}

// Enter begins a visit.
func (s ssh) Enter(ctx context.Context, token string) (*engine.SSHVisit, error) {
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	x := &visit{end: end}
	a, err := s.Check(ctx, token)
	if err != nil {
		end(err)
		return nil, err
	}
	x.access = a
	remove := s.visits.add(x)
	// Only now: a token that is revoked meanwhile ends the visit.
	stay, err := s.stay(ctx, token, x)
	if err != nil {
		remove()
		end(err)
		return nil, err
	}
	quit := s.activity.begin(a.SandboxID, s.Now)
	var watch sync.WaitGroup
	watch.Go(func() { stay(life) })
	return &engine.SSHVisit{SSHAccess: a, Life: life, Leave: sync.OnceFunc(func() {
		end(context.Canceled)
		watch.Wait()
		remove()
		quit()
	})}, nil
}

// stay checks the token once more and that the sandbox runs. The returned
// function ends the visit when either is so no longer.
func (s ssh) stay(ctx context.Context, token string, x *visit) (watch func(life context.Context), err error) {
	if _, err := s.Check(ctx, token); err != nil {
		return nil, err
	}
	sb, err := s.Store.SandboxByID(ctx, x.access.SandboxID)
	if err != nil {
		return nil, public(err)
	}
	if !running(&sb) {
		return nil, notStarted(&sb)
	}
	run := s.pools.of(sb.ID, sb.Incarnation).ctx
	return func(life context.Context) {
		expire := time.NewTimer(x.access.ExpiresAt.Sub(s.Now()))
		defer expire.Stop()
		tick := time.NewTicker(sshRecheck)
		defer tick.Stop()
		good := time.Now()
		for {
			select {
			case <-life.Done():
				return
			case <-run.Done():
				x.end(errSSHStopped)
			case <-expire.C:
				x.end(errSSHExpired)
			case <-s.principals.changed():
			case <-tick.C:
			}
			if life.Err() != nil {
				return
			}
			if err := s.still(life, token, sb.Incarnation); err == nil {
				good = time.Now()
			} else if settled(err) || time.Since(good) > sshPatience {
				x.end(err)
			}
		}
	}, nil
}

// still asks again what Enter asked.
func (s ssh) still(ctx context.Context, token string, incarnation uint64) error {
	ctx, cancel := context.WithTimeout(ctx, sshRecheck)
	defer cancel()
	a, err := s.Check(ctx, token)
	if err != nil {
		return err
	}
	sb, err := s.Store.SandboxByID(ctx, a.SandboxID)
	if err == nil && (!running(&sb) || sb.Incarnation != incarnation) {
		err = errSSHStopped
	}
	return public(err)
}

// settled tells that asking once more would be of no use.
func settled(err error) bool {
	var e *engine.Error
	return errors.As(err, &e) && (e.Kind == engine.KindUnauthenticated || e.Kind == engine.KindConflict || e.Kind == engine.KindNotFound)
}
