// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
#pragma once
/* Connections over IP. TCP is seen where sockets change their state, which no
 * way around system calls avoids. UDP is seen where its far end is set. */
#include "activity.h"

enum { ESTABLISHED = 1, SYN_SENT = 2, SYN_RECV = 3, CLOSED = 7, LISTEN = 10 };

/* Sockets that try to connect, with the event to be told. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 13);
	__type(key, __u64);
	__type(value, struct event);
} connecting SEC(".maps");

/* Who listens: connections come to be when nobody in particular runs. */
struct place { __u32 net; __u16 port, family; };
struct listener {
	__u64 sock;
	struct event e;
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 13);
	__type(key, struct place);
	__type(value, struct listener);
} listening SEC(".maps");

/* The addresses that the kernel holds. */
static __always_inline void endpoints(struct event *e, const struct sock *sk)
{
	e->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	e->proto = BPF_CORE_READ(sk, sk_protocol);
	e->lport = BPF_CORE_READ(sk, __sk_common.skc_num);
	e->rport = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	if (e->family == AF_INET6) {
		bpf_core_read(e->raddr, 16, &sk->__sk_common.skc_v6_daddr);
		bpf_core_read(e->laddr, 16, &sk->__sk_common.skc_v6_rcv_saddr);
		return;
	}
	__u32 remote = BPF_CORE_READ(sk, __sk_common.skc_daddr), local = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
	e->raddr[10] = e->raddr[11] = e->laddr[10] = e->laddr[11] = 0xff;
	__builtin_memcpy(e->raddr + 12, &remote, 4);
	__builtin_memcpy(e->laddr + 12, &local, 4);
}

static __always_inline struct place place_of(const struct sock *sk)
{
	struct place p = {
		.net = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum),
		.port = BPF_CORE_READ(sk, __sk_common.skc_num), .family = BPF_CORE_READ(sk, __sk_common.skc_family),
	};
	return p;
}

/* A connection that was begun did or did not come to be. */
static __always_inline int connected(const struct sock *sk, bool good)
{
	__u64 key = (__u64)sk;
	struct event *begun = bpf_map_lookup_elem(&connecting, &key), e;
	if (!begun)
		return 0;
	e = *begun;
	bpf_map_delete_elem(&connecting, &key);
	e.time = bpf_ktime_get_boot_ns();
	int error = BPF_CORE_READ(sk, sk_err);
	e.ret = good ? 0 : error ? -error : -ECONNABORTED;
	__builtin_memset(e.raddr, 0, sizeof(e.raddr));
	__builtin_memset(e.laddr, 0, sizeof(e.laddr));
	endpoints(&e, sk);
	return emit(&e, sizeof(e));
}

static __always_inline int accepted(const struct sock *sk)
{
	struct place p = place_of(sk);
	struct listener *l = bpf_map_lookup_elem(&listening, &p);
	if (!l)
		return 0;
	struct event e = l->e;
	e.time = bpf_ktime_get_boot_ns();
	endpoints(&e, sk);
	return emit(&e, sizeof(e));
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state, const struct sock *sk, int old, int now)
{
	if (old == SYN_SENT)
		return connected(sk, now == ESTABLISHED || now == SYN_RECV);
	if (old == SYN_RECV && now == ESTABLISHED)
		return accepted(sk);
	if (old == LISTEN) {
		struct place p = place_of(sk);
		struct listener *l = bpf_map_lookup_elem(&listening, &p);
		if (l && l->sock == (__u64)sk)
			bpf_map_delete_elem(&listening, &p);
		return 0;
	}
	if (now != SYN_SENT && now != LISTEN)
		return 0;
	struct task_struct *t = me();
	__u32 sandbox = owner(t);
	if (!sandbox)
		return 0;
	if (now == SYN_SENT) {
		struct event e;
		fill(&e, t, sandbox, KIND_CONNECT);
		__u64 key = (__u64)sk;
		endpoints(&e, sk);
		bpf_map_update_elem(&connecting, &key, &e, BPF_ANY);
		return 0;
	}
	struct listener l = { .sock = (__u64)sk };
	fill(&l.e, t, sandbox, KIND_ACCEPT);
	struct place p = place_of(sk);
	bpf_map_update_elem(&listening, &p, &l, BPF_ANY);
	return 0;
}

static __always_inline int datagrams(struct bpf_sock_addr *ctx, bool six)
{
	if (ctx->type != SOCK_DGRAM)
		return 1;
	struct task_struct *t = me();
	__u32 sandbox = owner(t);
	if (!sandbox)
		return 1;
	struct event e;
	fill(&e, t, sandbox, KIND_CONNECT);
	e.family = six ? AF_INET6 : AF_INET;
	e.proto = ctx->protocol;
	e.rport = bpf_ntohs(ctx->user_port);
	if (six) {
		__u32 a[4] = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] };
		__builtin_memcpy(e.raddr, a, 16);
	} else {
		__u32 a = ctx->user_ip4;
		e.raddr[10] = e.raddr[11] = e.laddr[10] = e.laddr[11] = 0xff;
		__builtin_memcpy(e.raddr + 12, &a, 4);
	}
	emit(&e, sizeof(e));
	return 1;
}

SEC("cgroup/connect4")
int on_connect4(struct bpf_sock_addr *ctx) { return datagrams(ctx, false); }

SEC("cgroup/connect6")
int on_connect6(struct bpf_sock_addr *ctx) { return datagrams(ctx, true); }
