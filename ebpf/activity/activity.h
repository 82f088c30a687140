// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
#pragma once
/* What all programs share: who the current process belongs to, the record that
 * they fill, and the way it leaves. None of it depends on the hooks, so programs
 * of LSM hooks could use it as it is. */
#include "../kernel/owner.h"
#include "../kernel/walk.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
/* The registers of a system call. */
#if defined(__TARGET_ARCH_x86)
struct pt_regs { unsigned long di, si, dx, r10, r8; };
#elif defined(__TARGET_ARCH_arm64)
struct pt_regs { __u64 regs[31]; __u64 orig_x0; };
#else
#error "the registers of this processor are not known"
#endif
#pragma clang attribute pop

enum kind {
	KIND_EXEC = 1, KIND_EXIT, KIND_OPEN, KIND_CREATE, KIND_UNLINK, KIND_RENAME, KIND_MKDIR, KIND_RMDIR,
	KIND_LINK, KIND_SYMLINK, KIND_TRUNCATE, KIND_CONNECT, KIND_ACCEPT, KIND_PRIVILEGE,
};

enum call {
	CALL_SETUID = 1, CALL_SETGID, CALL_SETREUID, CALL_SETREGID, CALL_SETRESUID, CALL_SETRESGID, CALL_SETFSUID, CALL_SETFSGID,
	CALL_CAPSET, CALL_MOUNT, CALL_UMOUNT, CALL_MOVE_MOUNT, CALL_PIVOT_ROOT, CALL_CHROOT, CALL_PTRACE, CALL_BPF,
	CALL_PERF_EVENT_OPEN, CALL_INIT_MODULE, CALL_FINIT_MODULE, CALL_DELETE_MODULE, CALL_UNSHARE, CALL_SETNS, CALL_CLONE,
};

enum flags {
	FLAG_CUT      = WALK_CUT, /* a text is longer than what is here */
	FLAG_CLAIMED  = 1 << 1, /* texts or addresses are as the process gave them, and could change meanwhile */
	FLAG_DETACHED = WALK_DETACHED, /* the path does not reach the root of the mount namespace */
	FLAG_UNREAD   = 1 << 3, /* memory of the process could not be read */
};

#define MAX_TEXT WALK_TEXT /* of one path */
#define MAX_ARGS 2048
#define TEXTS 4

/* One event, followed by its texts without gaps. */
struct event {
	__u64 time, start;  /* boot time in ns; start is the process's: with tgid it is unique */
	__u64 lost;         /* events of this sandbox that were lost before this one, since it was added */
	__u64 inode;
	__u64 args[3];      /* of the call; of an exit the status in the first */
	__s64 ret;
	__u32 sandbox;
	__u32 dev;          /* major << 20 | minor */
	__u32 tgid, tid, ppid, inner; /* inner is the process id that the sandbox sees */
	__u32 uid, gid, euid;
	__u32 args_total;   /* bytes of all arguments of an exec */
	__u16 texts[TEXTS]; /* their lengths */
	__u16 flags;
	__u16 lport, rport; /* host order */
	__u8  kind, call;
	__u8  family, proto;
	__u16 pad[3];
	__u8  laddr[16], raddr[16]; /* IPv4 as ::ffff:a.b.c.d */
	char  comm[16];
};

#define TEXT_ROOM 8192
struct record {
	struct event e;
	char text[TEXT_ROOM + MAX_ARGS];
	char walk[2 * MAX_TEXT];
};

struct state {
	__u64 second, used; /* bytes since then */
	__u64 events, lost, repeated;
};

struct file_key {
	__u32 sandbox, dev;
	__u64 inode;
	__u32 generation, pad;
};

const volatile __u64 budget = 8 << 20;         /* bytes of one sandbox in a second */
const volatile __u64 wake = 1 << 20;           /* unread bytes at which the reader is woken */
const volatile __u64 repeat = 60 * 1000000000ULL; /* ns within which opens of one file are one event */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SANDBOXES);
	__type(key, __u32);
	__type(value, struct state);
} states SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct file_key);
	__type(value, __u64);
} opened SEC(".maps");

struct process_key { __u64 start; __u32 tgid, pad; };
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 13);
	__type(key, struct process_key);
	__type(value, __u32);
} ended SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 << 20);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct record);
} scratch SEC(".maps");

const struct event *unused_event __attribute__((unused));

static __always_inline __u32 inner_pid(struct task_struct *t)
{
	struct pid *p = BPF_CORE_READ(t, group_leader, thread_pid);
	unsigned int level = BPF_CORE_READ(p, level);
	int nr = 0;
	if (level < 32)
		bpf_probe_read_kernel(&nr, sizeof(nr), (void *)p + bpf_core_field_offset(struct pid, numbers) +
			level * bpf_core_type_size(struct upid) + bpf_core_field_offset(struct upid, nr));
	return nr;
}

