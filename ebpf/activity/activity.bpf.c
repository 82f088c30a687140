//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* What processes of sandboxes do, seen at typed tracepoints, which kernels
 * without BPF trampolines have too. Each program leaves at once when the process
 * belongs to no sandbox. */
#include "activity.h"
#include "socket.h"
#include "privilege.h"
#include "find.h"

char LICENSE[] SEC("license") = "GPL";

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *t, int old_pid, struct linux_binprm *bprm)
{
	__u32 sandbox = owner(t);
	struct record *r = sandbox ? begin(t, sandbox, KIND_EXEC) : 0;
	if (!r)
		return 0;
	if (BPF_CORE_READ_BITFIELD_PROBED(bprm, secureexec))
		r->e.flags |= FLAG_ELEVATED;
	struct file *f = BPF_CORE_READ(bprm, file);
	r->e.inode = BPF_CORE_READ(f, f_inode, i_ino);
	r->e.dev = BPF_CORE_READ(f, f_inode, i_sb, s_dev);
	__u32 off = kernel_text(r, 0, 0, BPF_CORE_READ(bprm, filename));
	off = walk_text(r, 1, off, BPF_CORE_READ(f, f_path.dentry), BPF_CORE_READ(f, f_path.mnt));
	unsigned long start = BPF_CORE_READ(t, mm, arg_start), all = BPF_CORE_READ(t, mm, arg_end) - start;
	r->e.args_total = all;
	__u64 n = all;
	if (all > MAX_ARGS) {
		r->e.flags |= FLAG_CUT;
		n = MAX_ARGS;
	}
	asm volatile("" : "+r"(n)); /* so that the bound is put on the register that is used */
	if (n > MAX_ARGS)
		n = MAX_ARGS;
	if (bpf_probe_read_user(r->text + (off & (TEXT_ROOM - 1)), n, (void *)start)) {
		r->e.flags |= FLAG_UNREAD;
		n = 0;
	}
	r->e.texts[2] = n;
	return send(r, off + n);
}

/* Takes the place of the process that had this number before. Only one thread
 * of a process succeeds. */
static __always_inline bool ends(struct event *e)
{
	struct process p = {
		.start = e->start, .end = e->time, .sandbox = e->sandbox, .tgid = e->tgid, .ppid = e->ppid,
		.inner = e->inner, .uid = e->uid, .gid = e->gid, .euid = e->euid,
	};
	__builtin_memcpy(p.comm, e->comm, sizeof(p.comm));
	if (!bpf_map_update_elem(&ended, &p.tgid, &p, BPF_NOEXIST))
		return true;
	struct process *old = bpf_map_lookup_elem(&ended, &p.tgid);
	if (!old)
		return true;
	__u64 start = old->start;
	if (start == p.start || __sync_val_compare_and_swap(&old->start, start, p.start) != start)
		return false;
	*old = p;
	return true;
}

static __always_inline void foreign_call(struct task_struct *t, __u32 sandbox)
{
	struct record *r = begin(t, sandbox, KIND_PRIVILEGE);
	if (!r)
		return;
	r->e.call = CALL_FOREIGN;
	r->e.ret = -EPERM;
#if defined(__TARGET_ARCH_x86)
	struct pt_regs *regs = (void *)bpf_task_pt_regs((void *)t);
	r->e.args[0] = (__u32)BPF_CORE_READ(regs, orig_ax) & ~X32_CALL;
	r->e.args[1] = t->thread_info.status & TS_COMPAT ? 32 : 64; /* bits of a pointer's register */
#endif
	send(r, 0);
}

/* Reports a process once, with its last thread. The threads' programs may all
 * see that none is left alive. A thread alone is reported when a filter killed
 * it. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *t)
{
	bool foreign = killed_as_foreign(t);
	if (t->signal->live.counter && !foreign)
		return 0;
	__u32 sandbox = owner(t);
	if (sandbox && foreign)
		foreign_call(t, sandbox);
	if (t->signal->live.counter)
		return 0;
	struct record *r = sandbox ? begin(t, sandbox, KIND_EXIT) : 0;
	if (!r || !ends(&r->e))
		return 0;
	struct signal_struct *s = t->signal;
	r->e.args[0] = s->flags & SIGNAL_GROUP_EXIT ? s->group_exit_code : t->exit_code;
	return send(r, 0);
}
