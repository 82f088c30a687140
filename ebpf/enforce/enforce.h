// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
#pragma once
/* Judges a path by the rules of the sandbox whose process asks. */
#define WALK_TEXT 4096
#include "../kernel/owner.h"
#include "../kernel/walk.h"

enum list { LIST_EXEC, LIST_WRITE, LIST_READ, LISTS };

enum op {
	OP_EXEC = 1, OP_OPEN, OP_CREATE, OP_UNLINK, OP_MKDIR, OP_RMDIR, OP_SYMLINK, OP_LINK, OP_RENAME, OP_TRUNCATE,
	OP_CHMOD, OP_CHOWN,
};

enum flags {
	FLAG_CUT    = 1 << 0, /* the path is longer than what is here */
	FLAG_UNSURE = 1 << 1, /* refused because it could not be judged */
	FLAG_MOVED  = 1 << 2, /* refused because it would be less restricted under its new name */
};

#define CLASSES 120
/* One state of an automaton. Row 0 holds the class of each character instead,
 * paths begin in row 1. */
union row {
	struct {
		__u16 next[CLASSES];
		__u32 rule;
		__u8 deny, below, last, pad;
		__u32 unused[2];
	};
	__u8 class[256];
};

/* The automaton of each list of a sandbox, 0 for none. It is replaced whole. The
 * number of the sandbox is around it, because the kernel may use the memory of
 * one that was replaced for another sandbox while it is read. */
struct box { __u32 first, automata[LISTS], last; };

struct count {
	__u64 second, used; /* events since then */
	__u64 denied, lost;
};

#define EVENT_TEXT 1024
struct event {
	__u64 time; /* boot time in ns */
	__u32 sandbox, automaton, rule;
	__u32 tgid, tid, uid;
	__u16 length; /* of the text */
	__u8  list, op, flags, pad[3];
	char  comm[16];
	char  text[EVENT_TEXT];
};

/* What one judgement works with. Each task has its own: a processor may change
 * to another task in the midst of it. */
struct scratch {
	char path[WALK_BUFFER];
	struct event e;
};

const volatile __u64 budget = 200; /* events of one sandbox in a second */
const struct event *unused_event __attribute__((unused));

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SANDBOXES);
	__type(key, __u32);
	__type(value, struct box);
} boxes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SANDBOXES);
	__type(key, __u32);
	__type(value, struct count);
} counts SEC(".maps");

struct table {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(max_entries, 2);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(union row));
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 2 * MAX_SANDBOXES);
	__type(key, __u32);
	__array(values, struct table);
} automata SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct scratch);
} scratches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

/* One path that is judged. */
struct subject {
	struct scratch *s;
	__u32 sandbox;
	struct box box;
	__u32 from; /* where the path begins in its buffer */
	__u8 op;
	bool unsure;
};

static __always_inline bool affordable(struct count *c)
{
	__u64 now = bpf_ktime_get_boot_ns(), second = c->second;
	if (now - second >= 1000000000ULL && __sync_val_compare_and_swap(&c->second, second, now) == second)
		c->used = 0;
	return __sync_fetch_and_add(&c->used, 1) < budget;
}

/* Tells of a refusal, and is one. */
static __noinline int refuse(struct subject *j, __u32 list, __u32 automaton, __u32 rule, __u32 flags)
{
	struct scratch *s = j->s;
	__u32 sandbox = j->sandbox, from = j->from & (WALK_TEXT - 1), n = WALK_TEXT - 1 - from;
	struct count *c = bpf_map_lookup_elem(&counts, &sandbox);
	if (!s || !c)
		return -EPERM;
	__sync_fetch_and_add(&c->denied, 1);
	if (!affordable(c)) {
		__sync_fetch_and_add(&c->lost, 1);
		return -EPERM;
	}
	__u64 ids = bpf_get_current_pid_tgid();
	__builtin_memset(&s->e, 0, offsetof(struct event, text));
	s->e.time = bpf_ktime_get_boot_ns();
	s->e.sandbox = sandbox;
	s->e.automaton = automaton;
	s->e.rule = rule;
	s->e.tgid = ids >> 32;
	s->e.tid = ids;
	s->e.uid = bpf_get_current_uid_gid();
	s->e.list = list;
	s->e.op = j->op;
	s->e.flags = flags;
	if (n > EVENT_TEXT - 1) {
		n = EVENT_TEXT - 1;
		s->e.flags |= FLAG_CUT;
	}
	s->e.length = n;
	bpf_get_current_comm(s->e.comm, sizeof(s->e.comm));
	bpf_probe_read_kernel(s->e.text, n & (EVENT_TEXT - 1), s->path + from);
	if (bpf_ringbuf_output(&events, &s->e, offsetof(struct event, text) + (n & (EVENT_TEXT - 1)), 0))
		__sync_fetch_and_add(&c->lost, 1);
	return -EPERM;
}

