package core

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/atoll-sh/atoll/engine"
	"github.com/atoll-sh/atoll/policies"
)

// Bounds of what is remembered of denials, whatever sandboxes try.
const (
	denialTargets = 64 // different ones of one sandbox
	denialBoxes   = 4096
	denialMemory  = 10 * time.Minute
	denialPause   = 200 * time.Millisecond // between two writes to the store
)

// denials is what sandboxes were denied of late.
type denials struct {
	wake chan struct{}
	turn chan struct{} // one writes to the store at a time

	mu    sync.Mutex
	boxes map[string]map[string]*denial // by sandbox and request
}

// denial is a request as it was seen here. Its Count is what the store has not
// been told yet.
type denial struct {
	engine.AccessRequest
	untold bool // the store does not know its call
}

func newDenials() *denials {
	return &denials{wake: make(chan struct{}, 1), turn: make(chan struct{}, 1), boxes: map[string]map[string]*denial{}}
}

// Observe makes requests for access of the denials among what sandboxes do.
// It never waits.
func (c *Core) Observe(r engine.ActivityRecord) {
	if !isDenial(r) {
		return
	}
	if d, ok := deniedTarget(r); ok {
		c.denials.add(d, c.Now().UTC())
	}
}

// Attribute tells whose a denial was that Observe was told before its call was
// known. It never waits.
func (c *Core) Attribute(r engine.ActivityRecord) {
	if r.Call == "" || !isDenial(r) {
		return
	}
	if d, ok := deniedTarget(r); ok {
		c.denials.attribute(d)
	}
}

func isDenial(r engine.ActivityRecord) bool {
	return r.Kind == engine.ActivityDeny || r.Kind == engine.ActivityDNS && r.Verdict == "deny"
}

// deniedTarget makes a request of a denial that an approval could undo: one by
// a rule of the policy, about a proper name or an address of the internet.
func deniedTarget(r engine.ActivityRecord) (engine.AccessRequest, bool) {
	d := engine.AccessRequest{SandboxID: r.Sandbox, Rule: r.Rule, Reason: r.Reason, Call: r.Call, Protocol: r.Protocol, State: engine.AccessPending}
	if r.Inbound || r.Sandbox == "" || r.Rule == "" || refusedForGood(r.Rule) || r.Kind == engine.ActivityDeny && r.Protocol == "" {
		return d, false
	}
	host, port := r.Host, ""
	if i := strings.LastIndexByte(r.Remote, ':'); i >= 0 {
		port = r.Remote[i+1:]
	}
	if to, err := netip.ParseAddrPort(r.Remote); err == nil {
		d.Address, d.Port = to.Addr().Unmap().String(), to.Port()
	} else if a, err := netip.ParseAddr(r.Remote); err == nil {
		d.Address = a.Unmap().String()
	} else if n, err := strconv.ParseUint(port, 10, 16); err == nil {
		d.Port = uint16(n)
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		host = "" // a request may name an address; where it went counts
	}
	if host != "" {
		name, err := policies.CanonicalName(host)
		if err != nil {
			return d, false
		}
		d.Host, d.Address = name, ""
	} else if !openable(d.Address) || d.Port == 0 && d.Protocol != "icmp" {
		return d, false
	}
	d.ID = accessID(d)
	return d, true
}

// openable tells whether a policy may open an address at all.
func openable(text string) bool {
	a, err := netip.ParseAddr(text)
	if err != nil || a.IsPrivate() || a.Zone() != "" {
		return false
	}
	_, blocked := policies.BlockedAddress(a)
	return !blocked
}

// accessID names what was denied to whom.
func accessID(r engine.AccessRequest) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{r.SandboxID, r.Host, r.Address, strconv.Itoa(int(r.Port)), r.Protocol}, "\n")))
	return "acc-" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:10]))
}

// tell has what changed stored soon. The caller has locked d.
func (d *denials) tell() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *denials) attribute(r engine.AccessRequest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if known := d.boxes[r.SandboxID][r.ID]; known != nil && known.Call != r.Call {
		known.Call, known.untold = r.Call, true
		d.tell()
	}
}

