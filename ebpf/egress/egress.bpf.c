//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* One sandbox's traffic is judged on the host end of its veth or tap, where
 * nothing inside can get round it: from_sandbox on what it sends, to_sandbox on
 * what it receives. The first packet of a flow is judged by rules; the others
 * find the flow, and are judged again only when the policy's generation moved. */
#include "egress.h"
#include "refuse.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile __u32 event_budget = 64;   /* deny events of one sandbox in a second */
const volatile __u32 flow_budget = 20000; /* new flows of one sandbox in a second */
const volatile __u8 short_way = 1;        /* 0 in a test that compares both */

#define SLOTS 4096

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLOTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct cfg);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1 << 20);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct rule_key);
	__type(value, struct rule);
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct rule_key);
	__type(value, __u32);
} blocked SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 18);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct name_key);
	__type(value, struct name_rule);
} names SEC(".maps");

/* One table per sandbox: a shared one would let a sandbox push out the flows of
 * all others. Its maker sizes it by the number of processors. */
struct flow_table {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__uint(key_size, sizeof(struct flow_key));
	__uint(value_size, sizeof(struct flow));
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__array(values, struct flow_table);
} flows SEC(".maps");

struct fragment {
	__u32 sandbox, id;
	__u8  proto, dir;
	__u16 gen; /* the lower half */
	__u8  raddr[16];
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct fragment);
	__type(value, __u64);
} fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, SLOTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct stats);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLOTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct budget);
} budgets SEC(".maps");

/* Packets from devices that have no policy yet, of those that the maker of the
 * device has put here. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLOTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u64);
} early SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

/* Constants that no program reads keep these types whole in BTF, for the
 * generated Go types. */
const volatile struct event event_layout;
const volatile struct flow flow_layout;
const volatile struct flow_key flow_key_layout;

struct packet {
	__u8  laddr[16] __attribute__((aligned(8)));
	__u8  raddr[16];
	__u16 l4off, pad;
	__u16 lport, rport;
	__u8  family, proto, tcp_flags, icmp_type;
	__u8  first_fragment, is_fragment, pad2[2];
	__u32 fragment_id;
};

static __always_inline void map4(__u8 *dst, __u32 a)
{
	__u32 *d = (__u32 *)dst;
	d[0] = 0;
	d[1] = 0;
	d[2] = bpf_htonl(0xffff);
	d[3] = a;
}

static __always_inline bool same16(const __u8 *a, const __u8 *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;
	return x[0] == y[0] && x[1] == y[1];
}

static __always_inline bool same_mac(const __u8 *a, const __u8 *b)
{
	const __u16 *x = (const __u16 *)a, *y = (const __u16 *)b;
	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2];
}

/* ---- events and counters ---- */

#define WAKE_AT (256 << 10) /* bytes in the ring, of 1 MiB, at which the reader is woken in any case */

/* Races between processors cost accuracy only. */
static __always_inline struct budget *budget_of(__u32 sandbox)
{
	struct budget *b = bpf_map_lookup_elem(&budgets, &sandbox);
	__u64 now = bpf_ktime_get_ns();
	if (b && now - b->time > 1000000000ULL) {
		b->time = now;
		b->events = event_budget;
		b->flows = flow_budget;
		b->told = 0;
	}
	return b;
}

static __always_inline bool spend_flow(__u32 sandbox)
{
	struct budget *b = budget_of(sandbox);
	if (!b)
		return true;
	if (b->flows <= 0)
		return false;
	__sync_fetch_and_add(&b->flows, -1);
	return true;
}

/* The first refusal for a reason is told in each second, however many there
 * were for others: a flood of one kind does not hide another kind. */
static __always_inline bool spend_event(__u32 sandbox, __u8 reason)
{
	struct budget *b = budget_of(sandbox);
	__u32 kind = 1U << (reason & (REASON_MAX - 1));
	if (!b)
		return true;
	if (!(b->told & kind)) {
		b->told |= kind;
		return true;
	}
	if (b->events <= 0)
		return false;
	__sync_fetch_and_add(&b->events, -1);
	return true;
}

struct report {
	__u8 type, reason, dir, pad;
	__u32 rule, domain;
	__u64 cookie;
	const struct flow *flow;
};

static __noinline int emit(struct __sk_buff *skb, const struct cfg *c, const struct packet *p, const struct report *r)
{
	struct stats *st = bpf_map_lookup_elem(&counters, &c->sandbox);
	/* What a kernel sends to its own link by itself is no news. */
	if (r->type == EVENT_DENY && p->raddr[0] == 0xff && p->raddr[1] == 0x02)
		return 0;
	if (r->type == EVENT_DENY && !spend_event(c->sandbox, r->reason)) {
		if (st)
			st->suppressed++;
		return 0;
	}
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		if (st)
			st->lost++;
		return 0;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->time = bpf_ktime_get_boot_ns();
	e->sandbox = c->sandbox;
	e->rule = r->rule;
	e->domain = r->domain;
	e->ifindex = skb->ifindex;
	e->type = r->type;
	e->reason = r->reason;
	e->proto = p->proto;
	e->dir = r->dir;
	e->lport = p->lport;
	e->rport = p->rport;
	e->family = p->family;
	e->tcp_flags = p->tcp_flags;
	e->length = skb->len;
	__builtin_memcpy(e->laddr, p->laddr, 16);
	__builtin_memcpy(e->raddr, p->raddr, 16);
	e->cookie = r->cookie;
	if (r->flow) {
		e->tx_packets = r->flow->tx_packets;
		e->tx_bytes = r->flow->tx_bytes;
		e->rx_packets = r->flow->rx_packets;
		e->rx_bytes = r->flow->rx_bytes;
	}
	/* To wake the reader for each connection costs the connection a quarter of
	 * its time, so that news that can wait is left for it to find. */
	bool waits = (r->type == EVENT_NEW || r->type == EVENT_CLOSE) && bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) < WAKE_AT;
	bpf_ringbuf_submit(e, waits ? BPF_RB_NO_WAKEUP : 0);
	return 0;
}

