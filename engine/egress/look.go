package egress

import (
	"context"
	"net/netip"
	"time"

	"github.com/atoll-sh/atoll/engine"
)

// lookEvery is how often it is looked for what nobody tells of: events that the
// kernel dropped, records that repeat, programs that somebody took away.
const lookEvery = 5 * time.Second

// tellOnce is tell for what a sandbox can repeat at will: what is alike is one
// record, and later another one that says how often.
func (f *Filter) tellOnce(index int, r engine.ActivityRecord) {
	t := f.teller.Load()
	if t == nil {
		return
	}
	f.mu.Lock()
	st := f.slots[index]
	f.mu.Unlock()
	if h := (Holding{index, 0}); st != nil {
		h.Number = st.number
		if f.folds.take(h, r, time.Now()) {
			(*t)(h, r)
		}
	}
}

// tellLast tells what is left to tell of a slot that is no more.
func (f *Filter) tellLast(st *slot) {
	t := f.teller.Load()
	if t == nil {
		return
	}
	f.folds.end(st.number, *t)
	f.mu.Lock()
	early := f.earlyLocked(st)
	f.mu.Unlock()
	if early > 0 {
		(*t)(Holding{st.device.Slot, st.number}, earlyRecord(early))
	}
}

// look tells, until ctx ends, what is found by looking only.
func (f *Filter) look(ctx context.Context, tell teller) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	defer f.folds.all(tell)
	losses := f.losses()
	mend := f.mender()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		f.mu.Lock()
		held := make([]Holding, 0, len(f.slots))
		for i, st := range f.slots {
			held = append(held, Holding{i, st.number})
		}
		f.mu.Unlock()
		mend(held, tell)
		f.tellEarly(held, tell)
		losses(held, tell)
		f.folds.due(time.Now(), tell)
	}
}

// losses returns what tells how many events the kernel had no room for, or kept
// back, since it was called last.
func (f *Filter) losses() func(held []Holding, tell teller) {
	seen := map[uint32]uint64{}
	return func(held []Holding, tell teller) {
		now := make(map[uint32]uint64, len(held))
		for _, h := range held {
			s, err := f.kernel.Stats(h.Number)
			if err != nil {
				continue
			}
			n := s.Lost + s.Suppressed
			now[h.Number] = n
			if before, known := seen[h.Number]; known && n > before {
				tell(h, engine.ActivityRecord{Kind: engine.ActivityLoss, Lost: n - before, Reason: "more connections than the kernel reports"})
			}
		}
		seen = now
	}
}

// Reasons of what is told of packets without looking at each.
const (
	reasonEarly   = "no-policy" // sent before the slot had a policy
	reasonUnasked = "unasked"   // sent to the sandbox, and no answer to anything
)

// earlyRecord is of packets that a sandbox sent before it had a policy. The
// kernel counts them.
func earlyRecord(n uint64) engine.ActivityRecord {
	return engine.ActivityRecord{Kind: engine.ActivityDeny, Count: n, Reason: reasonEarly}
}

// earlyLocked takes the number of packets that came before the policy and were
// not told yet.
func (f *Filter) earlyLocked(st *slot) uint64 {
	n := f.kernel.Early(st.device)
	fresh := n - min(n, st.early)
	st.early = n
	return fresh
}

// tellEarly tells what slots sent that have a policy by now. Those that have
// none are nobody's yet.
func (f *Filter) tellEarly(held []Holding, tell teller) {
	for _, h := range held {
		f.mu.Lock()
		var n uint64
		if st := f.slots[h.Slot]; st != nil && st.number == h.Number && st.policy != nil {
			n = f.earlyLocked(st)
		}
		f.mu.Unlock()
		if n > 0 {
			tell(h, earlyRecord(n))
		}
	}
}

// mender returns what puts programs back that somebody took from a device, and
// tells of the time in between, in which the guard let nothing pass. The device
// gets its policy again; its flows are judged anew, and names must be asked for
// again.
func (f *Filter) mender() func(held []Holding, tell teller) {
	last := time.Now().UTC()
	return func(held []Holding, tell teller) {
		from, to := last, time.Now().UTC()
		last = to
		for _, h := range held {
			if f.mend(h) {
				tell(h, engine.ActivityRecord{Kind: engine.ActivityGap, From: &from, To: &to, Reason: "the network programs were taken from the device; nothing passed until they were put back"})
			}
		}
	}
}

// mend tells whether a slot's programs were gone and are back.
func (f *Filter) mend(h Holding) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.slots[h.Slot]
	if st == nil || st.number != h.Number || f.kernel.Attached(st.device) {
		return false
	}
	if err := f.kernel.Attach(st.device); err != nil {
		f.log.Error("the network programs of a device are gone and cannot be put back", "slot", h.Slot, "device", st.device.Name, "err", err)
		return false
	}
	st.names = map[netip.Addr]string{}
	if st.policy != nil {
		if err := f.enforceLocked(st, st.policy); err != nil {
			f.log.Error("the policy of a device whose programs were put back does not apply, so that it stays closed", "slot", h.Slot, "err", err)
		}
	}
	f.log.Warn("the network programs of a device were gone and are put back", "slot", h.Slot, "device", st.device.Name)
	return true
}

// Unasked implements network.Filter.
func (f *Filter) Unasked(index int, packets uint64) {
	f.tellOnce(index, engine.ActivityRecord{Kind: engine.ActivityDeny, Inbound: true, Count: packets, Reason: reasonUnasked})
}