/* The record to fill, with what is known of every event. */
static __always_inline struct record *begin(struct task_struct *t, __u32 sandbox, __u8 kind)
{
	__u32 zero = 0;
	struct record *r = bpf_map_lookup_elem(&scratch, &zero);
	if (!r)
		return 0;
	__builtin_memset(&r->e, 0, sizeof(r->e));
	__u64 ids = bpf_get_current_pid_tgid(), users = bpf_get_current_uid_gid();
	r->e.time = bpf_ktime_get_boot_ns();
	r->e.start = BPF_CORE_READ(t, group_leader, start_boottime);
	r->e.sandbox = sandbox;
	r->e.kind = kind;
	r->e.tgid = ids >> 32;
	r->e.tid = ids;
	r->e.ppid = BPF_CORE_READ(t, real_parent, tgid);
	r->e.inner = inner_pid(t);
	r->e.uid = users;
	r->e.gid = users >> 32;
	r->e.euid = BPF_CORE_READ(t, cred, euid.val);
	bpf_get_current_comm(r->e.comm, sizeof(r->e.comm));
	return r;
}

static __always_inline bool affordable(struct state *s, __u32 cost)
{
	__u64 now = bpf_ktime_get_boot_ns(), second = s->second;
	if (now - second >= 1000000000ULL && __sync_val_compare_and_swap(&s->second, second, now) == second)
		s->used = 0;
	return __sync_fetch_and_add(&s->used, cost) + cost <= budget;
}

/* Sends the record with its first bytes of text, or counts it as lost. */
static __always_inline int send(struct record *r, __u32 text)
{
	__u32 sandbox = r->e.sandbox;
	struct state *s = bpf_map_lookup_elem(&states, &sandbox);
	if (!s)
		return 0;
	text &= TEXT_ROOM - 1;
	__u32 size = sizeof(r->e) + text;
	r->e.lost = s->lost;
	__u64 flags = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > wake ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
	if (!affordable(s, size) || bpf_ringbuf_output(&events, r, size, flags))
		__sync_fetch_and_add(&s->lost, 1);
	else
		__sync_fetch_and_add(&s->events, 1);
	return 0;
}

/* Texts are appended at off; each function returns the next one. */
static __always_inline __u32 user_text(struct record *r, int i, __u32 off, const void *from)
{
	long n = bpf_probe_read_user_str(r->text + (off & (TEXT_ROOM - 1)), MAX_TEXT, from);
	if (n < 0) {
		r->e.flags |= FLAG_UNREAD;
		n = 0;
	}
	if (n == MAX_TEXT)
		r->e.flags |= FLAG_CUT;
	r->e.texts[i] = n;
	return off + n;
}

static __always_inline __u32 kernel_text(struct record *r, int i, __u32 off, const void *from)
{
	long n = bpf_probe_read_kernel_str(r->text + (off & (TEXT_ROOM - 1)), MAX_TEXT, from);
	if (n < 0)
		n = 0;
	if (n == MAX_TEXT)
		r->e.flags |= FLAG_CUT;
	r->e.texts[i] = n;
	return off + n;
}

/* The path from the root of the mount namespace, whatever root the process
 * chose. A cut one lacks its beginning. */
static __always_inline __u32 walk_text(struct record *r, int i, __u32 off, struct dentry *d, struct vfsmount *v)
{
	struct walk w = WALK(d, v, r->walk);
	bpf_loop(128, walk_up, &w, 0);
	__u32 pos = w.pos & (MAX_TEXT - 1), n = (MAX_TEXT - 1 - pos) & (MAX_TEXT - 1);
	r->e.flags |= w.flags;
	bpf_probe_read_kernel(r->text + (off & (TEXT_ROOM - 1)), n, r->walk + pos);
	r->e.texts[i] = n;
	return off + n;
}

static __always_inline struct file *file_of(struct task_struct *t, long fd)
{
	struct fdtable *table = BPF_CORE_READ(t, files, fdt);
	struct file *f = 0;
	if (fd < 0 || fd >= BPF_CORE_READ(table, max_fds))
		return 0;
	bpf_probe_read_kernel(&f, sizeof(f), BPF_CORE_READ(table, fd) + fd);
	return f;
}

/* What the tracepoint at the end of a system call gives. */
struct sys_exit {
	__u64 common;
	__s64 number;
	__s64 ret;
};

/* Argument n of the system call that just ended. */
static __always_inline __u64 arg(struct task_struct *t, int n)
{
	struct pt_regs *regs = (void *)bpf_task_pt_regs((void *)t);
#if defined(__TARGET_ARCH_x86)
	switch (n) {
	case 0: return BPF_CORE_READ(regs, di);
	case 1: return BPF_CORE_READ(regs, si);
	case 2: return BPF_CORE_READ(regs, dx);
	case 3: return BPF_CORE_READ(regs, r10);
	default: return BPF_CORE_READ(regs, r8);
	}
#else
	return n ? BPF_CORE_READ(regs, regs[n]) : BPF_CORE_READ(regs, orig_x0);
#endif
}

#define AFTER(call) SEC("tp/syscalls/sys_exit_" #call) int after_##call(struct sys_exit *ctx)
