// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
#pragma once
/* Only UAPI headers: vmlinux.h puts preserve_access_index on __sk_buff, which
 * compilers turn into "dereference of modified ctx ptr". So the object needs no
 * BTF of the running kernel and loads from 5.12 on. */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#ifndef IPPROTO_ICMPV6
#define IPPROTO_ICMPV6 58
#endif
#define IPPROTO_FRAGMENT 44

struct icmphdr {
	__u8 type, code;
	__u16 checksum;
	union {
		struct { __u16 id, sequence; } echo;
		__u32 gateway;
	} un;
};

struct frag6_hdr {
	__u8 nexthdr, reserved;
	__be16 frag_off;
	__be32 identification;
};

#define TC_NEXT (-1)
#define TC_PASS 0
#define TC_DROP 2

/* The marks. A guard outside of BPF drops packets of sandboxes that carry none
 * of them, so that losing the programs closes the network. */
#define MARK_PROXY  0x5b000001 /* judged, and to be redirected to the proxy */
#define MARK_HOST   0x5b000002 /* SO_MARK of the server's own sockets */
#define MARK_REJECT 0x5b000003 /* our refusals on their way back in */
#define MARK_OK     0x5b000004 /* judged and allowed */

enum cfg_flags {
	CFG_DEFAULT_ALLOW = 1 << 0, /* what no rule matches is allowed */
	CFG_REFUSE        = 1 << 1, /* answer denials with RST or ICMP, instead of silence */
	CFG_LOG_ALLOW     = 1 << 2, /* events for the beginning and the end of each allowed flow */
	CFG_PROXY         = 1 << 3, /* TCP 80 and 443 that no address rule decides go to the proxy */
	CFG_NO_QUIC       = 1 << 4, /* UDP 443 is refused unless an address rule allows it */
	CFG_DNS           = 1 << 5, /* the gateway's DNS port is open */
	CFG_LEARN         = 1 << 6, /* report what would be denied, and let it pass */
	CFG_INBOUND       = 1 << 7, /* new flows to the sandbox are allowed */
	CFG_PROXY_ALL     = 1 << 8, /* with CFG_PROXY: what an address rule allows goes there, too */
};

/* The value is replaced as a whole in a hash map, so a reader sees the old or
 * the new one and never a mix. */
struct cfg {
	__u32 sandbox;   /* which sandbox, and which of its starts */
	__u32 policy;    /* first part of the keys of its rules */
	__u32 gen;       /* flows of another generation are judged again */
	__u32 flags;
	__u8  mac[6];
	__u16 dns_port;  /* host order */
	__u16 slot;      /* index of its flow table */
	__u16 pad;
	__u32 ip4, gw4;  /* network order */
	__u8  ip6[16], gw6[16];
};

struct rule_key {
	__u32 prefixlen; /* 32 for the policy and up to 128 of the address */
	__u32 policy;
	__u8  addr[16];  /* IPv4 as ::ffff:a.b.c.d */
};

enum rule_flags {
	RULE_DENY     = 1 << 0,
	RULE_ANY      = 1 << 1, /* every port of TCP and UDP, and echo */
	RULE_OVERRIDE = 1 << 2, /* stands above the block list */
};

struct port_range {
	__u8  proto; /* TCP, UDP, or ICMP for both kinds of echo */
	__u8  flags; /* RULE_DENY */
	__u16 first, last; /* host order, both included; 0 for ICMP */
};

#define MAX_RANGES 16
struct rule {
	__u32 id;
	__u8  flags;
	__u8  count;
	__u16 pad;
	struct port_range ranges[MAX_RANGES];
};

struct name_key {
	__u32 sandbox;
	__u8  addr[16];
};

#define MAX_NAME_RANGES 4
struct name_rule {
	__u64 expires; /* boot time in ns; asked for new flows only */
	__u32 id;      /* of the rule */
	__u32 domain;
	__u8  flags;
	__u8  count;
	__u16 pad;
	struct port_range ranges[MAX_NAME_RANGES];
	__u32 pad2;
};

enum { DIR_OUT = 0, DIR_IN = 1 };
enum { FLOW_FIN_LOCAL = 1, FLOW_FIN_REMOTE = 2, FLOW_RST = 4, FLOW_PROXY = 8 };

struct flow_key {
	__u32 sandbox;
	__u16 lport, rport; /* network order; the id and 0 for echo */
	__u8  proto, pad[3];
	__u8  raddr[16];
};

struct flow {
	__u32 gen, rule, domain;
	__u8  dir, state;
	__u16 pad;
	__u64 reserved[2]; /* as long as what earlier versions pinned */
	__u64 tx_packets, tx_bytes, rx_packets, rx_bytes;
	__u64 cookie;
};

enum reason {
	REASON_NONE = 0, REASON_RULE, REASON_BLOCKED, REASON_DEFAULT, REASON_MAC, REASON_ADDRESS, REASON_ETHERTYPE,
	REASON_ARP, REASON_ND, REASON_FRAGMENT, REASON_MALFORMED, REASON_OPTIONS, REASON_EXTENSION, REASON_ICMP,
	REASON_CUT, REASON_INBOUND, REASON_QUIC, REASON_RATE, REASON_PROTOCOL, REASON_NAME_EXPIRED,
	REASON_MAX = 32,
};

enum event_type { EVENT_NEW = 1, EVENT_DENY, EVENT_CLOSE, EVENT_CUT };

struct event {
	__u64 time; /* boot time in ns */
	__u32 sandbox, rule, domain, ifindex;
	__u8  type, reason, proto, dir;
	__u16 lport, rport; /* network order */
	__u8  family, tcp_flags;
	__u16 length;
	__u32 pad;
	__u8  laddr[16], raddr[16];
	__u64 cookie;
	__u64 tx_packets, tx_bytes, rx_packets, rx_bytes;
};

struct stats {
	__u64 reserved[4]; /* as long as what earlier versions pinned */
	__u64 flows, denied, lost, suppressed;
	__u64 drops[REASON_MAX];
};

struct budget {
	__u64 time;
	__s64 events;
	__s32 flows;
	__u32 told; /* reasons for which a refusal was told in this second, as bits */
};
