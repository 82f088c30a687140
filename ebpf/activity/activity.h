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
struct pt_regs { unsigned long di, si, dx, orig_ax; };
#elif defined(__TARGET_ARCH_arm64)
struct pt_regs { __u64 regs[31]; __u64 orig_x0; __s32 syscallno; };
#else
#error "the registers of this processor are not known"
#endif
#pragma clang attribute pop

/* The numbers between are what happens to files, which the programs do not see. */
enum kind { KIND_EXEC = 1, KIND_EXIT, KIND_CONNECT = 12, KIND_ACCEPT, KIND_PRIVILEGE };

enum call {
	CALL_SETUID = 1, CALL_SETGID, CALL_SETREUID, CALL_SETREGID, CALL_SETRESUID, CALL_SETRESGID, CALL_SETFSUID, CALL_SETFSGID,
	CALL_CAPSET, CALL_MOUNT, CALL_UMOUNT, CALL_MOVE_MOUNT, CALL_PIVOT_ROOT, CALL_CHROOT, CALL_PTRACE, CALL_BPF,
	CALL_PERF_EVENT_OPEN, CALL_INIT_MODULE, CALL_FINIT_MODULE, CALL_DELETE_MODULE, CALL_UNSHARE, CALL_SETNS, CALL_CLONE,
	CALL_OTHER, CALL_REBOOT, CALL_SWAP, CALL_NAME, CALL_KEXEC, CALL_OPEN_BY_HANDLE, CALL_MEMORY, CALL_FOREIGN,
};

enum flags {
	FLAG_CUT      = WALK_CUT, /* a text is longer than what is here */
	FLAG_DETACHED = WALK_DETACHED, /* the path does not reach the root of the mount namespace */
	FLAG_UNREAD   = 1 << 3, /* memory of the process could not be read */
	FLAG_ELEVATED = 1 << 4, /* the program gets rights that its user lacks */
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
	__u8  cap;          /* the capability plus one; 0 for none */
	__u8  pad[5];
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

const volatile __u64 budget = 8 << 20;         /* bytes of one sandbox in a second */
const volatile __u64 wake = 1 << 20;           /* unread bytes at which the reader is woken */
const volatile __u64 repeat = 60 * 1000000000ULL; /* ns within which the same wish of one process is one event */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SANDBOXES);
	__type(key, __u32);
	__type(value, struct state);
} states SEC(".maps");

/* A process, for those who know its number alone. */
struct process {
	__u64 start, end; /* end is 0 while it lives */
	__u32 sandbox;
	__u32 tgid, ppid, inner, uid, gid, euid, pad;
	char comm[16];
};

/* The processes of sandboxes that ended, by tgid. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 15);
	__type(key, __u32);
	__type(value, struct process);
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
const struct process *unused_process __attribute__((unused));

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

/* What is known of every event: it is the current process's. */
static __always_inline void fill(struct event *e, struct task_struct *t, __u32 sandbox, __u8 kind)
{
	__u64 ids = bpf_get_current_pid_tgid(), users = bpf_get_current_uid_gid();
	__builtin_memset(e, 0, sizeof(*e));
	e->time = bpf_ktime_get_boot_ns();
	e->start = BPF_CORE_READ(t, group_leader, start_boottime);
	e->sandbox = sandbox;
	e->kind = kind;
	e->tgid = ids >> 32;
	e->tid = ids;
	e->ppid = BPF_CORE_READ(t, real_parent, tgid);
	e->inner = inner_pid(t);
	e->uid = users;
	e->gid = users >> 32;
	e->euid = BPF_CORE_READ(t, cred, euid.val);
	bpf_get_current_comm(e->comm, sizeof(e->comm));
}

/* The record of this processor. Only programs that nothing of ours interrupts
 * may use it: those of tracepoints that are no interrupt's. */
static __always_inline struct record *begin(struct task_struct *t, __u32 sandbox, __u8 kind)
{
	__u32 zero = 0;
	struct record *r = bpf_map_lookup_elem(&scratch, &zero);
	if (r)
		fill(&r->e, t, sandbox, kind);
	return r;
}

static __always_inline bool affordable(struct state *s, __u32 cost)
{
	__u64 now = bpf_ktime_get_boot_ns(), second = s->second;
	if (now - second >= 1000000000ULL && __sync_val_compare_and_swap(&s->second, second, now) == second)
		s->used = 0;
	return __sync_fetch_and_add(&s->used, cost) + cost <= budget;
}

/* Sends an event and what follows it, or counts it as lost. */
static __always_inline int emit(struct event *e, __u32 size)
{
	__u32 sandbox = e->sandbox;
	struct state *s = bpf_map_lookup_elem(&states, &sandbox);
	if (!s)
		return 0;
	e->lost = s->lost;
	__u64 flags = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > wake ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
	if (!affordable(s, size) || bpf_ringbuf_output(&events, e, size, flags))
		__sync_fetch_and_add(&s->lost, 1);
	else
		__sync_fetch_and_add(&s->events, 1);
	return 0;
}

/* Sends the record with its first bytes of text. */
static __always_inline int send(struct record *r, __u32 text)
{
	return emit(&r->e, sizeof(r->e) + (text & (TEXT_ROOM - 1)));
}

/* Texts are appended at off; each function returns the next one. */
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
