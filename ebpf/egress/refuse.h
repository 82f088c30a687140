// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
#pragma once
/* Refusals: a denied packet is turned round as a RST or an ICMP error, so that
 * the sandbox's program fails at once instead of waiting for a timeout. */
#include "egress.h"

static __always_inline __u16 fold(__u64 s)
{
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return ~s;
}

static __always_inline __u16 tcp_sum(struct tcphdr *t, __u64 pseudo)
{
	pseudo += bpf_htons(IPPROTO_TCP) + bpf_htons(20);
	return fold(bpf_csum_diff(0, 0, (__be32 *)t, 20, (__u32)((pseudo & 0xffffffff) + (pseudo >> 32))));
}

static __noinline int send_rst(struct __sk_buff *skb, __u32 l4off)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	if (l4off != 34 && l4off != 54)
		return TC_DROP;
	if (data + 54 > end || (l4off == 54 && data + 74 > end))
		return TC_DROP;
	struct tcphdr *t = l4off == 34 ? data + 34 : data + 54;
	if ((void *)(t + 1) > end)
		return TC_DROP;
	__u16 sport = t->source, dport = t->dest;
	__u32 seq = bpf_ntohl(t->seq), ack = bpf_ntohl(t->ack_seq);
	__u8 flags = ((__u8 *)t)[13], header = (((__u8 *)t)[12] >> 4) * 4;
	if (flags & 4)
		return TC_DROP; /* never answer a RST */

	__u32 payload = skb->len - l4off; /* no trailer on veth and tap */
	payload = payload > header ? payload - header : 0;
	if (bpf_skb_change_tail(skb, l4off + 20, 0) || bpf_skb_pull_data(skb, l4off + 20))
		return TC_DROP;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if (data + 54 > end || (l4off == 54 && data + 74 > end))
		return TC_DROP;

	struct ethhdr *eth = data;
	__u8 mac[6];
	__builtin_memcpy(mac, eth->h_source, 6);
	__builtin_memcpy(eth->h_source, eth->h_dest, 6);
	__builtin_memcpy(eth->h_dest, mac, 6);
	__u64 sum;
	if (l4off == 34) {
		struct iphdr *ip = data + 14;
		__u32 a = ip->saddr;
		ip->saddr = ip->daddr;
		ip->daddr = a;
		ip->tot_len = bpf_htons(40);
		ip->id = 0;
		ip->frag_off = bpf_htons(0x4000);
		ip->ttl = 64;
		ip->tos = 0;
		ip->check = 0;
		ip->check = fold(bpf_csum_diff(0, 0, (__be32 *)ip, 20, 0));
		sum = bpf_csum_diff(0, 0, (__be32 *)&ip->saddr, 8, 0);
	} else {
		struct ipv6hdr *ip = data + 14;
		if ((void *)(ip + 1) > end)
			return TC_DROP;
		struct in6_addr a = ip->saddr;
		ip->saddr = ip->daddr;
		ip->daddr = a;
		ip->payload_len = bpf_htons(20);
		ip->hop_limit = 64;
		sum = bpf_csum_diff(0, 0, (__be32 *)&ip->saddr, 32, 0);
	}
	t = l4off == 34 ? data + 34 : data + 54;
	if ((void *)(t + 1) > end)
		return TC_DROP;
	__builtin_memset(t, 0, 20);
	t->source = dport;
	t->dest = sport;
	((__u8 *)t)[12] = 5 << 4;
	if (flags & 0x10) {
		t->seq = bpf_htonl(ack);
		((__u8 *)t)[13] = 0x04;
	} else {
		((__u8 *)t)[13] = 0x14;
		t->ack_seq = bpf_htonl(seq + payload + !!(flags & 2) + !!(flags & 1));
	}
	t->check = tcp_sum(t, sum);
	skb->mark = MARK_REJECT;
	return bpf_redirect(skb->ifindex, 0);
}

/* A packet for the sandbox that belongs to a flow just cut becomes a RST with
 * the same sequence number: the sandbox sees the end now, not with its next
 * retransmission. */
