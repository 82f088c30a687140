// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
#pragma once
/* Whose process is it. group.go knows the same numbers. */
#include "types.h"

/* The depths below their root at which directories of sandboxes lie, for each
 * version of control groups; 0 ends a list. */
#define DEPTHS 4
struct depths { __u32 depth[DEPTHS]; };
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct depths);
} depths SEC(".maps");

#define MAX_SANDBOXES 8192
#define VERSION1 (1ULL << 63) /* ids are unique per hierarchy only */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * MAX_SANDBOXES);
	__type(key, __u64);
	__type(value, __u32);
} groups SEC(".maps");

static __always_inline struct task_struct *me(void) { return (void *)bpf_get_current_task_btf(); }

static __always_inline __u32 group(struct cgroup *g, struct depths *at, __u64 mark)
{
	__u32 level = BPF_CORE_READ(g, level);
	for (int i = 0; i < DEPTHS; i++) {
		__u32 d = at->depth[i];
		if (!d)
			break;
		if (d > level || d > 64)
			continue;
		struct cgroup *a = 0;
		bpf_probe_read_kernel(&a, sizeof(a), (void *)g + bpf_core_field_offset(struct cgroup, ancestors) + d * sizeof(a));
		__u64 id = BPF_CORE_READ(a, kn, id);
		id |= mark;
		__u32 *sandbox = bpf_map_lookup_elem(&groups, &id);
		if (sandbox)
			return *sandbox;
	}
	return 0;
}

/* The sandbox of a process, 0 for none. Control groups below that of the
 * sandbox count, so a process cannot leave by making one. */
static __always_inline __u32 owner(struct task_struct *t)
{
	struct css_set *set = t->cgroups;
	__u32 v1 = 0, v2 = 1, sandbox = 0;
	struct depths *at = bpf_map_lookup_elem(&depths, &v2);
	if (at && at->depth[0])
		sandbox = group(set->dfl_cgrp, at, 0);
	at = bpf_map_lookup_elem(&depths, &v1);
	if (!sandbox && at && at->depth[0]) {
		struct cgroup_subsys_state *s = 0;
		bpf_probe_read_kernel(&s, sizeof(s), (void *)set + bpf_core_field_offset(struct css_set, subsys) +
			bpf_core_enum_value(enum cgroup_subsys_id, pids_cgrp_id) * sizeof(s));
		struct cgroup *g = BPF_CORE_READ(s, cgroup);
		if (g)
			sandbox = group(g, at, VERSION1);
	}
	return sandbox;
}
