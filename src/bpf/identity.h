/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The identity of a process: credentials, login, cgroups, and privileges from its executable.
 */
#ifndef __IDENTITY_H__
#define __IDENTITY_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "consts.h"
#include "netmon.h"
#include "read.h"

/* A change to any of these starts a new image without an exec. Compared on every event. */
struct identity {
	__u64 cap_inheritable;
	__u64 cap_permitted;
	__u64 cap_effective;
	__u32 uid;
	__u32 gid;
	__u32 euid;
	__u32 egid;
	__u32 auid;
	__u32 reserved;
	__u64 cgroups; /* address of the css_set */
};

static __always_inline __u64 caps(const kernel_cap_t *set)
{
	__u64 bits = 0;

	bpf_core_read(&bits, sizeof(bits), set);
	return bits;
}

static __always_inline const struct cred *cred_of(struct task_struct *task)
{
	return HAS_CAST ? CAST(task_struct, task)->real_cred : task->real_cred;
}

/*
 * The thread's own credentials, and the objective ones (real_cred), as in /proc: temporary
 * overrides by io_uring or overlayfs are not the identity of the process.
 */
static __always_inline void identity_of(struct task_struct *task, struct task_struct *leader,
					struct identity *who)
{
	const struct cred *cred = cred_of(task);

	if (bpf_core_field_exists(cred->cap_effective.val)) {
		who->cap_inheritable = cred->cap_inheritable.val;
		who->cap_permitted = cred->cap_permitted.val;
		who->cap_effective = cred->cap_effective.val;
	} else {
		bpf_core_read(&who->cap_inheritable, 8, &cred->cap_inheritable);
		bpf_core_read(&who->cap_permitted, 8, &cred->cap_permitted);
		bpf_core_read(&who->cap_effective, 8, &cred->cap_effective);
	}
	who->cgroups = (__u64)READ(task_struct, leader, cgroups);
	who->uid = cred->uid.val;
	who->gid = cred->gid.val;
	who->euid = cred->euid.val;
	who->egid = cred->egid.val;
	who->auid = bpf_core_field_exists(task->loginuid) ? task->loginuid.val : ID_UNSET;
	who->reserved = 0;
}

/*
 * One comparison in the end: the verifier would have to follow a branch for each member. But to the
 * verifier the address may be a pointer, which can only be compared.
 */
static __always_inline bool same_identity(const struct identity *a, const struct identity *b)
{
	__u64 differs =
		(a->cap_inheritable ^ b->cap_inheritable) | (a->cap_permitted ^ b->cap_permitted) |
		(a->cap_effective ^ b->cap_effective) | (a->uid ^ b->uid) | (a->gid ^ b->gid) |
		(a->euid ^ b->euid) | (a->egid ^ b->egid) | (a->auid ^ b->auid);

	return !differs && a->cgroups == b->cgroups;
}

/* The kuid that is root in the credentials' user namespace, and privileged there. */
static __always_inline __u32 root_of(const struct cred *cred)
{
	struct uid_gid_map *map = &BPF_CORE_READ(cred, user_ns)->uid_map;
	struct uid_gid_extent *extent = map->extent;
	__u32 i, count = BPF_CORE_READ(map, nr_extents);

	/* A longer map is stored out of line and sorted: only its first extent can start at 0. */
	if (count > UID_GID_MAP_MAX_BASE_EXTENTS) {
		extent = BPF_CORE_READ(map, forward);
		count = 1;
	}
	for (i = 0; i < UID_GID_MAP_MAX_BASE_EXTENTS && i < count; i++)
		if (BPF_CORE_READ(&extent[i], first) == 0)
			return BPF_CORE_READ(&extent[i], lower_first);
	return ID_UNSET;
}

/*
 * Privileges gained from the executable. A set-id bit counts only if it changed an ID. For non-root
 * users, execve() clears from the permitted set whatever neither the file nor the ambient set
 * grants (security/commoncap.c).
 */
static __always_inline __u8 secureexec_of(struct file *exe, const struct cred *cred, bool at_exec)
{
	struct inode *inode = BPF_CORE_READ(exe, f_inode);
	__u16 mode = BPF_CORE_READ(inode, i_mode);
	__u32 uid = READ(cred, cred, uid.val), euid = READ(cred, cred, euid.val), root;
	__u8 flags = 0;

	if (mode & S_ISUID && euid != uid)
		flags |= NETMON_SECUREEXEC_SETUID;
	if ((mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) &&
	    READ(cred, cred, egid.val) != READ(cred, cred, gid.val))
		flags |= NETMON_SECUREEXEC_SETGID;
	if (!at_exec)
		return flags;
	root = root_of(cred);
	if (uid != root && euid != root && caps(&cred->cap_permitted) & ~caps(&cred->cap_ambient))
		flags |= NETMON_SECUREEXEC_FILE_CAPS;
	/*
	 * The file has no name (a memfd, or unlinked). Only checked at exec: later on it may simply
	 * have been replaced, as upgrades do. Some file systems do not count links, but a file with
	 * a name is hashed.
	 */
	if (BPF_CORE_READ(inode, i_nlink) == 0 && !BPF_CORE_READ(exe, f_path.dentry, d_hash.pprev))
		flags |= NETMON_SECUREEXEC_FILELESS;
	return flags;
}

#endif
