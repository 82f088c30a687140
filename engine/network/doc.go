// Package network gives every sandbox its own network: a network namespace,
// a veth pair with one address per family, a way out through NAT, and nothing
// else. There is no segment that two sandboxes share.
//
// A Manager hands out slots. A slot is built ahead of need and blocked until
// Apply opens it. One nftables table per server holds the guard: a packet of a
// sandbox passes only when its device and source address are both in the open
// set, so a missing element, like a missing policy, means no network. The
// table lives on when the server stops and is adopted by Open; the DNS relay
// does not, so names fail while the server is down.
package network