/* Puts the path into the task's buffer. */
static __noinline int find(struct subject *j, struct dentry *d, struct vfsmount *v)
{
	struct scratch *s = j->s;
	if (!s)
		return 0;
	struct walk w = WALK(d, v, s->path);
	j->unsure = bpf_loop(WALK_TEXT, walk_up, &w, 0) >= WALK_TEXT || (w.flags & WALK_CUT);
	__u32 pos = w.pos & (WALK_TEXT - 1);
	if (pos == WALK_TEXT - 1) { /* the root itself */
		pos--;
		s->path[pos] = '/';
	}
	j->from = pos;
	return 0;
}

struct run {
	void *table;
	union row *classes;
	struct scratch *s;
	__u32 from, row;
};

static long step(__u32 i, struct run *r)
{
	__u32 key = r->row;
	union row *row = bpf_map_lookup_elem(r->table, &key);
	if (!row || row->last)
		return 1;
	__u8 class = r->classes->class[(__u8)r->s->path[(r->from + i) & (WALK_TEXT - 1)]];
	if (class >= CLASSES)
		class = 0;
	r->row = row->next[class];
	return 0;
}

/* Where a path ends in an automaton, and with below the directory of that name;
 * 0 when that cannot be known. */
static __noinline __u32 end(struct subject *j, __u32 automaton, bool below)
{
	struct scratch *s = j->s;
	__u32 zero = 0, from = j->from & (WALK_TEXT - 1);
	void *table = bpf_map_lookup_elem(&automata, &automaton);
	if (!table || !s || j->unsure)
		return 0;
	union row *classes = bpf_map_lookup_elem(table, &zero);
	if (!classes)
		return 0;
	struct run r = { .table = table, .classes = classes, .s = s, .from = from, .row = 1 };
	if (below)
		s->path[WALK_TEXT - 1] = '/';
	bpf_loop(WALK_TEXT - 1 - from + below, step, &r, 0);
	return r.row;
}

static __always_inline union row *row_of(__u32 automaton, __u32 row)
{
	void *table = bpf_map_lookup_elem(&automata, &automaton);
	return table && row ? bpf_map_lookup_elem(table, &row) : 0;
}

/* Judges the path by one list. */
static __noinline int judge(struct subject *j, __u32 list)
{
	if (list >= LISTS || !j->box.automata[list])
		return 0;
	__u32 automaton = j->box.automata[list];
	union row *row = row_of(automaton, end(j, automaton, false));
	if (!row)
		return refuse(j, list, automaton, 0, FLAG_UNSURE);
	return row->deny ? refuse(j, list, automaton, row->rule, 0) : 0;
}

/* Copies the rules of a sandbox, against the order in which they are written. */
static __always_inline bool copy_box(struct subject *j, volatile struct box *b)
{
	__u32 last = b->last;
	for (int i = 0; i < LISTS; i++)
		j->box.automata[i] = b->automata[i];
	return last == j->sandbox && b->first == j->sandbox;
}

#define UNKNOWN 0xffffffff /* the number of no automaton: all is refused */

/* Finds the rules of the current process; false when there are none. */
static __always_inline bool begin(struct subject *j, __u8 op)
{
	j->op = op;
	j->sandbox = owner(me());
	if (!j->sandbox)
		return false;
	for (int try = 0; try < 3; try++) {
		struct box *b = bpf_map_lookup_elem(&boxes, &j->sandbox);
		if (!b)
			return false;
		if (copy_box(j, b))
			return true;
	}
	for (int i = 0; i < LISTS; i++)
		j->box.automata[i] = UNKNOWN;
	return true;
}

/* Room for the path. Without it nothing can be judged. */
static __always_inline bool room(struct subject *j)
{
	j->s = bpf_task_storage_get(&scratches, me(), 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	return j->s;
}
