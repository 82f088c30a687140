package runner

import (
	"context"
	"errors"
	"os"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/network"
	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// Seals puts the secrets of sandboxes into their traffic; engine/egress does.
type Seals interface {
	// Seal returns the certificate, in PEM, that the sandbox's processes must
	// trust. It may come before the slot's first policy.
	Seal(s network.Slot, sandbox string) (certificate []byte, err error)
	Unseal(s network.Slot) error
}

// hostRoots are where hosts keep the certificates that they trust. A sandbox
// whose image has none gets the host's.
var hostRoots = []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"}

// seal prepares the network of an instance whose sandbox has secrets that may
// go somewhere, and returns what its toolbox is told. On a host that cannot,
// placeholders stay placeholders.
func (r *Runner) seal(in *instance, l engine.Launch) (wire.Trust, error) {
	if !l.Secrets || r.cfg.Seals == nil {
		return wire.Trust{}, nil
	}
	certificate, err := r.cfg.Seals.Seal(in.rec.Slot, l.Sandbox)
	if err != nil {
		return wire.Trust{}, err
	}
	t := wire.Trust{Certificate: string(certificate)}
	for _, name := range hostRoots {
		if b, err := os.ReadFile(name); err == nil {
			t.Roots = string(b)
			break
		}
	}
	return t, nil
}

// reseal makes a new seal for an instance that an earlier run left. Its
// processes that still trust the old certificate must be started again.
func (r *Runner) reseal(ctx context.Context, in *instance) error {
	t, err := r.seal(in, in.rec.Launch)
	if err != nil || t.Certificate == "" {
		return err
	}
	return in.tb.SetTrust(ctx, t)
}

// SetSecrets implements engine.Runner.
func (r *Runner) SetSecrets(ctx context.Context, sandbox string, on bool) error {
	defer r.lock(sandbox)()
	in, err := r.find(sandbox)
	if err != nil {
		return err
	}
	l := in.rec.Launch
	if l.Secrets == on {
		return nil
	}
	l.Secrets = on
	if in.state() == engine.StateStarted {
		if err := r.changeSeal(ctx, in, l); err != nil {
			return err
		}
	}
	in.mu.Lock()
	in.rec.Launch.Secrets = on
	in.mu.Unlock()
	return in.save(false)
}

// changeSeal seals or unseals an instance that runs. On error it is as before.
func (r *Runner) changeSeal(ctx context.Context, in *instance, l engine.Launch) error {
	if r.cfg.Seals == nil {
		return nil
	}
	t, err := r.seal(in, l)
	if err != nil {
		return err
	}
	if err := in.tb.SetTrust(ctx, t); err != nil {
		if l.Secrets {
			err = errors.Join(err, r.cfg.Seals.Unseal(in.rec.Slot))
		}
		return err
	}
	if l.Secrets {
		return nil
	}
	return r.cfg.Seals.Unseal(in.rec.Slot)
}
