package network

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPlansNeverOverlap(t *testing.T) {
	uids, addrs := map[uint32]bool{}, map[netip.Addr]bool{}
	for i := range servers {
		p := plan{ID: "x", Index: i}
		var err error
		p.Prefix4, err = choosePrefix4(i, nil)
		must(t, err)
		for n := firstSlot; n <= p.last(); n++ {
			s := p.slot(n)
			if uids[s.UIDBase] || addrs[s.Addr4] || !p.Prefix4.Contains(s.Addr4) || s.Addr4 == s.Gateway4 {
				t.Fatalf("slot %d of server %d: %+v", n, i, s)
			}
			uids[s.UIDBase], addrs[s.Addr4] = true, true
			if want := uint64(firstUIDs+i*perServer+n) * uidBlock; uint64(s.UIDBase) != want || want+uidBlock > 1<<32-1 {
				t.Fatalf("slot %d of server %d has user ids from %d", n, i, s.UIDBase)
			}
			if len(s.Device) > 15 {
				t.Fatalf("device name %s is too long", s.Device)
			}
		}
	}
}

func TestDevicePrefixesAreNoPrefixesOfEachOther(t *testing.T) {
	for _, id := range []string{"a", "ab", "a-1", "12345678", "a-long-server-id"} {
		if got := len(devicePrefix(id)); got != 11 {
			t.Errorf("%s: prefix of %d characters, want 11", id, got)
		}
	}
}

func TestChoosePrefixAvoidsTheHostsNetworks(t *testing.T) {
	used := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.20.33.0/24")}
	got, err := choosePrefix4(2, used)
	must(t, err)
	if want := netip.MustParsePrefix("172.21.32.0/20"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	first, err := choosePrefix6("x", nil)
	must(t, err)
	second, err := choosePrefix6("x", []netip.Prefix{first})
	must(t, err)
	if first == second {
		t.Error("a used IPv6 range was chosen")
	}
}

func TestSpans(t *testing.T) {
	var in []netip.Prefix
	for _, s := range []string{"10.1.0.0/16", "10.0.0.0/8", "11.0.0.0/8", "255.0.0.0/8", "192.0.2.7/32", "fd00::/8", "255.255.255.255/32"} {
		in = append(in, netip.MustParsePrefix(s))
	}
	show := func(ss []span) (out []string) {
		for _, s := range ss {
			out = append(out, s.from.String()+"-"+s.to.String())
		}
		return out
	}
	want := []string{"10.0.0.0-11.255.255.255", "192.0.2.7-192.0.2.7", "255.0.0.0-255.255.255.255"}
	if d := cmp.Diff(want, show(spans(in, false))); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"fd00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}, show(spans(in, true))); d != "" {
		t.Error(d)
	}
}

// The networks that tests call the internet must not be denied.
func TestDeniedNetworks(t *testing.T) {
	denied := append(spans(neverAllowed(), false), spans(neverAllowed(), true)...)
	is := func(a netip.Addr) bool {
		for _, s := range denied {
			if s.from.BitLen() == a.BitLen() && s.from.Compare(a) <= 0 && a.Compare(s.to) <= 0 {
				return true
			}
		}
		return false
	}
	for s, want := range map[string]bool{
		"198.51.100.1": false, "203.0.113.255": false, "8.8.8.8": false, "1.1.1.1": false, "223.255.255.255": false,
		"2001:db8::1": false, "2606:4700::1111": false, "2a00::1": false, "3fff::1": false,
		"0.0.0.0": true, "10.255.255.255": true, "100.64.0.1": true, "127.0.0.53": true, "169.254.169.254": true,
		"172.31.0.1": true, "192.168.0.1": true, "198.19.255.255": true, "224.0.0.1": true, "255.255.255.255": true,
		"::": true, "::1": true, "::ffff:8.8.8.8": true, "64:ff9b::808:808": true, "fd00::1": true, "fe80::1": true,
		"ff02::1": true, "2002::1": true, "2001::1": true, "fec0::1": true, "100::1": true,
	} {
		if got := is(netip.MustParseAddr(s)); got != want {
			t.Errorf("%s denied: got %t, want %t", s, got, want)
		}
	}
}
