package runner

// Holder returns which sandbox uses a network slot now; empty when none does.
func (r *Runner) Holder(slot int) (sandbox string, incarnation uint64) {
	for _, in := range r.all() {
		in.mu.Lock()
		index, held := in.rec.Slot.Index, in.rec.Slot.Device != "" && in.rec.Phase != phaseStopped
		sandbox, incarnation = in.rec.Sandbox, in.rec.Launch.Incarnation
		in.mu.Unlock()
		if held && index == slot {
			return sandbox, incarnation
		}
	}
	return "", 0
}

// SandboxOf returns which sandbox an instance holds; empty when it is not known.
func (r *Runner) SandboxOf(id string) (sandbox string, incarnation uint64) {
	r.mu.Lock()
	in := r.instances[id]
	r.mu.Unlock()
	if in == nil {
		return "", 0
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.rec.Sandbox, in.rec.Launch.Incarnation
}
