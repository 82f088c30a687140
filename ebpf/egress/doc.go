// Package egress is the kernel side of network policies: two programs on the
// host end of each sandbox's device judge every packet, before anything inside
// the sandbox can and whether or not this process lives.
//
// A Filter loads the programs, or adopts those that an earlier process pinned.
// Attach closes a device until Apply gives it a policy. A policy is replaced in
// one step: its rules go in under a new number, then one map entry moves the
// device to that number and to a new generation. Flows of an older generation
// are judged again at their next packet, so that those still allowed go on and
// the others are cut.
//
// The order of judgement of a new flow: the server's own name relay; a rule
// about the address that denies; the block list, unless a rule overrides it; a
// rule that allows; an address that a name was resolved to; the proxy; the
// default. Protocols other than TCP, UDP and echo are always refused.
package egress