/* ---- parsing ---- */

#define PULL 94 /* 14 of Ethernet, 60 of IP, 20 of TCP */

static __always_inline int parse_l4(struct packet *p, void *data, void *end, bool out)
{
	__u32 off = p->l4off;
	if (off > 120)
		return REASON_MALFORMED;
	switch (p->proto) {
	case IPPROTO_TCP: {
		struct tcphdr *t = data + off;
		if ((void *)(t + 1) > end)
			return REASON_MALFORMED;
		p->lport = out ? t->source : t->dest;
		p->rport = out ? t->dest : t->source;
		p->tcp_flags = ((__u8 *)t)[13];
		return 0;
	}
	case IPPROTO_UDP: {
		struct udphdr *u = data + off;
		if ((void *)(u + 1) > end)
			return REASON_MALFORMED;
		p->lport = out ? u->source : u->dest;
		p->rport = out ? u->dest : u->source;
		return 0;
	}
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6: {
		struct icmphdr *i = data + off;
		if ((void *)(i + 1) > end)
			return REASON_MALFORMED;
		p->icmp_type = i->type;
		p->lport = i->un.echo.id;
		return 0;
	}
	}
	return 0;
}

static __always_inline int parse_ip4(struct packet *p, void *data, void *end, bool out)
{
	struct iphdr *ip = data + 14;
	if ((void *)(ip + 1) > end)
		return REASON_MALFORMED;
	if (ip->version != 4 || ip->ihl < 5)
		return REASON_MALFORMED;
	if (ip->ihl != 5 && out)
		return REASON_OPTIONS; /* source routes among them */
	p->family = 4;
	p->proto = ip->protocol;
	map4(p->laddr, out ? ip->saddr : ip->daddr);
	map4(p->raddr, out ? ip->daddr : ip->saddr);
	p->l4off = 14 + ip->ihl * 4;
	__u16 fragment = bpf_ntohs(ip->frag_off);
	if (fragment & 0x3fff) {
		p->is_fragment = 1;
		p->fragment_id = ip->id;
		p->first_fragment = !(fragment & 0x1fff);
	}
	return p->proto == IPPROTO_ICMPV6 ? REASON_MALFORMED : 0;
}

static __always_inline int parse_ip6(struct packet *p, void *data, void *end, bool out)
{
	struct ipv6hdr *ip = data + 14;
	if ((void *)(ip + 1) > end)
		return REASON_MALFORMED;
	if (ip->version != 6)
		return REASON_MALFORMED;
	p->family = 6;
	p->proto = ip->nexthdr;
	__builtin_memcpy(p->laddr, out ? &ip->saddr : &ip->daddr, 16);
	__builtin_memcpy(p->raddr, out ? &ip->daddr : &ip->saddr, 16);
	p->l4off = 54;
	/* An IPv6 packet with an IPv4-mapped peer must not match IPv4 rules. */
	const __u32 *a = (const __u32 *)p->raddr;
	if (a[0] == 0 && a[1] == 0 && a[2] == bpf_htonl(0xffff))
		return REASON_MALFORMED;
	if (p->proto == IPPROTO_FRAGMENT) { /* the only extension header we take */
		struct frag6_hdr *f = data + 54;
		if ((void *)(f + 1) > end)
			return REASON_MALFORMED;
		p->proto = f->nexthdr;
		p->l4off = 62;
		p->fragment_id = f->identification;
		p->first_fragment = !(f->frag_off & bpf_htons(0xfff8));
		/* An atomic fragment is a whole packet. */
		p->is_fragment = !p->first_fragment || (f->frag_off & bpf_htons(1));
	}
	switch (p->proto) {
	case 0:   /* hop by hop */
	case 43:  /* routing */
	case 44:  /* a second fragment header */
	case 51:  /* authentication */
	case 60:  /* destination options */
	case 135: /* mobility */
	case 139: /* host identity */
	case 140: /* shim6 */
		return REASON_EXTENSION;
	case IPPROTO_ICMP:
		return REASON_MALFORMED;
	}
	return 0;
}

