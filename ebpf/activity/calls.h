// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
#pragma once
/* Calls that change what a process may do, or would, each with its result, also
 * where a system call filter refused it. As long as one of these is attached,
 * every system call of the host takes longer: they are not attached unless they
 * are asked for. */
#include "syscall.h"

/* What the tracepoint at the end of a system call gives. */
struct sys_exit {
	__u64 common;
	__s64 number;
	__s64 ret;
};

#define AFTER(call) SEC("tp/syscalls/sys_exit_" #call) int after_##call(struct sys_exit *ctx)

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
AFTER(reboot) { return attempt(ctx, CALL_REBOOT, -1); }
AFTER(kexec_load) { return attempt(ctx, CALL_KEXEC, -1); }
AFTER(open_by_handle_at) { return attempt(ctx, CALL_OPEN_BY_HANDLE, -1); }

/* The beginnings of tracing; a debugger's further requests would be a flood. */
AFTER(ptrace)
{
	__u64 request = arg(me(), 0);
	if (request != 0 && request != 16 && request != 0x4206) /* TRACEME, ATTACH, SEIZE */
		return 0;
	return attempt(ctx, CALL_PTRACE, -1);
}
