// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
#pragma once
/* Connections over IP. TCP is seen where sockets change their state, which no
 * way around system calls avoids, and where the first packet is about to leave,
 * because the socket has its own port then. UDP is seen where its far end is
 * set. */
#include "activity.h"

enum { ESTABLISHED = 1, SYN_SENT = 2, SYN_RECV = 3, CLOSED = 7, LISTEN = 10 };

const volatile bool ports_told = true; /* by on_connect, which is attached */

/* What a process began to do with a socket, with the event to be told. */
struct begun {
	__u64 sock; /* its address, as a number */
	struct event e;
};

/* Sockets that try to connect. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 13);
	__type(key, __u64);
	__type(value, struct begun);
} connecting SEC(".maps");

/* Who listens: connections come to be when nobody in particular runs. */
struct place { __u32 net; __u16 port, family; };
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 13);
	__type(key, struct place);
	__type(value, struct begun);
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

/* Tells what a process began to do, as it stands now. */
static __always_inline int tell(struct begun *b, const struct sock *sk, int result)
{
	struct event e = b->e;
	e.time = bpf_ktime_get_boot_ns();
	e.ret = result;
	endpoints(&e, sk);
	if (!e.lport) /* it was given back */
		e.lport = b->e.lport;
	return emit(&e, sizeof(e));
}

/* A connection that was begun came to be, or failed, which is told. */
static __always_inline int connected(const struct sock *sk, bool good)
{
	__u64 key = (__u64)sk;
	struct begun *b = bpf_map_lookup_elem(&connecting, &key);
	if (!b)
		return 0;
	if (!good) {
		int error = BPF_CORE_READ(sk, sk_err);
		tell(b, sk, error ? -error : -ECONNABORTED);
	}
	bpf_map_delete_elem(&connecting, &key);
	return 0;
}

static __always_inline int accepted(const struct sock *sk)
{
	struct place p = place_of(sk);
	struct begun *l = bpf_map_lookup_elem(&listening, &p);
	if (!l)
		return 0;
	return tell(l, sk, 0);
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
		struct begun *l = bpf_map_lookup_elem(&listening, &p);
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
	struct begun b = { .sock = (__u64)sk };
	if (now == SYN_SENT) {
		fill(&b.e, t, sandbox, KIND_CONNECT);
		bpf_map_update_elem(&connecting, &b.sock, &b, BPF_ANY);
		return ports_told ? 0 : tell(&b, sk, 0);
	}
	fill(&b.e, t, sandbox, KIND_ACCEPT);
	struct place p = place_of(sk);
	bpf_map_update_elem(&listening, &p, &b, BPF_ANY);
	return 0;
}

SEC("sockops")
int on_connect(struct bpf_sock_ops *ctx)
{
	if (ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB)
		return 1;
	struct bpf_sock *sk = ctx->sk;
	__u64 key = (__u64)sk;
	struct begun *b = sk ? bpf_map_lookup_elem(&connecting, &key) : 0;
	if (b) {
		const struct sock *full = (void *)b->sock;
		b->e.lport = BPF_CORE_READ(full, __sk_common.skc_num);
		tell(b, full, 0);
	}
	return 1;
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
