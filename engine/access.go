package engine

import (
	"context"
	"net/netip"
	"strconv"
	"time"
)

// AccessState is how far a request for access is.
type AccessState string

// The states of a request.
const (
	AccessPending  AccessState = "pending"  // waits for an operator
	AccessApproved AccessState = "approved" // until Until
	AccessDenied   AccessState = "denied"   // remembered until Until, and not asked again before
)

// The events about requests.
const (
	EventAccessRequested = "sandbox.access.requested"
	EventAccessDecided   = "sandbox.access.decided"
)

// AccessRequest is something that a sandbox's network policy denied and that an
// operator may allow. Its id follows from the sandbox and what was denied, so
// the same thing is one request, however often it is denied. Host is a proper
// name, and Host or Address is set.
type AccessRequest struct {
	ID             string      `json:"id"`
	OrganizationID string      `json:"organizationId"`
	SandboxID      string      `json:"sandboxId"`
	SandboxName    string      `json:"sandboxName"`
	Host           string      `json:"host,omitempty"`
	Address        string      `json:"address,omitempty"`
	Port           uint16      `json:"port,omitempty"`     // 0: for a host, it was denied before its port was known
	Protocol       string      `json:"protocol,omitempty"` // tcp, udp or icmp; as Port
	Rule           string      `json:"rule"`               // of the policy that denied it
	Reason         string      `json:"reason,omitempty"`
	Call           string      `json:"call,omitempty"` // id of the call that caused it, when that is known
	State          AccessState `json:"state"`
	Count          int64       `json:"count"` // of denials
	FirstAt        time.Time   `json:"firstAt"`
	LastAt         time.Time   `json:"lastAt"`
	DecidedAt      time.Time   `json:"decidedAt,omitzero"`
	DecidedBy      string      `json:"decidedBy,omitempty"` // id of a user
	Until          time.Time   `json:"until,omitzero"`      // of a decision; zero: for good
}

// Target is what the request is about, as example.com:443.
func (r AccessRequest) Target() string {
	target := r.Host
	if target == "" {
		target = r.Address
	}
	switch {
	case r.Protocol == "icmp":
		return target + " (icmp)"
	case r.Port == 0:
		return target
	}
	if a, err := netip.ParseAddr(target); err == nil && a.Is6() {
		target = "[" + target + "]"
	}
	target += ":" + strconv.Itoa(int(r.Port))
	if r.Protocol != "" && r.Protocol != "tcp" {
		target += "/" + r.Protocol
	}
	return target
}

// AccessQuery selects requests of one organization. Empty fields do not
// filter.
type AccessQuery struct {
	OrganizationID string
	Sandbox        string // id or name
	State          AccessState
	Limit          int // 0: 100; at most 1000
}

// AccessRequests is what sandboxes were denied, and who decides about it. The gateway
// calls it, and MCP to tell an agent of denials; no tool may decide.
type AccessRequests interface {
	// Requests returns what was asked for, the latest denial first.
	Requests(ctx context.Context, q AccessQuery) ([]AccessRequest, error)
	// Denied returns what a sandbox was denied within the given time, the first
	// denial first. One whose State is empty is not kept, because too many are.
	Denied(ctx context.Context, ref SandboxRef, within time.Duration) ([]AccessRequest, error)
	// Approve opens what a request is about, at once and without cutting
	// connections, for a time; 0: until the sandbox's network settings change.
	// It needs write:sandboxes, as Deny.
	Approve(ctx context.Context, p Principal, id string, period time.Duration) (AccessRequest, error)
	// Deny refuses a request, or ends what was approved. For a time it is not
	// asked again; 0: an hour.
	Deny(ctx context.Context, p Principal, id string, period time.Duration) (AccessRequest, error)
}
