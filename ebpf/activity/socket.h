// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
#pragma once
/* Connections over IP. */
#include "activity.h"

/* The addresses that the kernel holds. */
static __always_inline void endpoints(struct event *e, struct sock *sk)
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

/* The address that the process asked for; a connection that failed leaves
 * nothing else. */
static __always_inline bool asked(struct event *e, const void *from)
{
	struct { __u16 family, port; __u32 addr4; __u8 addr6[16]; } a = {};
	bpf_probe_read_user(&a, 8, from);
	if (a.family == AF_INET6)
		bpf_probe_read_user(a.addr6, 16, from + 8);
	else if (a.family != AF_INET)
		return false;
	e->family = a.family;
	e->rport = bpf_ntohs(a.port);
	e->flags |= FLAG_CLAIMED;
	__builtin_memset(e->raddr, 0, 16);
	if (a.family == AF_INET6) {
		__builtin_memcpy(e->raddr, a.addr6, 16);
		return true;
	}
	e->raddr[10] = e->raddr[11] = 0xff;
	__builtin_memcpy(e->raddr + 12, &a.addr4, 4);
	return true;
}

static __always_inline struct sock *sock_of(struct task_struct *t, long fd)
{
	struct file *f = file_of(t, fd);
	if (!f || (BPF_CORE_READ(f, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	struct socket *s = BPF_CORE_READ(f, private_data);
	struct sock *sk = BPF_CORE_READ(s, sk);
	__u16 family = sk ? BPF_CORE_READ(sk, __sk_common.skc_family) : 0;
	return family == AF_INET || family == AF_INET6 ? sk : 0;
}

AFTER(connect)
{
	struct task_struct *t = me();
	__u32 sandbox = owner(t);
	struct sock *sk = sandbox ? sock_of(t, (int)arg(t, 0)) : 0;
	struct record *r = sk ? begin(t, sandbox, KIND_CONNECT) : 0;
	if (!r)
		return 0;
	r->e.ret = ctx->ret;
	endpoints(&r->e, sk);
	if (!r->e.rport && !asked(&r->e, (void *)arg(t, 1)))
		return 0; /* AF_UNSPEC takes an address away */
	return send(r, 0);
}

static __always_inline int accepted(struct sys_exit *ctx)
{
	struct task_struct *t = me();
	__u32 sandbox = ctx->ret < 0 ? 0 : owner(t);
	struct sock *sk = sandbox ? sock_of(t, ctx->ret) : 0;
	struct record *r = sk ? begin(t, sandbox, KIND_ACCEPT) : 0;
	if (!r)
		return 0;
	r->e.ret = ctx->ret;
	endpoints(&r->e, sk);
	return send(r, 0);
}
AFTER(accept) { return accepted(ctx); }
AFTER(accept4) { return accepted(ctx); }
