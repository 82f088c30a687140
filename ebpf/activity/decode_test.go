package activity

import (
	"testing"
	"unsafe"

	"github.com/cilium/ebpf/btf"
)

// TestLayout compares what the C compiler wrote down with what Go reads.
func TestLayout(t *testing.T) {
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]uintptr{"event": unsafe.Sizeof(bpfEvent{}), "state": unsafe.Sizeof(bpfState{})} {
		var s *btf.Struct
		if err := spec.Types.TypeByName(name, &s); err != nil {
			t.Fatal(err)
		}
		if uintptr(s.Size) != size {
			t.Errorf("struct %s has %d bytes in C, %d in Go", name, s.Size, size)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(make([]byte, headSize))
	f.Add(make([]byte, headSize-1))
	full := make([]byte, headSize+64)
	full[unsafe.Offsetof(bpfEvent{}.Texts)] = 64
	full[unsafe.Offsetof(bpfEvent{}.Kind)] = byte(KindExec)
	f.Add(full)
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, _, err := decode(b); err == nil && len(e.Path)+len(e.To)+len(e.Binary) > len(b)-headSize+2 {
			t.Errorf("texts of %d bytes from %d", len(e.Path)+len(e.To)+len(e.Binary), len(b))
		}
	})
}
