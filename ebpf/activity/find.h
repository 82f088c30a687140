// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
#pragma once
/* Looks up a living process for the reader, which knows its number alone. */
#include "activity.h"

extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym;
extern void bpf_task_release(struct task_struct *t) __ksym;

/* The number is in tgid; a start of 0 is the answer for none. */
SEC("syscall")
int find(struct process *p)
{
	struct task_struct *t = bpf_task_from_pid(p->tgid);
	if (!t)
		return 0;
	p->start = BPF_CORE_READ(t, group_leader, start_boottime);
	p->sandbox = owner(t);
	p->ppid = BPF_CORE_READ(t, real_parent, tgid);
	p->inner = inner_pid(t);
	p->uid = BPF_CORE_READ(t, cred, uid.val);
	p->gid = BPF_CORE_READ(t, cred, gid.val);
	p->euid = BPF_CORE_READ(t, cred, euid.val);
	union { char text[16]; __u64 words[2]; } comm = {};
	bpf_probe_read_kernel_str(comm.text, sizeof(comm.text), t->comm);
	__u64 *to = (void *)p->comm; /* the context is written in words */
	to[0] = comm.words[0];
	to[1] = comm.words[1];
	bpf_task_release(t);
	return 0;
}
