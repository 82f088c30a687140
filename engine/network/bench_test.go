package network

import "testing"

func BenchmarkAcquireReady(b *testing.B) {
	m := benchManager(b, 16)
	for b.Loop() {
		b.StopTimer()
		for len(m.ready) < m.want {
			m.wake(m.refill)
		}
		b.StartTimer()
		s, err := m.Acquire(b.Context())
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
		if err := m.Release(b.Context(), s); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkBuild(b *testing.B) {
	m := benchManager(b, 0)
	for b.Loop() {
		s, err := m.Acquire(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := m.Release(b.Context(), s); err != nil {
			b.Fatal(err)
		}
		for m.tearing() { // so that it does not share the cores
		}
		b.StartTimer()
	}
}

func (m *Manager) tearing() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.slots {
		if p == phaseDying {
			return true
		}
	}
	return false
}

func BenchmarkApplyAllow(b *testing.B) {
	m := benchManager(b, 0)
	s, err := m.Acquire(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := m.Apply(b.Context(), s, *allowAll()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := m.Apply(b.Context(), s, *blockAll()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkApplyBlock(b *testing.B) {
	m := benchManager(b, 0)
	s, err := m.Acquire(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		if err := m.Apply(b.Context(), s, *allowAll()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := m.Apply(b.Context(), s, *blockAll()); err != nil {
			b.Fatal(err)
		}
	}
}

func benchManager(b *testing.B, ready int) *Manager {
	b.Helper()
	m, err := Open(b.Context(), Config{ID: "bench", Index: -1, Ready: ready})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := m.Destroy(b.Context()); err != nil && b.Context().Err() == nil {
			b.Error(err)
		}
	})
	return m
}
