package network

import (
	"fmt"
	"net/netip"
	"strings"
)

// Slot is one sandbox's network. It is a plain value that may be stored; the
// Manager of the same server knows it again after a restart.
type Slot struct {
	Index    int        `json:"index"`
	NetNS    string     `json:"netns"`  // path of the namespace
	Device   string     `json:"device"` // host end of the veth pair; the other end is eth0 inside
	Addr4    netip.Addr `json:"addr4"`
	Gateway4 netip.Addr `json:"gateway4"`
	Addr6    netip.Addr `json:"addr6"` // zero where the host has no IPv6
	Gateway6 netip.Addr `json:"gateway6"`
	// UIDBase is the first of 65536 host user ids that no other slot on this
	// host has. Unprivileged ping works for ids below 2^31 only, so not in the
	// upper half of the servers' indexes: the kernel's limit.
	UIDBase uint32 `json:"uidBase"`
}

// ResolvConf returns the text of the sandbox's /etc/resolv.conf. Names are
// asked from the server's relay on the gateway address, nowhere else.
func ResolvConf(s Slot) string {
	var b strings.Builder
	fmt.Fprintf(&b, "nameserver %s\n", s.Gateway4)
	if s.Gateway6.IsValid() {
		fmt.Fprintf(&b, "nameserver %s\n", s.Gateway6)
	}
	b.WriteString("options edns0 timeout:3 attempts:2\n")
	return b.String()
}
