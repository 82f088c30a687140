package egress

import (
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// device makes a device with an index of the test's choice, which is how one
// gets the index of another that went.
func device(t *testing.T, name string, index int) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Index = name, index
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name + "p"}); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, index int) {
	t.Helper()
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(l); err != nil {
		t.Fatal(err)
	}
}

// alone gives the test a network namespace of its own.
func alone(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

// TestIndexOfAnotherDevice gives a device the index of one that went, in the
// same process and in the next one: nothing of the former policy, names or
// flows may be the new one's.
func TestIndexOfAnotherDevice(t *testing.T) {
	alone(t)
	f := open(t)
	const index = 4711
	first := loopback
	first.Name, first.Index = "first0", index
	apply := func(f *Filter, d Device, sandbox uint32) {
		t.Helper()
		if err := f.Apply(d, sandbox, Policy{DefaultAllow: true}); err != nil {
			t.Fatal(err)
		}
		if err := f.Learn(sandbox, netip.MustParseAddr("203.0.113.9"), Name{TTL: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	attach := func(f *Filter, d Device) {
		t.Helper()
		if err := f.Attach(d); err != nil {
			t.Fatal(err)
		}
	}
	closed := func(f *Filter, d Device, story string) {
		t.Helper()
		if n, had := f.Sandbox(d); had {
			t.Errorf("%s: the device has the policy of sandbox %d", story, n)
		}
		var k bpfNameKey
		var v bpfNameRule
		if f.objs.Names.Iterate().Next(&k, &v) {
			t.Errorf("%s: names of sandbox %d are left", story, k.Sandbox)
		}
		if len(f.entries) != 0 {
			t.Errorf("%s: rules are left: %v", story, f.entries)
		}
	}

	device(t, first.Name, index)
	attach(f, first)
	closed(f, first, "a new device")
	apply(f, first, 5)
	attach(f, first)
	if n, had := f.Sandbox(first); !had || n != 5 {
		t.Errorf("a device that stayed lost its policy: %d, %v", n, had)
	}

	remove(t, index)
	second := first
	second.Name, second.Slot = "second0", 9
	device(t, second.Name, index)
	attach(f, second)
	closed(f, second, "the index of another")
	apply(f, second, 6)
	if err := f.Detach(first); err != nil {
		t.Fatal(err)
	}
	if n, had := f.Sandbox(second); !had || n != 6 {
		t.Errorf("the end of the former device took the policy of the new one: %d, %v", n, had)
	}

	// The same name, slot and index, while no process looked.
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	remove(t, index)
	device(t, second.Name, index)
	f = openAt(t, filepath.Dir(f.dir))
	attach(f, second)
	closed(f, second, "the name and index of another")
	apply(f, second, 7)

	// One that went and did not come again.
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	remove(t, index)
	f = openAt(t, filepath.Dir(f.dir))
	closed(f, second, "a device that is gone")
	if got := f.Sandboxes(); len(got) != 0 {
		t.Errorf("sandboxes %v are left", got)
	}
}

func TestSetLogAllow(t *testing.T) {
	f := open(t)
	if err := f.Apply(loopback, 9, Policy{Silent: true}); err != nil {
		t.Fatal(err)
	}
	before, _ := f.config(loopback.Index)
	for _, on := range []bool{true, true, false} {
		if err := f.SetLogAllow(on); err != nil {
			t.Fatal(err)
		}
		c, _ := f.config(loopback.Index)
		if c.Flags&flagLogAllow != 0 != on {
			t.Errorf("asked for %v, the flags are %b", on, c.Flags)
		}
		if c.Gen != before.Gen {
			t.Error("flows are judged again, though no rule changed")
		}
	}
}

// TestAttached takes the programs from a device, and then the device.
func TestAttached(t *testing.T) {
	alone(t)
	f := open(t)
	d := loopback
	d.Name, d.Index = "attached0", 4712
	device(t, d.Name, d.Index)
	if f.Attached(d) {
		t.Error("a device without the programs has them")
	}
	if err := f.Attach(d); err != nil {
		t.Fatal(err)
	}
	if !f.Attached(d) {
		t.Error("a device has lost the programs")
	}
	for _, end := range []string{"in", "out"} {
		if os.Remove(f.pin(d, end)) != nil { // a kernel without such links
			continue
		}
		for stop := time.Now().Add(10 * time.Second); f.Attached(d); time.Sleep(time.Millisecond) {
			if time.Now().After(stop) {
				t.Fatalf("without the program %q the device still has both", end)
			}
		}
		if err := f.Attach(d); err != nil || !f.Attached(d) {
			t.Errorf("they cannot be put back: %v", err)
		}
	}
	remove(t, d.Index)
	if !f.Attached(d) {
		t.Error("a device that is gone wants programs")
	}
}