static __noinline int make_rst(struct __sk_buff *skb, __u32 l4off)
{
	if (l4off != 34 && l4off != 54)
		return TC_DROP;
	if (bpf_skb_change_tail(skb, l4off + 20, 0) || bpf_skb_pull_data(skb, l4off + 20))
		return TC_DROP;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	if (data + 54 > end || (l4off == 54 && data + 74 > end))
		return TC_DROP;
	__u64 sum;
	if (l4off == 34) {
		struct iphdr *ip = data + 14;
		ip->tot_len = bpf_htons(40);
		ip->check = 0;
		ip->check = fold(bpf_csum_diff(0, 0, (__be32 *)ip, 20, 0));
		sum = bpf_csum_diff(0, 0, (__be32 *)&ip->saddr, 8, 0);
	} else {
		struct ipv6hdr *ip = data + 14;
		if ((void *)(ip + 1) > end)
			return TC_DROP;
		ip->payload_len = bpf_htons(20);
		sum = bpf_csum_diff(0, 0, (__be32 *)&ip->saddr, 32, 0);
	}
	struct tcphdr *t = l4off == 34 ? data + 34 : data + 54;
	if ((void *)(t + 1) > end)
		return TC_DROP;
	((__u8 *)t)[12] = 5 << 4;
	((__u8 *)t)[13] = 0x14;
	t->window = 0;
	t->urg_ptr = 0;
	t->check = 0;
	t->check = tcp_sum(t, sum);
	return TC_PASS;
}

/* ICMP 3/13, administratively prohibited, quotes the header and 8 bytes. */
static __noinline int send_icmp4(struct __sk_buff *skb)
{
	if (bpf_skb_change_tail(skb, 14 + 28, 0) || bpf_skb_change_head(skb, 28, 0) || bpf_skb_pull_data(skb, 28 + 42))
		return TC_DROP;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	if (data + 70 > end)
		return TC_DROP;
	struct ethhdr *old = data + 28, *eth = data;
	__u8 s[6], d[6];
	__builtin_memcpy(s, old->h_source, 6);
	__builtin_memcpy(d, old->h_dest, 6);
	__builtin_memcpy(eth->h_dest, s, 6);
	__builtin_memcpy(eth->h_source, d, 6);
	eth->h_proto = bpf_htons(ETH_P_IP);
	/* What is quoted has to begin at 14+20+8, where it is already. */
	struct iphdr *quoted = data + 42, *ip = data + 14;
	__u32 src = quoted->daddr, dst = quoted->saddr;
	__builtin_memset(ip, 0, 28);
	((__u8 *)ip)[0] = 0x45;
	ip->tot_len = bpf_htons(56);
	ip->ttl = 64;
	ip->protocol = IPPROTO_ICMP;
	ip->saddr = src;
	ip->daddr = dst;
	ip->check = fold(bpf_csum_diff(0, 0, (__be32 *)ip, 20, 0));
	struct icmphdr *icmp = data + 34;
	icmp->type = 3;
	icmp->code = 13;
	icmp->checksum = fold(bpf_csum_diff(0, 0, (__be32 *)icmp, 36, 0));
	skb->mark = MARK_REJECT;
	return bpf_redirect(skb->ifindex, 0);
}

/* ICMPv6 1/1, the same for IPv6. */
static __noinline int send_icmp6(struct __sk_buff *skb)
{
	if (bpf_skb_change_tail(skb, 14 + 48, 0) || bpf_skb_change_head(skb, 48, 0) || bpf_skb_pull_data(skb, 48 + 62))
		return TC_DROP;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	if (data + 110 > end)
		return TC_DROP;
	struct ethhdr *old = data + 48, *eth = data;
	__u8 s[6], d[6];
	__builtin_memcpy(s, old->h_source, 6);
	__builtin_memcpy(d, old->h_dest, 6);
	__builtin_memcpy(eth->h_dest, s, 6);
	__builtin_memcpy(eth->h_source, d, 6);
	eth->h_proto = bpf_htons(ETH_P_IPV6);
	struct ipv6hdr *quoted = data + 62, *ip = data + 14;
	struct in6_addr src = quoted->daddr, dst = quoted->saddr;
	__builtin_memset(ip, 0, 48);
	((__u8 *)ip)[0] = 0x60;
	ip->payload_len = bpf_htons(56);
	ip->nexthdr = IPPROTO_ICMPV6;
	ip->hop_limit = 64;
	ip->saddr = src;
	ip->daddr = dst;
	struct icmphdr *icmp = data + 54;
	icmp->type = 1;
	icmp->code = 1;
	__u64 sum = bpf_csum_diff(0, 0, (__be32 *)&ip->saddr, 32, 0);
	sum += bpf_htons(IPPROTO_ICMPV6) + bpf_htons(56);
	sum = bpf_csum_diff(0, 0, (__be32 *)icmp, 56, (__u32)((sum & 0xffffffff) + (sum >> 32)));
	icmp->checksum = fold(sum);
	skb->mark = MARK_REJECT;
	return bpf_redirect(skb->ifindex, 0);
}