/* Returns 0 or a reason to drop. */
static __always_inline int parse(struct __sk_buff *skb, struct packet *p, __u16 ethertype, bool out)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	int reason = ethertype == bpf_htons(ETH_P_IP) ? parse_ip4(p, data, end, out) : parse_ip6(p, data, end, out);
	if (reason)
		return reason;
	if (p->is_fragment && !p->first_fragment)
		return 0; /* no header above IP */
	return parse_l4(p, data, end, out);
}

static __always_inline bool is_icmp(const struct packet *p)
{
	return p->proto == IPPROTO_ICMP || p->proto == IPPROTO_ICMPV6;
}

static __always_inline bool is_echo_request(const struct packet *p)
{
	return (p->proto == IPPROTO_ICMP && p->icmp_type == 8) || (p->proto == IPPROTO_ICMPV6 && p->icmp_type == 128);
}

static __always_inline bool is_echo_reply(const struct packet *p)
{
	return (p->proto == IPPROTO_ICMP && p->icmp_type == 0) || (p->proto == IPPROTO_ICMPV6 && p->icmp_type == 129);
}

static __always_inline bool is_icmp_error(const struct packet *p)
{
	return (p->proto == IPPROTO_ICMP && (p->icmp_type == 3 || p->icmp_type == 11 || p->icmp_type == 12)) ||
	       (p->proto == IPPROTO_ICMPV6 && p->icmp_type >= 1 && p->icmp_type <= 4);
}

static __always_inline bool is_nd(const struct packet *p)
{
	return p->proto == IPPROTO_ICMPV6 && p->icmp_type >= 133 && p->icmp_type <= 137 && !p->is_fragment;
}

/* ---- policy ---- */

/* 1: allowed, 0: denied, -1: no range is about this port. One that denies wins. */
static __always_inline int match_ranges(const struct port_range *r, __u32 n, __u32 most, __u8 proto, __u16 port)
{
	int found = -1;
	for (__u32 i = 0; i < most; i++) {
		if (i >= n)
			break;
		/* Two comparisons would narrow the verifier's idea of port in each round,
		 * so that no two rounds look alike to it. One of differences does not. */
		if (r[i].proto != proto || (__u16)(port - r[i].first) > (__u16)(r[i].last - r[i].first))
			continue;
		if (r[i].flags & RULE_DENY)
			return 0;
		found = 1;
	}
	return found;
}

struct decision {
	__u32 rule, domain;
	__u8 reason, proxy;
};

static __always_inline bool wants_proxy(const struct cfg *c, const struct packet *p)
{
	return (c->flags & CFG_PROXY) && p->proto == IPPROTO_TCP && (p->rport == bpf_htons(443) || p->rport == bpf_htons(80));
}

/* Is the packet for the server's name relay on the gateway? */
static __always_inline bool for_relay(const struct cfg *c, const struct packet *p)
{
	if (!(c->flags & CFG_DNS) || bpf_ntohs(p->rport) != c->dns_port || (p->proto != IPPROTO_UDP && p->proto != IPPROTO_TCP))
		return false;
	if (p->family == 4)
		return *(const __u32 *)(p->raddr + 12) == c->gw4;
	return same16(p->raddr, c->gw6);
}

/* Judges a flow from the sandbox: 1 allowed, 0 denied. again: the flow stands
 * already and the policy moved; the expiry of a name is not asked for then. Not
 * static, because the verifier looks at a global function once, and at a static
 * one for each state it may be called in. */
__noinline int judge(const struct cfg *c, const struct packet *p, int again, struct decision *d)
{
	if (!c || !p || !d)
		return 0;
	struct rule_key k = { .prefixlen = 32 + 128, .policy = c->policy };
	__u8 proto = p->proto == IPPROTO_ICMPV6 ? IPPROTO_ICMP : p->proto;
	__u16 port = proto == IPPROTO_ICMP ? 0 : bpf_ntohs(p->rport);
	int allowed = -1;
	bool override = false;

	d->rule = 0;
	d->domain = 0;
	d->reason = REASON_DEFAULT;
	d->proxy = 0;
	if (proto != IPPROTO_TCP && proto != IPPROTO_UDP && proto != IPPROTO_ICMP) {
		d->reason = REASON_PROTOCOL;
		return 0;
	}
	if (for_relay(c, p))
		return 1;

	__builtin_memcpy(k.addr, p->raddr, 16);
	struct rule *r = bpf_map_lookup_elem(&rules, &k);
	if (r) {
		d->rule = r->id;
		override = r->flags & RULE_OVERRIDE;
		allowed = (r->flags & RULE_ANY) && (r->flags & RULE_DENY) ? 0 : match_ranges(r->ranges, r->count, MAX_RANGES, proto, port);
		if (allowed < 0 && (r->flags & RULE_ANY))
			allowed = 1;
		if (allowed == 0)
			d->reason = REASON_RULE;
	}
	if (!override) {
		k.policy = 0;
		__u32 *b = bpf_map_lookup_elem(&blocked, &k);
		if (b) {
			d->rule = *b;
			d->reason = REASON_BLOCKED;
			return 0;
		}
	}
	if (allowed == 1 && (c->flags & CFG_PROXY_ALL)) {
		d->proxy = wants_proxy(c, p);
		/* Clients that cannot have QUIC ask over TCP, where the proxy sees it. */
		if (proto == IPPROTO_UDP && port == 443) {
			d->reason = REASON_QUIC;
			return 0;
		}
	}
	if (allowed == -1) {
		struct name_key nk = { .sandbox = c->sandbox };
		__builtin_memcpy(nk.addr, p->raddr, 16);
		struct name_rule *n = bpf_map_lookup_elem(&names, &nk);
		if (n && (again || n->expires > bpf_ktime_get_boot_ns())) {
			allowed = (n->flags & RULE_ANY) ? 1 : match_ranges(n->ranges, n->count, MAX_NAME_RANGES, proto, port);
			if (allowed == 1) {
				d->rule = n->id;
				d->domain = n->domain;
				if (wants_proxy(c, p))
					d->proxy = 1; /* the name in the request decides, not the address */
			}
		} else if (n) {
			d->reason = REASON_NAME_EXPIRED;
		}
	}
	if (allowed == -1 && wants_proxy(c, p)) {
		d->proxy = 1;
		return 1;
	}
	if (allowed == -1 && (c->flags & CFG_NO_QUIC) && proto == IPPROTO_UDP && port == 443) {
		d->reason = REASON_QUIC;
		return 0;
	}
	if (allowed == -1)
		allowed = !!(c->flags & CFG_DEFAULT_ALLOW);
	return allowed;
}

