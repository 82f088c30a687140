//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Decides what the processes of sandboxes may do with programs and files. Each
 * program leaves at once when the process belongs to no sandbox with rules. What
 * cannot be judged is refused. */
#include "enforce.h"

char LICENSE[] SEC("license") = "GPL";

#define O_EXEC 040 /* how the kernel opens a program */
#define MNT_INTERNAL ((void *)-22L)

static __always_inline int judge_one(__u8 op, __u32 list, struct dentry *d, struct vfsmount *v)
{
	struct subject j = {};
	if (!begin(&j, op) || !j.box.automata[list])
		return 0;
	if (!room(&j))
		return -EPERM;
	find(&j, d, v);
	return judge(&j, list);
}

SEC("lsm/bprm_check_security")
int BPF_PROG(exec, struct linux_binprm *bprm, int ret)
{
	if (ret)
		return ret;
	struct file *f = BPF_CORE_READ(bprm, file);
	return judge_one(OP_EXEC, LIST_EXEC, BPF_CORE_READ(f, f_path.dentry), BPF_CORE_READ(f, f_path.mnt));
}

/* Files of mounts that no process sees are not judged: those of a file system
 * below another one, which was judged itself, and memory without a name. */
SEC("lsm/file_open")
int BPF_PROG(open, struct file *f, int ret)
{
	if (ret)
		return ret;
	struct subject j = {};
	if (!begin(&j, OP_OPEN))
		return 0;
	__u32 mode = BPF_CORE_READ(f, f_mode), how = BPF_CORE_READ(f, f_flags);
	bool write = j.box.automata[LIST_WRITE] && (mode & FMODE_WRITE || how & O_TRUNC);
	bool read = j.box.automata[LIST_READ] && mode & FMODE_READ && !(how & O_EXEC);
	if (!write && !read)
		return 0;
	struct vfsmount *v = BPF_CORE_READ(f, f_path.mnt);
	struct mount *m = mount_of(v);
	if ((BPF_CORE_READ(f, f_inode, i_mode) & S_IFMT) != S_IFREG || BPF_CORE_READ(m, mnt_ns) == MNT_INTERNAL)
		return 0;
	if (!room(&j))
		return -EPERM;
	find(&j, BPF_CORE_READ(f, f_path.dentry), v);
	int err = write ? judge(&j, LIST_WRITE) : 0;
	if (!err && read)
		err = judge(&j, LIST_READ);
	return err;
}

#define NAMES(name, op) \
SEC("lsm/path_" #name) \
int BPF_PROG(on_##name, const struct path *dir, struct dentry *d) \
{ \
	return judge_one(op, LIST_WRITE, d, BPF_CORE_READ(dir, mnt)); \
}
NAMES(mknod, OP_CREATE)
NAMES(unlink, OP_UNLINK)
NAMES(mkdir, OP_MKDIR)
NAMES(rmdir, OP_RMDIR)
NAMES(symlink, OP_SYMLINK)

#define CHANGES(name, op) \
SEC("lsm/path_" #name) \
int BPF_PROG(on_##name, const struct path *p) \
{ \
	return judge_one(op, LIST_WRITE, BPF_CORE_READ(p, dentry), BPF_CORE_READ(p, mnt)); \
}
CHANGES(truncate, OP_TRUNCATE)
CHANGES(chmod, OP_CHMOD)
CHANGES(chown, OP_CHOWN)

/* A list of a name that something has, and of the one it is to get. */
struct ends { __u32 from, to; };

/* Refuses a new name under which a list would refuse less, or by another rule: in
 * the moment of a change, a name may be read that is neither the old nor the new
 * one. A directory takes all with it that lies below. */
static __noinline int gains(struct subject *j, __u32 list, struct ends *e, bool directory)
{
	if (!e || list >= LISTS || !j->box.automata[list])
		return 0;
	__u32 automaton = j->box.automata[list];
	union row *from = row_of(automaton, e->from), *to = row_of(automaton, e->to);
	if (!from || !to)
		return refuse(j, list, automaton, 0, FLAG_UNSURE);
	if (directory ? from->below && e->from != e->to : from->deny && !(to->deny && to->rule == from->rule))
		return refuse(j, list, automaton, directory ? 0 : from->rule, FLAG_MOVED);
	return 0;
}

/* Both names must be writable. */
static __always_inline int moved(__u8 op, struct dentry *from, struct vfsmount *from_mnt, struct dentry *to, struct vfsmount *to_mnt)
{
	struct subject j = {};
	if (!begin(&j, op))
		return 0;
	if (!room(&j))
		return -EPERM;
	bool directory = (BPF_CORE_READ(from, d_inode, i_mode) & S_IFMT) == S_IFDIR;
	struct ends e[LISTS] = {};
	find(&j, to, to_mnt);
	int err = judge(&j, LIST_WRITE);
	if (err)
		return err;
	for (int i = 0; i < LISTS; i++)
		if (j.box.automata[i])
			e[i].to = end(&j, j.box.automata[i], directory);
	find(&j, from, from_mnt);
	err = judge(&j, LIST_WRITE);
	if (err)
		return err;
	for (int i = 0; i < LISTS; i++) {
		if (!j.box.automata[i])
			continue;
		e[i].from = end(&j, j.box.automata[i], directory);
		err = gains(&j, i, &e[i], directory);
		if (err)
			return err;
	}
	return 0;
}

SEC("lsm/path_link")
int BPF_PROG(on_link, struct dentry *from, const struct path *dir, struct dentry *to)
{
	struct vfsmount *v = BPF_CORE_READ(dir, mnt);
	return moved(OP_LINK, from, v, to, v);
}

SEC("lsm/path_rename")
int BPF_PROG(on_rename, const struct path *from_dir, struct dentry *from, const struct path *to_dir, struct dentry *to, unsigned int flags)
{
	return moved(OP_RENAME, from, BPF_CORE_READ(from_dir, mnt), to, BPF_CORE_READ(to_dir, mnt));
}

/* An exchange gives both a new name. The hook is the same one: programs of one
 * hook run one after the other. */
SEC("lsm/path_rename")
int BPF_PROG(on_exchange, const struct path *from_dir, struct dentry *from, const struct path *to_dir, struct dentry *to, unsigned int flags)
{
	if (!(flags & RENAME_EXCHANGE))
		return 0;
	return moved(OP_RENAME, to, BPF_CORE_READ(to_dir, mnt), from, BPF_CORE_READ(from_dir, mnt));
}
