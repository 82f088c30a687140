// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
#pragma once
/* Files opened for writing, made, renamed and removed. */
#include "activity.h"

static __always_inline bool refused(long ret) { return ret == -EPERM || ret == -EACCES || ret == -EROFS; }

/* Tells whether this sandbox opened this file for writing a moment ago. */
static __always_inline bool repeated(__u32 sandbox, struct inode *in)
{
	struct file_key k = {
		.sandbox = sandbox, .dev = BPF_CORE_READ(in, i_sb, s_dev),
		.inode = BPF_CORE_READ(in, i_ino), .generation = BPF_CORE_READ(in, i_generation),
	};
	__u64 now = bpf_ktime_get_boot_ns(), *last = bpf_map_lookup_elem(&opened, &k);
	if (last && now - *last < repeat) {
		struct state *s = bpf_map_lookup_elem(&states, &sandbox);
		if (s)
			__sync_fetch_and_add(&s->repeated, 1);
		return true;
	}
	bpf_map_update_elem(&opened, &k, &now, BPF_ANY);
	return false;
}

/* A path as a process names it: fd is where a relative one begins, NOWHERE for
 * the text of a symbolic link. */
struct named {
	long fd;
	const void *name;
};
#define NOWHERE (-1)

/* The directory that a relative path begins at, as a text of its own. */
static __always_inline __u32 base_text(struct record *r, struct task_struct *t, int i, __u32 off, struct named *n)
{
	char first = 0;
	bpf_probe_read_user(&first, 1, n->name);
	if (first == '/')
		return off;
	struct dentry *d;
	struct vfsmount *v;
	if ((int)n->fd == AT_FDCWD) {
		d = BPF_CORE_READ(t, fs, pwd.dentry);
		v = BPF_CORE_READ(t, fs, pwd.mnt);
	} else {
		struct file *f = file_of(t, (int)n->fd);
		if (!f)
			return off;
		d = BPF_CORE_READ(f, f_path.dentry);
		v = BPF_CORE_READ(f, f_path.mnt);
	}
	return walk_text(r, i, off, d, v);
}

/* A call that took one path, or two. They are read after the call, from memory
 * that other threads may have changed. */
static __noinline int paths(__u8 kind, long ret, struct named *from, struct named *to)
{
	struct task_struct *t = me();
	struct record *r = begin(t, owner(t), kind);
	if (!r)
		return 0;
	r->e.ret = ret;
	r->e.flags = FLAG_CLAIMED;
	__u32 off = base_text(r, t, 0, 0, from);
	off = user_text(r, 1, off, from->name);
	if (to->name) {
		off = base_text(r, t, 2, off, to);
		off = user_text(r, 3, off, to->name);
	}
	return send(r, off);
}

static __always_inline bool told(long ret) { return !ret || refused(ret); }

/* The path is argument n, after its directory when at. */
static __always_inline struct named named(struct task_struct *t, int n, bool at)
{
	struct named p = { .fd = at ? arg(t, n) : AT_FDCWD, .name = (void *)arg(t, n + at) };
	return p;
}

static __always_inline int one_path(struct sys_exit *ctx, __u8 kind, bool at)
{
	struct task_struct *t = me();
	if (!told(ctx->ret) || !owner(t))
		return 0;
	struct named from = named(t, 0, at), none = {};
	return paths(kind, ctx->ret, &from, &none);
}

static __always_inline int two_paths(struct sys_exit *ctx, __u8 kind, bool at)
{
	struct task_struct *t = me();
	if (!told(ctx->ret) || !owner(t))
		return 0;
	struct named from = named(t, 0, at), to = named(t, 1 + at, at);
	return paths(kind, ctx->ret, &from, &to);
}

static __always_inline int link_text(struct sys_exit *ctx, bool at)
{
	struct task_struct *t = me();
	if (!told(ctx->ret) || !owner(t))
		return 0;
	struct named text = { .fd = NOWHERE, .name = (void *)arg(t, 0) }, to = named(t, 1, at);
	return paths(KIND_SYMLINK, ctx->ret, &text, &to);
}

