// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
#pragma once
/* The parts of the kernel's types that are read. Their offsets are put in at
 * load from the BTF of the running kernel, so order and gaps do not matter. */
#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node { __u64 id; };
struct cgroup { int level; struct kernfs_node *kn; struct cgroup *ancestors[]; };
struct cgroup_subsys_state { struct cgroup *cgroup; };
struct css_set { struct cgroup_subsys_state *subsys[1]; struct cgroup *dfl_cgrp; };
enum cgroup_subsys_id { pids_cgrp_id = 1 };

struct qstr {
	union {
		struct { __u32 hash, len; };
		__u64 hash_len;
	};
	const unsigned char *name;
};
struct super_block { __u32 s_dev; };
struct inode { struct super_block *i_sb; unsigned long i_ino; };
struct dentry { struct dentry *d_parent; struct qstr d_name; };
struct vfsmount { struct dentry *mnt_root; };
struct mount { struct mount *mnt_parent; struct dentry *mnt_mountpoint; struct vfsmount mnt; };
struct path { struct vfsmount *mnt; struct dentry *dentry; };
struct file { struct path f_path; struct inode *f_inode; };

typedef struct { __u32 val; } kuid_t;
typedef struct { __u32 val; } kgid_t;
struct user_namespace { int level; };
struct cred { kuid_t uid, euid; kgid_t gid; struct user_namespace *user_ns; };
typedef struct { int counter; } atomic_t;
struct signal_struct { atomic_t live; int group_exit_code; unsigned int flags; };
struct mm_struct { unsigned long arg_start, arg_end; };
struct upid { int nr; };
struct pid { unsigned int level; struct upid numbers[1]; };
struct thread_info { __u32 status; };
struct task_struct {
	struct thread_info thread_info;
	int pid, tgid, exit_code;
	unsigned int ptrace;
	char comm[16];
	struct task_struct *real_parent, *group_leader;
	__u64 start_boottime;
	struct pid *thread_pid;
	struct css_set *cgroups;
	struct mm_struct *mm;
	struct signal_struct *signal;
	const struct cred *cred, *real_cred;
	void *nsproxy;
};
struct linux_binprm { struct file *file; const char *filename; unsigned int secureexec : 1; };
struct kernel_siginfo { int si_code; };

struct in6_addr { __u8 in6_u[16]; };
struct ns_common { unsigned int inum; };
struct net { struct ns_common ns; };
typedef struct { struct net *net; } possible_net_t;
struct sock_common {
	__u32 skc_daddr, skc_rcv_saddr;
	__u16 skc_dport, skc_num;
	unsigned short skc_family;
	struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr;
	possible_net_t skc_net;
};
struct sock { struct sock_common __sk_common; __u16 sk_protocol; int sk_err; };

/* The registers of a system call. */
#if defined(__TARGET_ARCH_x86)
struct pt_regs { unsigned long di, si, dx, orig_ax; };
#elif defined(__TARGET_ARCH_arm64)
struct pt_regs { __u64 regs[31]; __u64 orig_x0; __s32 syscallno; };
#else
#error "the registers of this processor are not known"
#endif

#pragma clang attribute pop

#define EPERM 1
#define ECONNABORTED 103
#define AF_INET 2
#define AF_INET6 10
#define SOCK_DGRAM 2
#define SIGNAL_GROUP_EXIT 4
#define SIGCHLD 17
#define SIGSTOP 19
#define CLD_TRAPPED 4
#define CLD_STOPPED 5
#define CAP_SYS_PTRACE 19
#define CAP_SYS_ADMIN 21
