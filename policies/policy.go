package policies

import (
	"net/netip"
	"time"
)

// Policy is one document. The zero value of each section but Egress leaves its
// subject to the server's own limits; the zero Egress refuses everything.
type Policy struct {
	Name        string // letters, digits, dots, dashes and underscores; at most 63
	Description string // one line, for people
	Egress      Egress
	Resources   Resources
	Tools       Tools
	// BestEffort lets a sandbox run where the host cannot enforce Exec and
	// Files. Otherwise it is refused there.
	BestEffort bool
	Exec       Paths
	Files      Files
	Lifecycle  Lifecycle
	Secrets    Secrets
}

// Verdict is what a rule, or a default, says.
type Verdict string

// The verdicts.
const (
	Deny  Verdict = "deny"
	Allow Verdict = "allow"
)

// Egress says where packets may go. Addresses that Blocked lists, and those a
// runner adds to it, stay closed whatever the rules say.
type Egress struct {
	Default Verdict // empty is Deny
	Rules   []EgressRule
	ECH     ECH // empty is ECHRefuse
}

// ECH says what becomes of a TLS hello whose true host name is encrypted, where
// connections are judged by name. Browsers send one that hides nothing where
// they know no keys, and nobody can tell the two apart.
type ECH string

// What can be done. ECHOuter judges the name outside and goes to that name's own
// host, so that what is inside stays with what that host serves; a host that
// fronts for others may serve them, too.
const (
	ECHRefuse ECH = "refuse"
	ECHOuter  ECH = "outer"
)

// EgressRule matches a connection when one of its targets and one of its ports
// do.
type EgressRule struct {
	Name     string // unique within the policy
	Verdict  Verdict
	Hosts    []Host
	Networks []netip.Prefix // masked; IPv4-mapped IPv6 prefixes are kept as IPv4
	// Variables stand for hosts that are filled in later, see Policy.Expand.
	Variables []string `json:",omitempty"`
	// Ports that the rule is about. Empty means 80 and 443 over TCP for hosts,
	// and everything that Protocols lists for networks.
	Ports []Ports
}

// Protocol is what a connection speaks right above IP.
type Protocol string

// The protocols a rule can be about. Whatever else there is, as GRE, SCTP or
// raw IP, is never allowed.
const (
	TCP  Protocol = "tcp"
	UDP  Protocol = "udp"
	ICMP Protocol = "icmp" // echo requests, over IPv4 and IPv6
)

// Ports is a range of ports of one protocol. First and Last are 0 for ICMP.
type Ports struct {
	Protocol    Protocol
	First, Last uint16 // both included
}

// Resources bound what a sandbox may ask for. Zero fields do not bound.
type Resources struct {
	CPU       float64 // cores
	MemoryMiB int64
	DiskMiB   int64
	PIDs      int64
	Sandboxes int // that may exist at once under this policy
}

// Tools says which tools and operations a key may call.
type Tools struct {
	Allow    []string // globs as "sandbox_*"; empty allows all
	Deny     []string
	ReadOnly bool // only those that change nothing
}

// Confines tells whether the policy has rules about programs or files.
func (p *Policy) Confines() bool {
	return !p.Exec.empty() || !p.Files.Read.empty() || !p.Files.Write.empty()
}

func (p Paths) empty() bool { return len(p.Allow) == 0 && len(p.Deny) == 0 }

// Paths says which programs may run. Enforced where the kernel can.
type Paths struct {
	Allow []string // globs; empty allows all
	Deny  []string
}

// Files says which files may be read and written, with ** for any depth.
// Enforced where the kernel can.
type Files struct {
	Read, Write Paths
}

// Lifecycle bounds the timers of a sandbox. Zero fields do not bound.
type Lifecycle struct {
	AutoStop time.Duration // longest idle time before a stop
	TTL      time.Duration // longest life
}

// Secrets says which secrets may be attached.
type Secrets struct {
	Allow []string // globs of names; nil allows none, ["*"] all
}