/* ---- ARP and neighbour discovery ---- */

struct arp {
	__u16 hrd, pro;
	__u8  hln, pln;
	__u16 op;
	__u8  sha[6], sip[4], tha[6], tip[4];
} __attribute__((packed, aligned(8)));

static __noinline int check_arp(struct __sk_buff *skb, const struct cfg *c)
{
	struct arp a;
	__u32 sip, tip;
	if (bpf_skb_load_bytes(skb, 14, &a, 28))
		return REASON_MALFORMED;
	__builtin_memcpy(&sip, a.sip, 4);
	__builtin_memcpy(&tip, a.tip, 4);
	if (a.hrd != bpf_htons(1) || a.pro != bpf_htons(ETH_P_IP) || a.hln != 6 || a.pln != 4)
		return REASON_ARP;
	if (!same_mac(a.sha, c->mac) || (sip != c->ip4 && sip != 0))
		return REASON_ARP;
	if (a.op == bpf_htons(1))
		return tip == c->gw4 || tip == c->ip4 ? 0 : REASON_ARP;
	return a.op == bpf_htons(2) && sip == c->ip4 ? 0 : REASON_ARP;
}

/* The link-local address that belongs to the MAC. */
static __always_inline bool own_link_local(const struct cfg *c, const __u8 *a)
{
	return a[0] == 0xfe && a[1] == 0x80 && *(__u16 *)(a + 2) == 0 && *(__u32 *)(a + 4) == 0 && a[8] == (c->mac[0] ^ 2) &&
	       a[9] == c->mac[1] && a[10] == c->mac[2] && a[11] == 0xff && a[12] == 0xfe && a[13] == c->mac[3] &&
	       a[14] == c->mac[4] && a[15] == c->mac[5];
}

/* Where neighbour discovery may go: to the link, and to the gateway. Anywhere
 * else a router would forward it like any packet. */
static __always_inline bool stays_on_link(const struct cfg *c, const __u8 *a)
{
	return (a[0] == 0xff && a[1] == 0x02) || (a[0] == 0xfe && (a[1] & 0xc0) == 0x80) || same16(a, c->gw6);
}

/* Solicitations and advertisements of its own addresses only, to its own link.
 * A fragment header, even of a whole packet, is not among them (RFC 6980). */
static __noinline int check_nd(struct __sk_buff *skb, const struct cfg *c, const struct packet *p)
{
	__u8 b[32] __attribute__((aligned(8))) = {}, o[8] __attribute__((aligned(8)));
	const __u64 *l = (const __u64 *)p->laddr;
	bool unspecified = l[0] == 0 && l[1] == 0;
	if (p->icmp_type != 133 && p->icmp_type != 135 && p->icmp_type != 136)
		return REASON_ND;
	if (p->l4off != 54 || !stays_on_link(c, p->raddr))
		return REASON_ND;
	if (!unspecified && !same16(p->laddr, c->ip6) && !own_link_local(c, p->laddr))
		return REASON_ADDRESS;
	if (p->icmp_type == 133)
		return 0;
	if (bpf_skb_load_bytes(skb, 54, b, 24))
		return REASON_MALFORMED;
	if (p->icmp_type == 136 && !same16(b + 8, c->ip6) && !own_link_local(c, b + 8))
		return REASON_ND;
	if (skb->len >= 54 + 32) {
		if (bpf_skb_load_bytes(skb, 54 + 24, o, 8))
			return REASON_MALFORMED;
		if ((o[0] == 1 || o[0] == 2) && (o[1] != 1 || !same_mac(o + 2, c->mac)))
			return REASON_ND;
		if (skb->len > 54 + 32 && o[0] != 14)
			return REASON_ND; /* one option at most, or a nonce */
	}
	return 0;
}

/* ---- what both programs share ---- */

