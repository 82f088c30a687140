// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
#pragma once
/* The system call that a process is in, as its registers tell. */
#include "activity.h"
#if defined(__TARGET_ARCH_x86)
#include <asm/unistd_64.h>
#else
#define __ARCH_WANT_NEW_STAT
#include <asm-generic/unistd.h>
#endif

#define TS_COMPAT 2
#define X32_CALL 0x40000000
#define SIGSYS 31

/* Argument n of the call. */
static __always_inline __u64 arg(struct task_struct *t, int n)
{
	struct pt_regs *regs = (void *)bpf_task_pt_regs((void *)t);
#if defined(__TARGET_ARCH_x86)
	return n == 0 ? BPF_CORE_READ(regs, di) : n == 1 ? BPF_CORE_READ(regs, si) : BPF_CORE_READ(regs, dx);
#else
	return n ? BPF_CORE_READ(regs, regs[n]) : BPF_CORE_READ(regs, orig_x0);
#endif
}

/* The call's number; of a 32-bit call, whose numbers differ, -1. In the middle
 * of an interrupt it is any number. */
static __always_inline int number(struct task_struct *t)
{
	struct pt_regs *regs = (void *)bpf_task_pt_regs((void *)t);
#if defined(__TARGET_ARCH_x86)
	return t->thread_info.status & TS_COMPAT ? -1 : (int)regs->orig_ax;
#else
	return regs->syscallno;
#endif
}

/* Whether a thread that ends does so because it made a call of another
 * architecture, which a filter kills it for: no signal that somebody sends comes
 * in the midst of such a call. */
static __always_inline bool killed_as_foreign(struct task_struct *t)
{
#if defined(__TARGET_ARCH_x86)
	if ((t->exit_code & 0x7f) != SIGSYS)
		return false;
	struct pt_regs *regs = (void *)bpf_task_pt_regs((void *)t);
	return t->thread_info.status & TS_COMPAT || regs->orig_ax & X32_CALL;
#else
	return false;
#endif
}

/* The calls that need a privilege by their nature; 0 for all others. */
static __always_inline __u8 privileged(int number)
{
	switch (number) {
	case __NR_setuid: return CALL_SETUID;
	case __NR_setgid: return CALL_SETGID;
	case __NR_setreuid: return CALL_SETREUID;
	case __NR_setregid: return CALL_SETREGID;
	case __NR_setresuid: return CALL_SETRESUID;
	case __NR_setresgid: return CALL_SETRESGID;
	case __NR_setfsuid: return CALL_SETFSUID;
	case __NR_setfsgid: return CALL_SETFSGID;
	case __NR_capset: return CALL_CAPSET;
	case __NR_mount: case __NR_fsopen: case __NR_fsmount: case __NR_fspick: case __NR_open_tree: case __NR_mount_setattr: return CALL_MOUNT;
	case __NR_umount2: return CALL_UMOUNT;
	case __NR_move_mount: return CALL_MOVE_MOUNT;
	case __NR_pivot_root: return CALL_PIVOT_ROOT;
	case __NR_chroot: return CALL_CHROOT;
	case __NR_ptrace: return CALL_PTRACE;
	case __NR_process_vm_readv: case __NR_process_vm_writev: return CALL_MEMORY;
	case __NR_bpf: return CALL_BPF;
	case __NR_perf_event_open: return CALL_PERF_EVENT_OPEN;
	case __NR_init_module: return CALL_INIT_MODULE;
	case __NR_finit_module: return CALL_FINIT_MODULE;
	case __NR_delete_module: return CALL_DELETE_MODULE;
	case __NR_unshare: return CALL_UNSHARE;
	case __NR_setns: return CALL_SETNS;
	case __NR_reboot: return CALL_REBOOT;
	case __NR_swapon: case __NR_swapoff: return CALL_SWAP;
	case __NR_sethostname: case __NR_setdomainname: return CALL_NAME;
	case __NR_kexec_load: case __NR_kexec_file_load: return CALL_KEXEC;
	case __NR_open_by_handle_at: return CALL_OPEN_BY_HANDLE;
	}
	return 0;
}
