package core

import (
	"context"
	"fmt"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/engine/learn"
	"github.com/atoll-sh/atoll/engine/store"
	"github.com/atoll-sh/atoll/policies"
)

const (
	// lessonDelay is how long the last records of the kernel may take to reach
	// the ledger.
	lessonDelay = 300 * time.Millisecond
	lessonPage  = 1000
	lessonMost  = 200_000 // records that are looked at
)

type learner struct{ *Core }

// Learner runs sandboxes open for a while and tells the policy that they need.
func (c *Core) Learner() engine.Learner { return learner{c} }

// ended is a time of learning that is over from now on.
func ended(l *engine.Learning, now time.Time) *engine.Learning {
	if l == nil || l.Over {
		return l
	}
	over := *l
	over.Over = true
	if now.Before(over.Until) {
		over.Until = now.UTC()
	}
	return &over
}

// Learn opens the network. The row is written first, with its end, so that
// whatever dies, reconcile closes it again.
func (l learner) Learn(ctx context.Context, p engine.Principal, ref engine.SandboxRef, d time.Duration, since time.Time) (engine.Lesson, error) {
	if err := firstError(engine.Authorize(p, engine.WriteSandboxes, ""), unbound(p), checkLearning(d)); err != nil {
		return engine.Lesson{}, err
	}
	if l.Ledger == nil {
		return engine.Lesson{}, engine.Errorf(engine.KindUnsupported, "this server keeps no ledger to learn from")
	}
	ctx, sb, end, err := l.change(ctx, ref, opUpdate, limitResize)
	if err != nil {
		return engine.Lesson{}, public(err)
	}
	defer end()
	if sb.State != engine.StateStarted {
		return engine.Lesson{}, refuse(sb, "learning", "started")
	}
	now := l.Now().UTC()
	next := engine.Learning{Since: now, Until: now.Add(d)}
	active := sb.Learning.Active(now)
	if !since.IsZero() && !(active && sb.Learning.Since.Equal(since)) {
		return engine.Lesson{}, engine.Errorf(engine.KindConflict, "the time of learning of sandbox %s has ended", sb.Name).
			WithHint("its network settings may have been changed; begin anew if it shall be open again")
	}
	if active {
		next.Since, next.After = sb.Learning.Since, sb.Learning.After
	} else if next.After, err = l.lastRecord(ctx, sb.ID); err != nil {
		return engine.Lesson{}, public(err)
	}
	if err := l.renetwork(ctx, sb, func(row *store.Sandbox) { row.Learning = &next }); err != nil {
		return engine.Lesson{}, public(cause(ctx, err))
	}
	l.narrowAt(next.Until)
	l.publish("sandbox.updated", sb, string(sb.State))
	return lesson(sb, now), nil
}

func checkLearning(d time.Duration) error {
	if d < engine.MinLearning || d > engine.MaxLearning {
		return invalid("the time to learn is %v", d).WithHint("use %v to %v", engine.MinLearning, engine.MaxLearning)
	}
	return nil
}

// lastRecord is the end of a sandbox's ledger.
func (l learner) lastRecord(ctx context.Context, id string) (uint64, error) {
	page, err := l.Ledger.Query(ctx, id, engine.ActivityQuery{Newest: true, Limit: 1})
	if engine.KindOf(err) == engine.KindNotFound {
		return 0, nil
	}
	return page.Next, err
}

func lesson(sb *store.Sandbox, now time.Time) engine.Lesson {
	return engine.Lesson{Sandbox: sb.ID, Active: sb.Learning.Active(now), Since: sb.Learning.Since, Until: sb.Learning.Until, Notes: []string{}}
}

// Lesson reads what the sandbox did meanwhile.
func (l learner) Lesson(ctx context.Context, ref engine.SandboxRef, o engine.LessonOptions) (engine.Lesson, error) {
	sb, err := l.find(ctx, ref)
	if err != nil {
		return engine.Lesson{}, public(err)
	}
	return l.read(ctx, &sb, o)
}

// Finish puts the settings back, if they are not yet.
func (l learner) Finish(ctx context.Context, p engine.Principal, ref engine.SandboxRef, o engine.LessonOptions) (engine.Lesson, error) {
	if err := engine.Authorize(p, engine.WriteSandboxes, ""); err != nil {
		return engine.Lesson{}, err
	}
	sb, err := l.find(ctx, ref)
	if err != nil {
		return engine.Lesson{}, public(err)
	}
	if sb.Learning != nil && !sb.Learning.Over {
		if err := l.finish(ctx, &sb); err != nil {
			return engine.Lesson{}, public(err)
		}
	}
	return l.read(ctx, &sb, o)
}

func (l learner) finish(ctx context.Context, sb *store.Sandbox) error {
	ctx, fresh, end, err := l.change(ctx, engine.SandboxRef{OrganizationID: sb.OrganizationID, IDOrName: sb.ID}, opUpdate, limitResize)
	if err != nil {
		return err
	}
	defer end()
	if !fresh.State.Settled() {
		return inProgress(fresh.Name, string(fresh.State))
	}
	err = l.renetwork(ctx, fresh, func(row *store.Sandbox) { row.Learning = ended(row.Learning, l.Now()) })
	if err != nil {
		return cause(ctx, err)
	}
	l.publish("sandbox.updated", fresh, string(fresh.State))
	*sb = *fresh
	return nil
}

// read makes the policy of the records of a time of learning.
func (l learner) read(ctx context.Context, sb *store.Sandbox, o engine.LessonOptions) (engine.Lesson, error) {
	if l.Ledger == nil || sb.Learning == nil {
		return engine.Lesson{}, engine.Errorf(engine.KindNotFound, "sandbox %s has not learned", sb.Name).WithHint("start it with atoll policy learn")
	}
	select {
	case <-time.After(lessonDelay):
	case <-ctx.Done():
		return engine.Lesson{}, engine.AsError(ctx.Err())
	}
	out := lesson(sb, l.Now())
	if o.Name == "" {
		o.Name = sb.Name
	}
	seen := learn.New()
	q := engine.ActivityQuery{
		Kinds: learn.Kinds(), After: sb.Learning.After, Until: out.Until.Add(lessonDelay), Limit: lessonPage,
	}
	for looked := 0; ; looked += lessonPage {
		page, err := l.Ledger.Query(ctx, sb.ID, q)
		if engine.KindOf(err) == engine.KindNotFound {
			break
		}
		if err != nil {
			return engine.Lesson{}, public(err)
		}
		for _, r := range page.Items {
			seen.Add(r)
		}
		if !page.More {
			break
		}
		if looked >= lessonMost {
			out.Notes = append(out.Notes, fmt.Sprintf("only the first %d records were read", lessonMost))
			break
		}
		q.After = page.Next
	}
	policy, notes := seen.Policy(o.Name, o.Wildcards)
	text, err := policies.Format(policy)
	if err != nil {
		return engine.Lesson{}, engine.Errorf(engine.KindInvalid, "no policy can be made of what sandbox %s did: %v", sb.Name, err).WithHint("name it with 1 to 63 letters, digits, dots, dashes and underscores")
	}
	out.Policy, out.Notes = string(text), append(out.Notes, notes...)
	return out, nil
}