static __always_inline int refuse(struct __sk_buff *skb, const struct cfg *c, const struct packet *p)
{
	if (!(c->flags & CFG_REFUSE) || p->is_fragment || (p->family == 6 && p->raddr[0] == 0xff))
		return TC_DROP;
	if (p->proto == IPPROTO_TCP)
		return send_rst(skb, p->l4off);
	if (p->proto == IPPROTO_UDP || is_icmp(p))
		return p->family == 4 ? send_icmp4(skb) : send_icmp6(skb);
	return TC_DROP;
}

static __always_inline void count_drop(struct stats *st, __u8 reason)
{
	if (st) {
		st->denied++;
		st->drops[reason & (REASON_MAX - 1)]++;
	}
}

static __always_inline int drop(struct __sk_buff *skb, const struct cfg *c, const struct packet *p, struct stats *st, __u8 reason, __u8 dir)
{
	struct report r = { .type = EVENT_DENY, .reason = reason, .dir = dir };
	count_drop(st, reason);
	emit(skb, c, p, &r);
	return TC_DROP;
}

static __always_inline int pass(struct __sk_buff *skb)
{
	skb->mark = MARK_OK;
	return TC_NEXT;
}

/* The guard redirects what carries this mark to the proxy. */
static __always_inline int pass_to_proxy(struct __sk_buff *skb)
{
	skb->mark = MARK_PROXY;
	return TC_NEXT;
}

static __always_inline void flow_key_of(struct flow_key *k, const struct cfg *c, const struct packet *p)
{
	__builtin_memset(k, 0, sizeof(*k));
	k->sandbox = c->sandbox;
	k->lport = p->lport;
	k->rport = p->rport;
	k->proto = p->proto;
	__builtin_memcpy(k->raddr, p->raddr, 16);
}

/* An ICMP error is let through when the packet it quotes is of a known flow.
 * out: the sandbox sent the error, so it quotes a packet of the other side. It
 * may carry data then, so it goes where the quoted packet came from, and the
 * policy that allowed the flow must be the one that stands. */
static __noinline int quotes_flow(struct __sk_buff *skb, const struct cfg *c, const struct packet *p, int out)
{
	struct flow_key k = { .sandbox = c->sandbox };
	__u16 ports[2];
	if (p->family == 4) {
		struct iphdr in;
		if (bpf_skb_load_bytes(skb, p->l4off + 8, &in, 20) || in.version != 4 || in.ihl != 5)
			return 0;
		k.proto = in.protocol;
		map4(k.raddr, out ? in.saddr : in.daddr);
		if ((out ? in.daddr : in.saddr) != c->ip4 || bpf_skb_load_bytes(skb, p->l4off + 28, ports, 4))
			return 0;
	} else {
		struct ipv6hdr in;
		if (bpf_skb_load_bytes(skb, p->l4off + 8, &in, 40))
			return 0;
		k.proto = in.nexthdr;
		__builtin_memcpy(k.raddr, out ? &in.saddr : &in.daddr, 16);
		if (!same16(out ? (__u8 *)&in.daddr : (__u8 *)&in.saddr, c->ip6) || bpf_skb_load_bytes(skb, p->l4off + 48, ports, 4))
			return 0;
	}
	if (k.proto != IPPROTO_TCP && k.proto != IPPROTO_UDP)
		return 0;
	k.lport = out ? ports[1] : ports[0];
	k.rport = out ? ports[0] : ports[1];
	__u32 slot = c->slot;
	void *table = bpf_map_lookup_elem(&flows, &slot);
	struct flow *f = table ? bpf_map_lookup_elem(table, &k) : 0;
	if (!f || !out)
		return f != 0;
	const __u32 *a = (const __u32 *)k.raddr, *b = (const __u32 *)p->raddr; /* not aligned to 8 */
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3] && f->gen == c->gen && !(f->state & FLOW_PROXY);
}

/* Of which packet it is a fragment, and under which policy it was judged: one
 * that was begun under another is not completed. */
static __always_inline void fragment_of(struct fragment *f, const struct cfg *c, const struct packet *p, int dir)
{
	__builtin_memset(f, 0, sizeof(*f));
	f->sandbox = c->sandbox;
	f->id = p->fragment_id;
	f->gen = c->gen;
	f->proto = p->proto;
	f->dir = dir;
	__builtin_memcpy(f->raddr, p->raddr, 16);
}

static __noinline int fragment_known(const struct cfg *c, const struct packet *p, int dir)
{
	struct fragment f;
	fragment_of(&f, c, p, dir);
	__u64 *seen = bpf_map_lookup_elem(&fragments, &f);
	return seen && bpf_ktime_get_ns() - *seen < 30000000000ULL;
}

static __noinline int remember_fragment(const struct cfg *c, const struct packet *p, int dir)
{
	struct fragment f;
	__u64 now = bpf_ktime_get_ns();
	fragment_of(&f, c, p, dir);
	return bpf_map_update_elem(&fragments, &f, &now, BPF_ANY);
}

/* Is a flow still allowed under the policy that its generation missed? */
static __always_inline bool still_allowed(const struct cfg *c, const struct packet *p, const struct flow *f, struct decision *d)
{
	if (f->dir == DIR_IN)
		return c->flags & (CFG_INBOUND | CFG_LEARN);
	int ok = judge(c, p, 1, d);
	if (f->state & FLOW_PROXY)
		return ok == 1 && d->proxy; /* the proxy ends what its own rules no longer allow */
	return (ok == 1 && !d->proxy) || (c->flags & CFG_LEARN);
}

