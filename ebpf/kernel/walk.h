// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
#pragma once
/* Paths, from the kernel's own structures: no process can change them while
 * they are read, and there is no helper for them that every hook may call. */
#include "types.h"

#ifndef WALK_TEXT
#define WALK_TEXT 1024 /* room of a path, a power of two */
#endif
#define WALK_BUFFER (WALK_TEXT + 256)

enum walk_flags {
	WALK_CUT      = 1 << 0, /* there was no room for the beginning */
	WALK_DETACHED = 1 << 2, /* the root of the mount namespace was not reached */
};

struct walk {
	struct dentry *dentry;
	struct vfsmount *mnt;
	char *buf;
	__u32 pos;
	__u32 flags;
};

static __always_inline struct mount *mount_of(struct vfsmount *v)
{
	return (void *)v - bpf_core_field_offset(struct mount, mnt);
}

/* One name of a path, from its end on. Locals first: BPF_CORE_READ(w->mnt, x)
 * would be relocated against our own struct. */
static long walk_up(__u32 i, struct walk *w)
{
	struct dentry *d = w->dentry, *parent = BPF_CORE_READ(d, d_parent);
	struct vfsmount *v = w->mnt;
	if (d == BPF_CORE_READ(v, mnt_root)) {
		struct mount *m = mount_of(v), *up = BPF_CORE_READ(m, mnt_parent);
		if (up == m) {
			w->flags = 0;
			return 1;
		}
		w->dentry = BPF_CORE_READ(m, mnt_mountpoint);
		w->mnt = (void *)up + bpf_core_field_offset(struct mount, mnt);
		return 0;
	}
	__u32 len = BPF_CORE_READ(d, d_name.len), pos = w->pos;
	if (len > 255)
		len = 255;
	if (pos < len + 1 || pos >= WALK_TEXT) {
		w->flags |= WALK_CUT;
		return 1;
	}
	pos -= len;
	bpf_probe_read_kernel(w->buf + (pos & (WALK_TEXT - 1)), len & 255, BPF_CORE_READ(d, d_name.name));
	if (parent == d) { /* no directory has it, as a file of memfd_create */
		w->pos = pos;
		return 1;
	}
	pos -= 1;
	w->buf[pos & (WALK_TEXT - 1)] = '/';
	w->pos = pos;
	w->dentry = parent;
	return 0;
}

/* Begins at the end of the buffer; the path is from pos to WALK_TEXT - 1. */
#define WALK(d, v, to) { .dentry = d, .mnt = v, .buf = to, .pos = WALK_TEXT - 1, .flags = WALK_DETACHED }
