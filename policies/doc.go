// Package policies says what a sandbox and the agent that drives it may do:
// which hosts it may talk to, how much it may use, which tools its key may
// call, which programs and files it may touch, which secrets it may carry.
//
// A policy is a YAML document. Parse reads one and names every fault in it at
// once; Decide answers one question about it with the rule that decided. The
// package does no I/O and knows no clock: enforcement, in the kernel and in
// proxies, is compiled from the same values that Decide judges, so that what
// Explain says is what happens.
//
// Two principles hold everywhere. A question that no rule answers gets the
// section's default, and the default of egress is to refuse. And among the
// rules that match, one that denies wins, whatever their order: a policy can
// be read in any order, and adding a rule that denies never opens anything.
package policies