static __always_inline void cut(struct __sk_buff *skb, const struct cfg *c, const struct packet *p, const struct flow *f, const struct decision *d, struct stats *st)
{
	struct report r = { .type = EVENT_CUT, .reason = d->reason, .dir = f->dir, .rule = d->rule, .domain = f->domain, .cookie = f->cookie, .flow = f };
	count_drop(st, REASON_CUT);
	emit(skb, c, p, &r);
}

/* Follows the end of a TCP connection. mine: the FIN flag of the side that
 * sent it. */
static __always_inline void follow(struct __sk_buff *skb, const struct cfg *c, const struct packet *p, struct flow *f, __u8 mine)
{
	if (p->proto != IPPROTO_TCP || !(p->tcp_flags & 5))
		return;
	__u8 was = f->state, other = mine ^ (FLOW_FIN_LOCAL | FLOW_FIN_REMOTE);
	f->state |= (p->tcp_flags & 4) ? FLOW_RST : mine;
	if ((c->flags & CFG_LOG_ALLOW) && !(was & FLOW_RST) && ((p->tcp_flags & 4) || ((was & other) && !(was & mine)))) {
		struct report r = { .type = EVENT_CLOSE, .dir = f->dir, .rule = f->rule, .domain = f->domain, .cookie = f->cookie, .flow = f };
		emit(skb, c, p, &r);
	}
}

/* How much of a packet the parser looks at. */
static __always_inline __u32 headers(void *data, void *end)
{
	struct ethhdr *eth = data;
	if (data + 54 <= end && eth->h_proto == bpf_htons(ETH_P_IP) && *((__u8 *)data + 14) == 0x45)
		return 54;
	if (data + 74 <= end && eth->h_proto == bpf_htons(ETH_P_IPV6) && *((__u8 *)data + 20) != IPPROTO_FRAGMENT)
		return 74;
	return PULL;
}

/* Pulls into one piece what is not, and no more: it copies the packet's head,
 * which costs as much as all the rest. */
static __always_inline void *ethernet(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 need = headers(data, end);
	if (need > skb->len)
		need = skb->len;
	if (data + need > end)
		bpf_skb_pull_data(skb, need);
	struct ethhdr *eth = (void *)(long)skb->data;
	return (void *)(eth + 1) > (void *)(long)skb->data_end ? 0 : eth;
}

/* Echo travels one way: requests from the side that began, replies to it. */
static __always_inline bool wrong_echo(const struct packet *p, const struct flow *f, __u8 sender)
{
	return (is_echo_reply(p) && f->dir == sender) || (is_echo_request(p) && f->dir != sender);
}

/* ---- the short way ---- */

/* Most packets are whole, have no options, are of UDP or of TCP between its
 * beginning and its end, and belong to a flow that was judged under the policy
 * of now. Returns the flow of such a packet, counted. All others, and those
 * whose headers do not lie in one piece, go the long way, which comes to the
 * same for these. */
static __always_inline struct flow *standing(struct __sk_buff *skb, const struct cfg *c, bool out)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end, *l4;
	struct ethhdr *eth = data;
	struct flow_key k;
	if (data + 42 > end)
		return 0;
	if (out && (!same_mac(eth->h_source, c->mac) || skb->vlan_present))
		return 0;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + 14;
		if (*(__u8 *)ip != 0x45 || ip->frag_off & bpf_htons(0x3fff) || (out && ip->saddr != c->ip4))
			return 0;
		*(__u32 *)&k.proto = ip->protocol;
		map4(k.raddr, out ? ip->daddr : ip->saddr);
		l4 = ip + 1;
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + 14;
		if (data + 62 > end || ip->version != 6)
			return 0;
		if (out && (!c->ip6[0] || !same16((__u8 *)&ip->saddr, c->ip6)))
			return 0;
		*(__u32 *)&k.proto = ip->nexthdr;
		__builtin_memcpy(k.raddr, out ? &ip->daddr : &ip->saddr, 16);
		const __u32 *a = (const __u32 *)k.raddr;
		if (a[0] == 0 && a[1] == 0 && a[2] == bpf_htonl(0xffff))
			return 0;
		l4 = ip + 1;
	} else {
		return 0;
	}
	if (k.proto == IPPROTO_TCP) {
		if (l4 + 20 > end || ((__u8 *)l4)[13] & 7) /* SYN, FIN, RST */
			return 0;
	} else if (k.proto != IPPROTO_UDP) {
		return 0;
	}
	__u16 *ports = l4;
	k.sandbox = c->sandbox;
	k.lport = out ? ports[0] : ports[1];
	k.rport = out ? ports[1] : ports[0];

	__u32 slot = c->slot;
	void *table = bpf_map_lookup_elem(&flows, &slot);
	struct flow *f = table ? bpf_map_lookup_elem(table, &k) : 0;
	if (!f || f->gen != c->gen)
		return 0;
	__sync_fetch_and_add(out ? &f->tx_packets : &f->rx_packets, 1);
	__sync_fetch_and_add(out ? &f->tx_bytes : &f->rx_bytes, skb->len);
	return f;
}

