// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
#pragma once
/* What processes ask for that not every process may have. The kernel asks one
 * function whether a process has a capability, whatever call needs it: native,
 * 32-bit or of io_uring. */
#include "syscall.h"

/* A wish of a process, told once in a while. */
struct wish { __u64 start; __u32 tgid; __u8 call, cap, granted, pad; };
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 14);
	__type(key, struct wish);
	__type(value, __u64);
} wishes SEC(".maps");

static __always_inline bool again(struct task_struct *t, __u32 sandbox, __u8 call, __u8 cap, bool granted)
{
	struct wish w = {
		.start = BPF_CORE_READ(t, group_leader, start_boottime), .tgid = t->tgid,
		.call = call, .cap = cap, .granted = granted,
	};
	__u64 now = bpf_ktime_get_boot_ns(), *last = bpf_map_lookup_elem(&wishes, &w);
	if (last && now - *last < repeat) {
		struct state *s = bpf_map_lookup_elem(&states, &sandbox);
		if (s)
			__sync_fetch_and_add(&s->repeated, 1);
		return true;
	}
	bpf_map_update_elem(&wishes, &w, &now, BPF_ANY);
	return false;
}

/* The capabilities that say something also where they are there: what is left
 * out is what root needs for its own files, processes and ports. */
#define TOLD (1ULL << 12 | 1ULL << 16 | 1ULL << 17 | 1ULL << 19 | 1ULL << 21 | 1ULL << 22 | 1ULL << 25 | 1ULL << 27 | \
	1ULL << 31 | 1ULL << 32 | 1ULL << 33 | 1ULL << 34 | 1ULL << 35 | 1ULL << 38 | 1ULL << 39 | 1ULL << 40)
/* net_admin sys_module sys_rawio sys_ptrace sys_admin sys_boot sys_time mknod
 * setfcap mac_override mac_admin syslog wake_alarm perfmon bpf checkpoint_restore */
/* The capabilities that the kernel asks for on its own behalf, only to look
 * whether more is allowed: reading /proc, limits and priorities. */
#define USUAL (1ULL << 14 | 1ULL << 19 | 1ULL << 23 | 1ULL << 24)
/* ipc_lock sys_ptrace sys_nice sys_resource */

SEC("tp_btf/cap_capable")
int BPF_PROG(on_capable, const struct cred *cred, struct user_namespace *target, const struct user_namespace *capable, int cap, int ret)
{
	struct task_struct *t = me();
	__u8 call = 0;
	bool looked = false;
	/* Every growth of memory asks for this one, and a sandbox never has it. */
	if (cap == CAP_SYS_ADMIN && !target->level) {
		call = privileged(number(t));
		if (!call)
			return 0;
		looked = true;
	}
	__u32 sandbox = owner(t);
	if (!sandbox || cred != t->real_cred) /* others: a file system on its own behalf */
		return 0;
	if (!looked)
		call = privileged(number(t));
	__u64 bit = 1ULL << (cap & 63);
	if (!call && (ret ? bit & USUAL : !(bit & TOLD)))
		return 0;
	if (!call)
		call = CALL_OTHER;
	if (again(t, sandbox, call, cap, !ret))
		return 0;
	struct record *r = begin(t, sandbox, KIND_PRIVILEGE);
	if (!r)
		return 0;
	r->e.call = call;
	r->e.cap = cap + 1;
	r->e.ret = ret;
	if (call != CALL_OTHER) {
		r->e.args[0] = arg(t, 0);
		r->e.args[1] = arg(t, 1);
		r->e.args[2] = arg(t, 2);
	}
	return send(r, 0);
}

/* The tracer is told as the one who asks: the current process that attaches,
 * or the parent that learns that its child stopped. */
SEC("tp_btf/signal_generate")
int BPF_PROG(on_signal, int sig, struct kernel_siginfo *info, struct task_struct *to, int group, int result)
{
	if (sig != SIGCHLD && sig != SIGSTOP)
		return 0;
	struct task_struct *t = me(), *traced = t;
	if (sig == SIGSTOP) {
		if ((unsigned long)info != 1 || !to->ptrace) /* of the kernel, to one who has a tracer: PTRACE_ATTACH */
			return 0;
		traced = to;
	} else {
		if (!t->ptrace || (unsigned long)info <= 1)
			return 0;
		int code = BPF_CORE_READ(info, si_code);
		if (code != CLD_TRAPPED && code != CLD_STOPPED)
			return 0;
	}
	__u32 sandbox = owner(t);
	if (!sandbox || again(traced, sandbox, CALL_PTRACE, 0, true))
		return 0;
	struct record *r = begin(t, sandbox, KIND_PRIVILEGE);
	if (!r)
		return 0;
	r->e.call = CALL_PTRACE;
	r->e.args[0] = traced->tgid;
	r->e.args[1] = sig == SIGSTOP ? t->tgid : to->tgid;
	return send(r, 0);
}

/* A new process in new namespaces: what unshare does, by clone. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	if (parent->nsproxy == child->nsproxy && parent->cred->user_ns == child->cred->user_ns)
		return 0;
	__u32 sandbox = owner(parent);
	struct record *r = sandbox ? begin(parent, sandbox, KIND_PRIVILEGE) : 0;
	if (!r)
		return 0;
	r->e.call = CALL_CLONE;
	r->e.ret = child->tgid;
	return send(r, 0);
}
