package container

import (
	"sync"
	"testing"
)

func TestPacer(t *testing.T) {
	f := openOwnGroup()
	if f == nil {
		t.Fatal("found no control group of this process")
	}
	defer f.Close()
	if _, err := f.WriteString("0"); err != nil {
		t.Errorf("stay in the control group: %v", err)
	}
}

func TestPacerRunsOnce(t *testing.T) {
	var p pacer
	var wg sync.WaitGroup
	started := 0
	run := func(work func()) {
		started++
		wg.Go(work)
	}
	for range 3 {
		p.keep(t.Context(), run)
	}
	wg.Wait() // it ends by itself
	p.keep(t.Context(), run)
	wg.Wait()
	if started != 2 {
		t.Errorf("got %d workers, want one for the first three and one after the rest", started)
	}
}