/* ---- from the sandbox ---- */

/* What a kernel sends to its own link by itself is left out. */
static __always_inline void count_early(struct __sk_buff *skb, __u32 device)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	if (data + 2 <= end && *(__u8 *)data == 0x33 && *(__u8 *)(data + 1) == 0x33)
		return;
	__u64 *n = bpf_map_lookup_elem(&early, &device);
	if (n)
		__sync_fetch_and_add(n, 1);
}

static __always_inline int old_flow(struct __sk_buff *skb, struct cfg *c, struct packet *p, struct stats *st, void *table, struct flow_key *k, struct flow *f)
{
	struct decision d = {};
	if (f->gen != c->gen) {
		if (!still_allowed(c, p, f, &d)) {
			cut(skb, c, p, f, &d, st);
			bpf_map_delete_elem(table, k);
			return refuse(skb, c, p);
		}
		f->gen = c->gen;
	}
	__sync_fetch_and_add(&f->tx_packets, 1);
	__sync_fetch_and_add(&f->tx_bytes, skb->len);
	follow(skb, c, p, f, FLOW_FIN_LOCAL);
	if (p->is_fragment) {
		if (f->state & FLOW_PROXY)
			return drop(skb, c, p, st, REASON_FRAGMENT, DIR_OUT);
		remember_fragment(c, p, DIR_OUT);
	}
	return f->state & FLOW_PROXY ? pass_to_proxy(skb) : pass(skb);
}

static __always_inline int new_flow(struct __sk_buff *skb, struct cfg *c, struct packet *p, struct stats *st, void *table, struct flow_key *k)
{
	struct decision d = {};
	int ok = judge(c, p, 0, &d);
	if (is_echo_reply(p)) { /* answers to echo requests we let in have a flow */
		ok = 0;
		d.reason = REASON_ICMP;
	}
	/* The host would put fragments together that carry two marks. */
	if (ok == 1 && d.proxy && p->is_fragment) {
		ok = 0;
		d.reason = REASON_FRAGMENT;
	}
	if (ok == 1 && !spend_flow(c->sandbox)) {
		ok = 0;
		d.reason = REASON_RATE;
	}
	__u64 cookie = bpf_get_socket_cookie(skb);
	struct report r = { .type = EVENT_DENY, .reason = d.reason, .dir = DIR_OUT, .rule = d.rule, .domain = d.domain, .cookie = cookie };
	if (ok != 1) {
		count_drop(st, d.reason);
		emit(skb, c, p, &r);
		if (!(c->flags & CFG_LEARN) || d.reason == REASON_BLOCKED || d.reason == REASON_PROTOCOL || d.reason == REASON_RATE)
			return refuse(skb, c, p);
		d.proxy = 0;
	}
	struct flow f = {
		.gen = c->gen, .rule = d.rule, .domain = d.domain, .dir = DIR_OUT, .state = d.proxy ? FLOW_PROXY : 0,
		.tx_packets = 1, .tx_bytes = skb->len, .cookie = cookie,
	};
	bpf_map_update_elem(table, k, &f, BPF_ANY);
	if (p->is_fragment)
		remember_fragment(c, p, DIR_OUT);
	if (st)
		st->flows++;
	if (ok == 1 && (c->flags & CFG_LOG_ALLOW)) {
		r.type = EVENT_NEW;
		r.reason = 0;
		emit(skb, c, p, &r);
	}
	return d.proxy ? pass_to_proxy(skb) : pass(skb);
}

