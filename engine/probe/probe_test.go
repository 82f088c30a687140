package probe

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The suite runs where sandboxes run, so nothing needed may be missing.
func TestHost(t *testing.T) {
	home := t.TempDir()
	r := Host(t.Context(), Options{Home: home})
	seen := map[string]bool{}
	for _, c := range r.Checks {
		t.Logf("%-24s ok=%-5t %s | %s", c.Name, c.OK, c.Detail, c.Fix)
		if c.Needed && !c.OK {
			t.Errorf("%s: %s", c.Name, c.Detail)
		}
		if c.Name == "" || c.Detail == "" || seen[c.Name] {
			t.Errorf("a check without name or detail, or twice: %+v", c)
		}
		if c.Needed && !c.OK && c.Fix == "" {
			t.Errorf("%s: no fix", c.Name)
		}
		seen[c.Name] = true
	}
	// What the probe mounts lies below the home or carries its name. Other mounts
	// come and go with whatever else runs here, be it another probe.
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		var left []string
		for line := range strings.Lines(string(mounts)) {
			if strings.Contains(line, home) || strings.Contains(line, "atoll-probe-") {
				left = append(left, line)
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("left mounted: %q", left)
		}
	}
}

func TestParseVersion(t *testing.T) {
	for in, want := range map[string]version{
		"runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1\n": {1, 1, 5},
		"runc version 1.3.3\n":          {1, 3, 3},
		"runc version 1.4.0-rc.3\n":     {1, 4, 0},
		"runc version 1.4.0-rc.2\n":     {1, 3, 0},
		"runc version 1.4.0\n":          {1, 4, 0},
		"crun version 1.8.1\ncommit: x": {1, 8, 1},
		"crun version 1.21\n":           {1, 21, 0},
		"runc version 1.2.8-0ubuntu1\n": {1, 2, 8},
		"something else\n":              {},
	} {
		if got, _ := parseVersion(in); got != want {
			t.Errorf("%q: got %v, want %v", in, got, want)
		}
	}
}

func TestKnownRepair(t *testing.T) {
	for pkg, want := range map[string]bool{
		"1.1.5+ds1-1+deb12u1":      true,
		"1.1.5+ds1-1+deb12u2":      true,
		"1.1.5+ds1-1":              false,
		"1.0.0~rc93+ds1-5+deb11u2": false,
		"1.0.0~rc93+ds1-5+deb11u3": true,
		"1.1.7-0ubuntu1~22.04.1":   false,
		"1.1.7-0ubuntu1~22.04.2":   true,
	} {
		if got := knownRepair(pkg); got != want {
			t.Errorf("%s: got %t, want %t", pkg, got, want)
		}
	}
}

// A firewall as Docker's or ufw's is seen, and seen as mended by the fix.
func TestFirewalls(t *testing.T) {
	err := apart(unix.CLONE_NEWNET, func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		if got := firewalls(t.Context(), Options{}); !got.OK {
			t.Errorf("without any: %+v", got)
		}
		drop := nftables.ChainPolicyDrop
		table := c.AddTable(&nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4})
		c.AddChain(&nftables.Chain{
			Name: "FORWARD", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop,
		})
		if err := c.Flush(); err != nil {
			return err
		}
		got := firewalls(t.Context(), Options{})
		if got.OK || !strings.Contains(got.Detail, "FORWARD") || got.Fix == "" {
			t.Errorf("with a dropping one: %+v", got)
		}
		rule(c, &nftables.Chain{Name: "FORWARD", Table: table}, &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte("at")}, &expr.Verdict{Kind: expr.VerdictAccept})
		if err := c.Flush(); err != nil {
			return err
		}
		if got := firewalls(t.Context(), Options{}); !got.OK {
			t.Errorf("with the fix applied: %+v", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestKVMAnswersInTime(t *testing.T) {
	c := kvm(t.Context(), Options{})
	if _, err := os.Stat("/dev/kvm"); err != nil {
		t.Skip("no /dev/kvm")
	}
	if c.Detail == "" || (!c.OK && c.Fix == "") {
		t.Errorf("got %+v", c)
	}
}
