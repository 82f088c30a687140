package container

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/atoll-sh/atoll/engine"
)

// translate turns an error of containerd, the kernel or ourselves into an
// engine.Error that says what was tried. Text of the cause goes to the log
// only. An engine.Error inside err is kept as it is.
func translate(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	var known *engine.Error
	if errors.As(err, &known) {
		return err
	}
	err = errgrpc.ToNative(err)
	what := fmt.Sprintf(format, args...)
	e := engine.Errorf(kindOf(err), "%s", what).Wrap(err)
	if e.Kind == engine.KindUnavailable {
		e = e.WithHint("containerd does not answer; it is restarted by itself, try again in a moment")
	}
	return e
}

func kindOf(err error) engine.Kind {
	switch {
	case errors.Is(err, context.Canceled), errdefs.IsCanceled(err):
		return engine.KindCanceled
	case errors.Is(err, context.DeadlineExceeded), errdefs.IsDeadlineExceeded(err):
		return engine.KindTimeout
	case errdefs.IsNotFound(err):
		return engine.KindNotFound
	case errdefs.IsAlreadyExists(err), errdefs.IsFailedPrecondition(err), errdefs.IsConflict(err):
		return engine.KindConflict
	case errdefs.IsResourceExhausted(err):
		return engine.KindExhausted
	case errdefs.IsNotImplemented(err):
		return engine.KindUnsupported
	case errdefs.IsUnavailable(err):
		return engine.KindUnavailable
	case errdefs.IsPermissionDenied(err):
		return engine.KindDenied
	}
	return engine.KindInternal
}

func isNotFound(err error) bool {
	return err != nil && errdefs.IsNotFound(errgrpc.ToNative(err))
}

func errUnknown(id string) error {
	return engine.Errorf(engine.KindNotFound, "the container runtime does not know instance %s", id)
}

func errNotRunning(id string) error {
	return engine.Errorf(engine.KindConflict, "instance %s is not running", id).WithHint("start it first")
}
