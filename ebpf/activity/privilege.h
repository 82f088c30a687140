// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
#pragma once
/* Calls that change what a process may do, or would: each is told with its
 * result, also where seccomp refused it. */
#include "activity.h"

/* text is which argument is a path, -1 for none. */
static __always_inline int attempt(struct sys_exit *ctx, __u8 call, int text)
{
	struct task_struct *t = me();
	__u32 sandbox = owner(t), off = 0;
	struct record *r = sandbox ? begin(t, sandbox, KIND_PRIVILEGE) : 0;
	if (!r)
		return 0;
	r->e.call = call;
	r->e.ret = ctx->ret;
	r->e.args[0] = arg(t, 0);
	r->e.args[1] = arg(t, 1);
	r->e.args[2] = arg(t, 2);
	if (text >= 0) {
		r->e.flags |= FLAG_CLAIMED;
		off = user_text(r, 0, 0, (void *)r->e.args[text]);
	}
	return send(r, off);
}

AFTER(setuid) { return attempt(ctx, CALL_SETUID, -1); }
AFTER(setgid) { return attempt(ctx, CALL_SETGID, -1); }
AFTER(setreuid) { return attempt(ctx, CALL_SETREUID, -1); }
AFTER(setregid) { return attempt(ctx, CALL_SETREGID, -1); }
AFTER(setresuid) { return attempt(ctx, CALL_SETRESUID, -1); }
AFTER(setresgid) { return attempt(ctx, CALL_SETRESGID, -1); }
AFTER(setfsuid) { return attempt(ctx, CALL_SETFSUID, -1); }
AFTER(setfsgid) { return attempt(ctx, CALL_SETFSGID, -1); }
AFTER(capset) { return attempt(ctx, CALL_CAPSET, -1); }
AFTER(mount) { return attempt(ctx, CALL_MOUNT, 1); }
AFTER(umount) { return attempt(ctx, CALL_UMOUNT, 0); }
AFTER(move_mount) { return attempt(ctx, CALL_MOVE_MOUNT, 1); }
AFTER(pivot_root) { return attempt(ctx, CALL_PIVOT_ROOT, 0); }
AFTER(chroot) { return attempt(ctx, CALL_CHROOT, 0); }
AFTER(bpf) { return attempt(ctx, CALL_BPF, -1); }
AFTER(perf_event_open) { return attempt(ctx, CALL_PERF_EVENT_OPEN, -1); }
AFTER(init_module) { return attempt(ctx, CALL_INIT_MODULE, -1); }
AFTER(finit_module) { return attempt(ctx, CALL_FINIT_MODULE, -1); }
AFTER(delete_module) { return attempt(ctx, CALL_DELETE_MODULE, 0); }
AFTER(unshare) { return attempt(ctx, CALL_UNSHARE, -1); }
AFTER(setns) { return attempt(ctx, CALL_SETNS, -1); }

/* The beginnings of tracing; a debugger's further requests would be a flood. */
AFTER(ptrace)
{
	struct task_struct *t = me();
	if (!owner(t))
		return 0;
	__u64 request = arg(t, 0);
	if (request != 0 && request != 16 && request != 0x4206) /* TRACEME, ATTACH, SEIZE */
		return 0;
	return attempt(ctx, CALL_PTRACE, -1);
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
