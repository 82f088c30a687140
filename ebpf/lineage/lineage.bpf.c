//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Keeps who began whom: for each new process of a watched pid namespace, the
 * process whose thread made it. The kernel's own record of parents changes when
 * a parent ends; this one does not. */
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct ns_common { unsigned int inum; };
struct pid_namespace { struct ns_common ns; };
struct upid { int nr; struct pid_namespace *ns; };
struct pid { unsigned int level; struct upid numbers[1]; };
struct task_struct {
	int pid, tgid;
	struct task_struct *group_leader;
	__u64 start_boottime;
	struct pid *thread_pid;
};
#pragma clang attribute pop

struct process { __u64 start; __u32 tgid, pad; };
struct origin { __u64 start; __u32 tgid, inner; }; /* of the maker; inner is the new process's number in the namespace */

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 14);
	__type(key, struct process);
	__type(value, struct origin);
} origins SEC(".maps");

#define MAX_SPACES 8192
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SPACES);
	__uint(map_flags, 1U /* BPF_F_NO_PREALLOC */);
	__type(key, __u32);
	__type(value, __u32);
} spaces SEC(".maps");

#define MAX_LEVEL 8 /* namespaces of servers in containers, and one of a sandbox's own making below ours */

/* The number that a process has in a watched namespace, 0 when it is in none. */
static __always_inline __u32 inner(struct pid *p)
{
	__u32 level = BPF_CORE_READ(p, level);
	for (__u32 i = 1; i <= MAX_LEVEL && i <= level; i++) {
		struct upid *u = (void *)p + bpf_core_field_offset(struct pid, numbers) + i * bpf_core_type_size(struct upid);
		__u32 space = BPF_CORE_READ(u, ns, ns.inum);
		if (bpf_map_lookup_elem(&spaces, &space))
			return BPF_CORE_READ(u, nr);
	}
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *maker, struct task_struct *made)
{
	if (made->pid != made->tgid) /* a thread */
		return 0;
	struct pid *p = BPF_CORE_READ(made, thread_pid);
	if (!BPF_CORE_READ(p, level))
		return 0;
	struct origin o = { .inner = inner(p) };
	if (!o.inner)
		return 0;
	struct process k = { .start = made->start_boottime, .tgid = made->tgid };
	o.start = BPF_CORE_READ(maker, group_leader, start_boottime);
	o.tgid = maker->tgid;
	bpf_map_update_elem(&origins, &k, &o, BPF_ANY);
	return 0;
}
