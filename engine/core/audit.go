package core

import (
	"context"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/oklog/ulid/v2"

	"github.com/atoll-sh/atoll/engine"
)

// Bounds of the audit trail.
const (
	auditQueue = 4096
	auditBatch = 200
	auditField = 512 // bytes of one field
	auditDays  = 90
	auditRows  = 1_000_000
)

// audit writes entries behind the callers' backs, in order and in batches.
type audit struct {
	*Core
	queue  chan engine.AuditEntry
	closed chan struct{}
	once   sync.Once
	done   chan struct{}
}

var _ engine.AuditLog = (*audit)(nil)

func newAudit(c *Core) *audit {
	a := &audit{Core: c, queue: make(chan engine.AuditEntry, auditQueue), closed: make(chan struct{}), done: make(chan struct{})}
	go a.run()
	return a
}

// close writes what is queued and ends. Later entries are lost, so whoever
// records is closed before.
func (a *audit) close() {
	a.once.Do(func() { close(a.closed) })
	<-a.done
}

// Record queues an entry. When the store is so slow that the queue is full, it
// waits: an entry is worth more than a fast answer.
func (a *audit) Record(e engine.AuditEntry) {
	e.ID = ulid.Make().String()
	if e.At.IsZero() {
		e.At = a.Now().UTC()
	}
	for _, s := range []*string{&e.ActorEmail, &e.TargetID, &e.Error, &e.IP, &e.UserAgent, &e.Source} {
		*s = shorten(*s)
	}
	select {
	case a.queue <- e:
	case <-a.closed:
		a.Log.Error("audit entry lost", "action", e.Action, "target", e.TargetID, "actor", e.ActorID)
	}
}

// shorten cuts text without breaking a character.
func shorten(s string) string {
	if len(s) <= auditField {
		return s
	}
	n := auditField
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func (a *audit) run() {
	defer close(a.done)
	for {
		select {
		case e := <-a.queue:
			a.write(a.more(e))
		case <-a.closed:
			for len(a.queue) > 0 {
				a.write(a.more(<-a.queue))
			}
			return
		}
	}
}

// more takes what is queued behind an entry.
func (a *audit) more(first engine.AuditEntry) []engine.AuditEntry {
	batch := []engine.AuditEntry{first}
	for len(batch) < auditBatch {
		select {
		case e := <-a.queue:
			batch = append(batch, e)
		default:
			return batch
		}
	}
	return batch
}

func (a *audit) write(batch []engine.AuditEntry) {
	ctx, cancel := context.WithTimeout(context.Background(), limitInspect)
	defer cancel()
	if err := a.Store.AppendAudit(ctx, batch...); err != nil {
		a.Log.Error("audit entries lost", "entries", len(batch), "first", batch[0].Action, "error", err)
	}
}

// Audit returns entries to those who may read them.
func (a *audit) Audit(ctx context.Context, p engine.Principal, q engine.AuditQuery) (engine.AuditPage, error) {
	var err error
	if q.OrganizationID == "" {
		err = engine.Authorize(p, engine.PermissionAdmin, "")
	} else {
		_, err = accounts{a.Core}.permitted(ctx, p, engine.ReadAudit, q.OrganizationID)
	}
	if err != nil {
		return engine.AuditPage{}, err
	}
	page, err := a.Store.Audit(ctx, q)
	return page, public(err)
}

// purgeAudit keeps the trail bounded.
func (c *Core) purgeAudit(ctx context.Context) error {
	return c.Store.PurgeAudit(ctx, c.Now().Add(-auditDays*24*time.Hour), auditRows)
}