SEC("tcx/ingress")
int from_sandbox(struct __sk_buff *skb)
{
	__u32 device = skb->ifindex;
	struct cfg *c = bpf_map_lookup_elem(&devices, &device);
	if (!c) { /* attached and not configured: closed */
		count_early(skb, device);
		return TC_DROP;
	}
	struct flow *known = short_way ? standing(skb, c, true) : 0;
	if (known)
		return known->state & FLOW_PROXY ? pass_to_proxy(skb) : pass(skb);
	struct stats *st = bpf_map_lookup_elem(&counters, &c->sandbox);
	struct packet p = {};
	int reason;

	struct ethhdr *eth = ethernet(skb);
	if (!eth)
		return TC_DROP;
	__u16 type = eth->h_proto;
	if (!same_mac(eth->h_source, c->mac))
		return drop(skb, c, &p, st, REASON_MAC, DIR_OUT);
	if (skb->vlan_present)
		return drop(skb, c, &p, st, REASON_ETHERTYPE, DIR_OUT);
	if (type == bpf_htons(ETH_P_ARP)) {
		reason = check_arp(skb, c);
		return reason ? drop(skb, c, &p, st, reason, DIR_OUT) : pass(skb);
	}
	if (type != bpf_htons(ETH_P_IP) && type != bpf_htons(ETH_P_IPV6))
		return drop(skb, c, &p, st, REASON_ETHERTYPE, DIR_OUT);
	reason = parse(skb, &p, type, true);
	if (reason)
		return drop(skb, c, &p, st, reason, DIR_OUT);
	if (is_nd(&p)) {
		reason = check_nd(skb, c, &p);
		return reason ? drop(skb, c, &p, st, reason, DIR_OUT) : pass(skb);
	}
	if (p.family == 4 ? *(__u32 *)(p.laddr + 12) != c->ip4 : !c->ip6[0] || !same16(p.laddr, c->ip6))
		return drop(skb, c, &p, st, REASON_ADDRESS, DIR_OUT); /* ip6 is zero where there is no IPv6 */
	if (p.is_fragment && !p.first_fragment)
		return fragment_known(c, &p, DIR_OUT) ? pass(skb) : drop(skb, c, &p, st, REASON_FRAGMENT, DIR_OUT);
	if (is_icmp_error(&p))
		return quotes_flow(skb, c, &p, 1) ? pass(skb) : drop(skb, c, &p, st, REASON_ICMP, DIR_OUT);
	if (is_icmp(&p) && !is_echo_request(&p) && !is_echo_reply(&p))
		return drop(skb, c, &p, st, REASON_ICMP, DIR_OUT);

	__u32 slot = c->slot;
	void *table = bpf_map_lookup_elem(&flows, &slot);
	if (!table)
		return TC_DROP;
	struct flow_key k;
	flow_key_of(&k, c, &p);
	struct flow *f = bpf_map_lookup_elem(table, &k);
	bool syn = p.proto == IPPROTO_TCP && (p.tcp_flags & 0x12) == 0x02;
	/* A new connection on the ports of one that ended is a new flow. */
	bool reused = f && syn && f->dir == DIR_OUT && f->state & (FLOW_FIN_LOCAL | FLOW_FIN_REMOTE | FLOW_RST);
	if (f && wrong_echo(&p, f, DIR_OUT))
		return drop(skb, c, &p, st, REASON_ICMP, DIR_OUT);
	if (f && !reused)
		return old_flow(skb, c, &p, st, table, &k, f);
	return new_flow(skb, c, &p, st, table, &k);
}

/* ---- to the sandbox ---- */

SEC("tcx/egress")
int to_sandbox(struct __sk_buff *skb)
{
	__u32 device = skb->ifindex;
	struct cfg *c = bpf_map_lookup_elem(&devices, &device);
	if (!c)
		return TC_DROP;
	if (skb->mark == MARK_REJECT)
		return TC_PASS;
	if (short_way && standing(skb, c, false))
		return TC_NEXT;
	struct stats *st = bpf_map_lookup_elem(&counters, &c->sandbox);
	struct packet p = {};
	struct decision d = {};

	struct ethhdr *eth = ethernet(skb);
	if (!eth)
		return TC_DROP;
	__u16 type = eth->h_proto;
	if (type == bpf_htons(ETH_P_ARP))
		return TC_NEXT;
	if (type != bpf_htons(ETH_P_IP) && type != bpf_htons(ETH_P_IPV6))
		return TC_DROP;
	int reason = parse(skb, &p, type, false);
	if (reason)
		return drop(skb, c, &p, st, reason, DIR_IN);
	if (is_nd(&p))
		return TC_NEXT;
	if (p.is_fragment && !p.first_fragment)
		return fragment_known(c, &p, DIR_IN) ? TC_NEXT : drop(skb, c, &p, st, REASON_FRAGMENT, DIR_IN);
	if (is_icmp_error(&p))
		return quotes_flow(skb, c, &p, 0) ? TC_NEXT : drop(skb, c, &p, st, REASON_ICMP, DIR_IN);

	__u32 slot = c->slot;
	void *table = bpf_map_lookup_elem(&flows, &slot);
	if (!table)
		return TC_DROP;
	struct flow_key k;
	flow_key_of(&k, c, &p);
	struct flow *f = bpf_map_lookup_elem(table, &k);
	if (f && wrong_echo(&p, f, DIR_IN))
		return drop(skb, c, &p, st, REASON_ICMP, DIR_IN);
	if (f) {
		if (f->gen != c->gen) {
			if (!still_allowed(c, &p, f, &d)) {
				cut(skb, c, &p, f, &d, st);
				if ((c->flags & CFG_REFUSE) && p.proto == IPPROTO_TCP && !p.is_fragment && !(p.tcp_flags & 4))
					return make_rst(skb, p.l4off);
				return TC_DROP; /* the flow stays, so that the sandbox's next packet is refused */
			}
			f->gen = c->gen;
		}
		__sync_fetch_and_add(&f->rx_packets, 1);
		__sync_fetch_and_add(&f->rx_bytes, skb->len);
		follow(skb, c, &p, f, FLOW_FIN_REMOTE);
		if (p.is_fragment)
			remember_fragment(c, &p, DIR_IN);
		return TC_NEXT;
	}
	if (!(c->flags & CFG_INBOUND) && skb->mark != MARK_HOST)
		return drop(skb, c, &p, st, REASON_INBOUND, DIR_IN);
	struct flow in = {
		.gen = c->gen, .dir = DIR_IN, .rx_packets = 1, .rx_bytes = skb->len,
	};
	bpf_map_update_elem(table, &k, &in, BPF_ANY);
	if (st)
		st->flows++;
	return TC_NEXT;
}
