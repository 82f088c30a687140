package image

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"

	"github.com/atoll-sh/atoll/engine"
)

// errNoPlatform is how the client tells that an index lacks our platform. It
// has no value to compare with and its class is not found as well.
const errNoPlatform = "no match for platform"

// translate makes an engine error of what containerd or a registry answered.
// Errors that are one already, or come from ctx, stay as they are.
func translate(ref reference, err error) error {
	var ours *engine.Error
	var status remoteerrors.ErrUnexpectedStatus
	make := func(k engine.Kind, format string, args ...any) *engine.Error {
		return engine.Errorf(k, format, args...).Wrap(err)
	}
	switch {
	case err == nil || errors.As(err, &ours):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case strings.Contains(err.Error(), errNoPlatform):
		return make(engine.KindUnsupported, "image %s is not made for this host's platform", ref.name)
	case damaged(err), badRange(err):
		return make(engine.KindInvalid, "image %s is damaged: its content does not match its digests or cannot be unpacked", ref.name).
			WithHint("push the image again")
	case errors.As(err, &status):
		return translateStatus(ref, status).Wrap(err)
	case errors.Is(err, docker.ErrInvalidAuthorization), errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return denied(ref).Wrap(err)
	case errors.Is(err, syscall.ENOSPC), strings.Contains(err.Error(), syscall.ENOSPC.Error()):
		return make(engine.KindExhausted, "the disk of the server is full: no room for image %s", ref.name)
	case errors.Is(err, http.ErrSchemeMismatch):
		return make(engine.KindUnavailable, "registry %s speaks plain HTTP", ref.domain).
			WithHint("plain HTTP is for registries on the server's own machine only")
	case unreachable(err):
		return make(engine.KindUnavailable, "registry %s does not answer", ref.domain).
			WithHint("check the name, and that the server can reach it")
	case errdefs.IsNotFound(err):
		return notFound(ref).Wrap(err)
	case errdefs.IsUnavailable(err):
		return make(engine.KindUnavailable, "containerd does not answer")
	}
	return make(engine.KindInternal, "image %s cannot be made ready", ref.name).WithHint("see the server's log")
}

func translateStatus(ref reference, e remoteerrors.ErrUnexpectedStatus) *engine.Error {
	switch {
	case e.StatusCode == http.StatusUnauthorized || e.StatusCode == http.StatusForbidden:
		return denied(ref)
	case e.StatusCode == http.StatusNotFound:
		return notFound(ref)
	case e.StatusCode == http.StatusTooManyRequests:
		return engine.Errorf(engine.KindUnavailable, "registry %s has had too many requests", ref.domain).
			WithHint("wait, or give credentials")
	}
	return engine.Errorf(engine.KindUnavailable, "registry %s answered %s", ref.domain, e.Status)
}

func denied(ref reference) *engine.Error {
	return engine.Errorf(engine.KindDenied, "registry %s refuses image %s", ref.domain, ref.name).
		WithHint("the image does not exist there, or the user name and password are wrong or missing")
}

func notFound(ref reference) *engine.Error {
	return engine.Errorf(engine.KindNotFound, "image %s does not exist in its registry", ref.name).
		WithHint("check name and tag")
}

func unreachable(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	var u *url.Error
	return errors.As(err, &op) || errors.As(err, &dns) || errors.As(err, &u)
}

// badRange tells that a registry has less of a blob than a resumed pull has.
func badRange(err error) bool {
	var status remoteerrors.ErrUnexpectedStatus
	return errors.As(err, &status) && status.StatusCode == http.StatusRequestedRangeNotSatisfiable
}

// damaged tells bad content from other faults. Unpacking happens in containerd,
// whose answers carry a class at most, so some texts have to be known.
func damaged(err error) bool {
	if errdefs.IsFailedPrecondition(err) || errdefs.IsInvalidArgument(err) || errdefs.IsDataLoss(err) {
		return true
	}
	text := err.Error()
	for _, known := range []string{"unexpected EOF", "invalid tar header", "unexpected commit", "gzip: invalid", "magic number mismatch", "mismatched image rootfs", "wrong diff id", "cannot unmarshal", "invalid character"} {
		if strings.Contains(text, known) {
			return true
		}
	}
	return false
}