func (d *denials) add(r engine.AccessRequest, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tell()
	box := d.boxes[r.SandboxID]
	if box == nil {
		if len(d.boxes) >= denialBoxes {
			return
		}
		box = map[string]*denial{}
		d.boxes[r.SandboxID] = box
	}
	known := box[r.ID]
	if known == nil {
		if len(box) >= denialTargets {
			return
		}
		known = &denial{AccessRequest: r}
		known.FirstAt = now
		box[r.ID] = known
	}
	known.LastAt, known.Rule, known.Reason = now, r.Rule, r.Reason
	if r.Call != "" {
		known.Call = r.Call
	}
	known.Count++
}

// since returns what a sandbox was denied from a time on.
func (d *denials) since(sandbox string, t time.Time) []engine.AccessRequest {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []engine.AccessRequest
	for _, r := range d.boxes[sandbox] {
		if !r.LastAt.Before(t) {
			shown := r.AccessRequest
			shown.State = ""
			out = append(out, shown)
		}
	}
	slices.SortFunc(out, func(a, b engine.AccessRequest) int { return a.LastAt.Compare(b.LastAt) })
	return out
}

// take returns what the store has not been told, by sandbox, and forgets what
// is old.
func (d *denials) take(now time.Time) map[string][]engine.AccessRequest {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[string][]engine.AccessRequest{}
	for sandbox, box := range d.boxes {
		for id, r := range box {
			if r.Count > 0 || r.untold {
				out[sandbox] = append(out[sandbox], r.AccessRequest)
				r.Count, r.untold = 0, false
			} else if now.Sub(r.LastAt) > denialMemory {
				delete(box, id)
			}
		}
		if len(box) == 0 {
			delete(d.boxes, sandbox)
		}
	}
	return out
}

// giveBack keeps what the store did not take for the next denial's turn.
func (d *denials) giveBack(sandbox string, list []engine.AccessRequest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range list {
		if known := d.boxes[sandbox][r.ID]; known != nil {
			known.Count += r.Count
			known.untold = known.Call != ""
		}
	}
}

func (d *denials) forget(sandbox string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.boxes, sandbox)
}

// tendDenials stores denials until ctx ends.
func (c *Core) tendDenials(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.denials.wake:
		}
		c.keepDenials(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(denialPause):
		}
	}
}

// keepDenials stores what has not been stored and tells of what is new. When
// it returns, denials from before the call are stored.
func (c *Core) keepDenials(ctx context.Context) {
	select {
	case c.denials.turn <- struct{}{}:
		defer func() { <-c.denials.turn }()
	case <-ctx.Done():
		return
	}
	now := c.Now().UTC()
	for sandbox, list := range c.denials.take(now) {
		if err := c.keepDenialsOf(context.WithoutCancel(ctx), sandbox, list, now); err != nil {
			c.denials.giveBack(sandbox, list)
			c.Log.Warn("requests for access not stored yet", "sandbox", sandbox, "error", err)
		}
	}
}

func (c *Core) keepDenialsOf(ctx context.Context, sandbox string, list []engine.AccessRequest, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, limitInspect)
	defer cancel()
	sb, err := c.Store.SandboxByID(ctx, sandbox)
	if engine.KindOf(err) == engine.KindNotFound || err == nil && sb.State == engine.StateDestroyed {
		c.denials.forget(sandbox)
		return nil
	}
	if err != nil {
		return err
	}
	for i := range list {
		list[i].OrganizationID = sb.OrganizationID
	}
	slices.SortFunc(list, func(a, b engine.AccessRequest) int { return a.FirstAt.Compare(b.FirstAt) })
	fresh, err := c.Store.RecordAccess(ctx, sandbox, list, now)
	if err != nil {
		return err
	}
	for _, r := range fresh {
		c.tellAccess(engine.EventAccessRequested, &sb, r)
	}
	return nil
}