/* An open that gave a file is told by the file itself: its real path, which no
 * thread can change. */
static __noinline int file_opened(long fd)
{
	struct task_struct *t = me();
	__u32 sandbox = owner(t);
	struct file *f = sandbox ? file_of(t, fd) : 0;
	if (!f)
		return 0;
	__u32 mode = BPF_CORE_READ(f, f_mode);
	struct inode *in = BPF_CORE_READ(f, f_inode);
	__u32 type = BPF_CORE_READ(in, i_mode) & S_IFMT;
	bool made = mode & FMODE_CREATED;
	if (!(mode & FMODE_WRITE) && !made)
		return 0;
	if (type != S_IFREG && type != S_IFBLK)
		return 0;
	if (repeated(sandbox, in) && !made)
		return 0;
	struct record *r = begin(t, sandbox, made ? KIND_CREATE : KIND_OPEN);
	if (!r)
		return 0;
	r->e.inode = BPF_CORE_READ(in, i_ino);
	r->e.dev = BPF_CORE_READ(in, i_sb, s_dev);
	r->e.args[0] = BPF_CORE_READ(f, f_flags);
	return send(r, walk_text(r, 0, 0, BPF_CORE_READ(f, f_path.dentry), BPF_CORE_READ(f, f_path.mnt)));
}

static __always_inline bool writes(__u64 flags) { return flags & (O_ACCMODE | O_CREAT | O_TRUNC); }

/* Most opens are for reading: what they were for is asked first, because it
 * costs less than whose they are. */
static __always_inline int any_open(struct sys_exit *ctx, bool at, __u64 flags)
{
	if (!writes(flags))
		return 0;
	if (ctx->ret >= 0)
		return file_opened(ctx->ret);
	struct task_struct *t = me();
	if (!refused(ctx->ret) || !owner(t))
		return 0;
	struct named from = named(t, 0, at), none = {};
	return paths(KIND_OPEN, ctx->ret, &from, &none);
}

AFTER(open) { return any_open(ctx, false, arg(me(), 1)); }
AFTER(creat) { return any_open(ctx, false, O_CREAT); }
AFTER(openat) { return any_open(ctx, true, arg(me(), 2)); }
AFTER(openat2)
{
	__u64 flags = 0;
	bpf_probe_read_user(&flags, sizeof(flags), (void *)arg(me(), 2));
	return any_open(ctx, true, flags);
}

AFTER(unlink) { return one_path(ctx, KIND_UNLINK, false); }
AFTER(rmdir) { return one_path(ctx, KIND_RMDIR, false); }
AFTER(unlinkat)
{
	struct task_struct *t = me();
	return one_path(ctx, owner(t) && arg(t, 2) & 0x200 ? KIND_RMDIR : KIND_UNLINK, true);
}
AFTER(mkdir) { return one_path(ctx, KIND_MKDIR, false); }
AFTER(mkdirat) { return one_path(ctx, KIND_MKDIR, true); }
AFTER(mknod) { return one_path(ctx, KIND_CREATE, false); }
AFTER(mknodat) { return one_path(ctx, KIND_CREATE, true); }
AFTER(truncate) { return one_path(ctx, KIND_TRUNCATE, false); }
AFTER(rename) { return two_paths(ctx, KIND_RENAME, false); }
AFTER(renameat) { return two_paths(ctx, KIND_RENAME, true); }
AFTER(renameat2) { return two_paths(ctx, KIND_RENAME, true); }
AFTER(link) { return two_paths(ctx, KIND_LINK, false); }
AFTER(linkat) { return two_paths(ctx, KIND_LINK, true); }
AFTER(symlink) { return link_text(ctx, false); }
AFTER(symlinkat) { return link_text(ctx, true); }
