package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestKindOf(t *testing.T) {
	taken := Errorf(KindConflict, "name %q is taken", "x")
	for name, c := range map[string]struct {
		err  error
		want Kind
	}{
		"nil":               {nil, ""},
		"itself":            {taken, KindConflict},
		"wrapped":           {fmt.Errorf("create: %w", taken), KindConflict},
		"joined":            {errors.Join(errors.New("x"), taken), KindConflict},
		"outermost wins":    {Errorf(KindDenied, "no").Wrap(taken), KindDenied},
		"canceled":          {fmt.Errorf("x: %w", context.Canceled), KindCanceled},
		"deadline":          {context.DeadlineExceeded, KindTimeout},
		"canceled but told": {Errorf(KindUnavailable, "down").Wrap(context.Canceled), KindUnavailable},
		"anything else":     {errors.New("x"), KindInternal},
	} {
		if got := KindOf(c.err); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
		if c.err != nil && AsError(c.err).Kind != c.want {
			t.Errorf("%s: AsError got %q, want %q", name, AsError(c.err).Kind, c.want)
		}
	}
}

func TestErrorShowsNoCause(t *testing.T) {
	cause := errors.New("open /var/lib/secret: denied")
	e := AsError(cause)
	if e.Message != "internal error" || e.Hint == "" || !errors.Is(e, cause) {
		t.Errorf("got %q, hint %q", e.Message, e.Hint)
	}
	if got, want := e.Error(), "internal error: open /var/lib/secret: denied"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWithHintAndWrapCopy(t *testing.T) {
	base := Errorf(KindInvalid, "cpu is %d", 0)
	hinted := base.WithHint("use %d or more", 1).Wrap(context.Canceled)
	if base.Hint != "" || base.Err != nil {
		t.Error("the original changed")
	}
	if hinted.Hint != "use 1 or more" || !errors.Is(hinted, context.Canceled) || hinted.Message != base.Message {
		t.Errorf("got %+v", hinted)
	}
	if got := base.Error(); got != "cpu is 0" {
		t.Errorf("got %q", got)
	}
}
