package main

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine"
)

func TestDoctorTellsOfNetworkLists(t *testing.T) {
	const name = "network lists"
	no := errors.New("no")
	works, fails := func() error { return nil }, func() error { return no }
	for what, c := range map[string]struct{ got, want engine.Check }{
		"TCX":    {networkLists(true, nil, works), engine.Check{Name: name, OK: true, Detail: "enforced by programs in the kernel (TCX)"}},
		"clsact": {networkLists(true, nil, fails), engine.Check{Name: name, OK: true, Detail: "enforced by programs in the kernel (clsact)"}},
		"not": {networkLists(false, no, works), engine.Check{
			Name: name, Detail: "not enforced, and refused: no",
			Fix: "use Linux 5.12 or later with CONFIG_BPF_SYSCALL, CONFIG_NET_CLS_BPF and a BPF file system",
		}},
	} {
		if d := cmp.Diff(c.want, c.got); d != "" {
			t.Errorf("%s: %s", what, d)
		}
	}
}
