/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The path of a file as a process sees it: from the dentry up through the mounts (fs/d_path.c).
 */
#ifndef __PATH_H__
#define __PATH_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "netmon.h"
#include "scratch.h"

struct filter_scratch;

struct walk {
	union {
		struct scratch *s;
		struct filter_scratch *filter;
	};
	struct dentry *dentry, *root;
	struct mount *mount, *root_mount;
	bool ended;
};

static __always_inline struct mount *mount_of(struct vfsmount *mnt)
{
	return (void *)mnt - bpf_core_field_offset(struct mount, mnt);
}

/*
 * One step up; sets `ended` at the top. Returns the dentry whose name comes next, or NULL if the
 * step crossed a mount.
 */
static __always_inline struct dentry *climb(struct walk *w)
{
	struct dentry *dentry = w->dentry, *parent;
	struct mount *mount = w->mount, *up;

	if (dentry == w->root && mount == w->root_mount)
		goto ended;
	if (dentry == BPF_CORE_READ(mount, mnt.mnt_root)) {
		up = BPF_CORE_READ(mount, mnt_parent);
		if (up == mount)
			goto ended;
		w->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		w->mount = up;
		return NULL;
	}
	parent = BPF_CORE_READ(dentry, d_parent);
	/* memfds and the like have no parent */
	w->ended = dentry == parent;
	w->dentry = parent;
	return dentry;
ended:
	w->ended = true;
	return NULL;
}

/* Returns 1 at the end, or when out of space. */
static __noinline long walk_up(__u32 i, struct walk *w)
{
	struct dentry *named = climb(w);

	if (named && !append_name(w->s, BPF_CORE_READ(named, d_name.name), NETMON_PATH_MAX)) {
		w->ended = false;
		return 1;
	}
	return w->ended;
}

/*
 * Append a file's path as NUL-terminated names, last name first. `file` and `root` are the
 * addresses of the file and of the fs_struct of the process that views it (or 0). Before 5.17 there
 * is no bpf_loop(), and the verifier walks through every iteration, hence the lower limit. A global
 * function, so that it does so only once.
 */
__noinline int append_path(struct scratch *s, __u64 file, __u64 root)
{
	struct file *exe = (void *)file;
	struct fs_struct *fs = (void *)root;
	struct walk w = {
		.s = s,
		.dentry = BPF_CORE_READ(exe, f_path.dentry),
		.mount = mount_of(BPF_CORE_READ(exe, f_path.mnt)),
	};
	int i;

	if (!s)
		return 0;
	if (fs) {
		w.root = BPF_CORE_READ(fs, root.dentry);
		w.root_mount = mount_of(BPF_CORE_READ(fs, root.mnt));
	}
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_loop)) {
		bpf_loop(NETMON_PATH_PARTS, walk_up, &w, 0);
	} else {
		for (i = 0; i < NETMON_PATH_PARTS_UNLOOPED; i++)
			if (walk_up(i, &w))
				break;
	}
	if (!w.ended)
		s->head.flags |= NETMON_PROCESS_PATH_CUT;
	return 0;
}

#endif
