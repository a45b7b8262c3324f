/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Who did it: the record of a process image, read in the context of the process itself.
 */
#ifndef __PROCESS_H__
#define __PROCESS_H__

#define PF_KTHREAD    0x00200000
#define PF_FORKNOEXEC 0x00000040
#define S_ISUID	      0004000
#define S_ISGID	      0002000
#define S_IXGRP	      0000010
#define AUID_UNSET    0xffffffff
/* a name begins below its limit and may run NETMON_NAME_MAX past it */
#define CGROUP_END   (NETMON_PATH_MAX + NETMON_NAME_MAX + NETMON_CGROUP_MAX)
#define SCRATCH_DATA (CGROUP_END + NETMON_NAME_MAX + NETMON_ARGS_MAX)

/* Counted in user space's favour: a record it has dropped is sent again when this changes. */
__u32 epoch = 0;
__u64 last_image = 0;

struct identity {
	__u64 cap_inheritable;
	__u64 cap_permitted;
	__u64 cap_effective;
	__u32 uid;
	__u32 gid;
	__u32 euid;
	__u32 egid;
};

/* What is remembered of a process image; lives and dies with the thread group leader. */
struct image {
	__u64 id;	 /* 0: no record was sent */
	__u64 exec_time; /* 0: its exec was not seen */
	struct identity identity;
	__u32 epoch;
	__u8 secureexec;
	__u8 complete; /* the record was read in its own context, arguments and all */
	__u16 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct image);
} images SEC(".maps");

/* One slot for each program that can build a record: they may preempt each other. */
enum scratch_slot {
	SCRATCH_CONNECT,
	SCRATCH_RESULT,
	SCRATCH_ACCEPT,
	SCRATCH_CLOSE,
	SCRATCH_SLOTS,
};

struct scratch {
	/*
	 * Bytes of data in use. In memory, not in a register: a loop that appends then looks the
	 * same to the verifier each time round, and it need not follow every sum of lengths.
	 */
	__u32 used;
	__u32 reserved;
	struct netmon_process head;
	__u8 data[SCRATCH_DATA];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCH_SLOTS);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

static __always_inline __u64 caps(const kernel_cap_t *set)
{
	__u64 bits = 0;

	bpf_core_read(&bits, sizeof(bits), set);
	return bits;
}

static __always_inline void identity_of(const struct cred *cred, struct identity *who)
{
	who->cap_inheritable = caps(&cred->cap_inheritable);
	who->cap_permitted = caps(&cred->cap_permitted);
	who->cap_effective = caps(&cred->cap_effective);
	who->uid = cred->uid.val;
	who->gid = cred->gid.val;
	who->euid = cred->euid.val;
	who->egid = cred->egid.val;
}

static __always_inline bool same_identity(const struct identity *a, const struct identity *b)
{
	return a->uid == b->uid && a->euid == b->euid && a->gid == b->gid && a->egid == b->egid &&
	       a->cap_effective == b->cap_effective && a->cap_permitted == b->cap_permitted &&
	       a->cap_inheritable == b->cap_inheritable;
}

/* The kuid that is 0 inside the credentials' user namespace; privileges of "root" are its. */
static __always_inline __u32 root_of(const struct cred *cred)
{
	struct uid_gid_map *map = &cred->user_ns->uid_map;

	return map->nr_extents && map->extent[0].first == 0 ? map->extent[0].lower_first : 0;
}

/*
 * Privileges that came with the executable. A set-id bit counts where it made a difference.
 * For anyone but root, execve() clears the permitted set of all that neither the file nor
 * the ambient set gives (security/commoncap.c).
 */
static __always_inline __u8 secureexec_of(struct file *exe, const struct cred *cred, bool at_exec)
{
	__u32 root = root_of(cred);
	__u16 mode = exe->f_inode->i_mode;
	__u8 flags = 0;

	if (mode & S_ISUID && cred->euid.val != cred->uid.val)
		flags |= NETMON_SECUREEXEC_SETUID;
	if ((mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && cred->egid.val != cred->gid.val)
		flags |= NETMON_SECUREEXEC_SETGID;
	if (at_exec && cred->uid.val != root && cred->euid.val != root &&
	    caps(&cred->cap_permitted) & ~caps(&cred->cap_ambient))
		flags |= NETMON_SECUREEXEC_FILE_CAPS;
	/* Later the file may just have been replaced, as upgrades do. */
	if (at_exec && exe->f_inode->i_nlink == 0)
		flags |= NETMON_SECUREEXEC_FILELESS;
	return flags;
}

static __always_inline struct mount *mount_of(struct vfsmount *mnt)
{
	return (void *)mnt - bpf_core_field_offset(struct mount, mnt);
}

/* Append a NUL-ended name, where less than `limit` bytes are in use. */
static __always_inline bool put_name(struct scratch *s, const void *name, __u32 limit)
{
	__u32 used = s->used;
	long n;

	if (used >= limit)
		return false;
	n = bpf_probe_read_kernel_str(&s->data[used], NETMON_NAME_MAX, name);
	if (n <= 0)
		return false;
	s->used = used + n;
	return true;
}

struct walk {
	struct scratch *s;
	struct dentry *dentry, *root;
	struct mount *mount, *root_mount;
	bool ended;
};

/* One step up; returns 1 at the end. */
static __noinline long walk_up(__u32 i, struct walk *w)
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
		return 0;
	}
	if (!put_name(w->s, BPF_CORE_READ(dentry, d_name.name), NETMON_PATH_MAX))
		return 1;
	parent = BPF_CORE_READ(dentry, d_parent);
	/* a memfd and its like hang below nothing */
	if (dentry == parent)
		goto ended;
	w->dentry = parent;
	return 0;
ended:
	w->ended = true;
	return 1;
}

/*
 * The path of `exe` as a process with this root directory sees it (fs/d_path.c), as NUL-ended
 * names, last name first. Before 5.17 there is no bpf_loop(), and the verifier follows every
 * round of a loop, so there are fewer.
 */
static __always_inline void put_path(struct scratch *s, struct file *exe, struct fs_struct *fs)
{
	struct walk w = {
		.s = s,
		.dentry = BPF_CORE_READ(exe, f_path.dentry),
		.mount = mount_of(BPF_CORE_READ(exe, f_path.mnt)),
	};
	int i;

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
}

/* The names of a cgroup and those above it, last name first. */
static __noinline void put_cgroup(struct scratch *s, struct cgroup *cgroup)
{
	struct cgroup_subsys_state *up;
	int i;

	for (i = 0; i < NETMON_CGROUP_PARTS && cgroup; i++) {
		up = BPF_CORE_READ(cgroup, self.parent);
		if (!up || !put_name(s, BPF_CORE_READ(cgroup, kn, name), CGROUP_END))
			break;
		cgroup = BPF_CORE_READ(up, cgroup);
	}
}

/* The cgroup of one v1 controller, or NULL where the kernel is built without it. */
#define v1_cgroup(css_set, id)                                                                     \
	(bpf_core_enum_value_exists(enum cgroup_subsys_id, id)                                     \
		 ? cgroup_of_subsys(css_set, bpf_core_enum_value(enum cgroup_subsys_id, id))       \
		 : NULL)

static __always_inline struct cgroup *cgroup_of_subsys(struct css_set *set, __u32 id)
{
	struct cgroup_subsys_state *css = NULL;

	bpf_core_read(&css, sizeof(css), &set->subsys[id]);
	return css ? BPF_CORE_READ(css, cgroup) : NULL;
}

static __always_inline void put_cgroups(struct scratch *s, struct task_struct *task)
{
	struct css_set *set = task->cgroups;
	struct cgroup *v2 = BPF_CORE_READ(set, dfl_cgrp);
	struct cgroup *v1 = v1_cgroup(set, pids_cgrp_id);
	__u32 used;

	put_cgroup(s, v2);
	if (!v1)
		v1 = v1_cgroup(set, memory_cgrp_id);
	used = s->used;
	if (!v1 || v1 == v2 || used >= CGROUP_END)
		return;
	s->data[used] = 0;
	s->used = used + 1;
	put_cgroup(s, v1);
}

/*
 * argv as it lies in memory. setproctitle() is told as the kernel does it (get_mm_cmdline() in
 * fs/proc/base.c): the last NUL is overwritten, and the text may run on into the environment.
 */
static __noinline void put_args(struct scratch *s, struct mm_struct *mm)
{
	unsigned long start = mm->arg_start;
	unsigned long end = mm->arg_end;
	__u64 len = end - start;
	__u32 used = s->used;
	__u8 last = 0;

	if (end <= start)
		return;
	if (bpf_probe_read_user(&last, 1, (void *)(end - 1)) == 0 && last) {
		s->head.flags |= NETMON_PROCESS_TITLE;
		if (mm->env_start == end && mm->env_end > end)
			len = mm->env_end - start;
	}
	if (len > NETMON_ARGS_MAX) {
		len = NETMON_ARGS_MAX;
		s->head.flags |= NETMON_PROCESS_ARGS_CUT;
	}
	if (used > CGROUP_END + NETMON_NAME_MAX ||
	    bpf_probe_read_user(&s->data[used], len, (void *)start))
		s->head.flags |= NETMON_PROCESS_ARGS_UNREAD;
	else
		s->used = used + len;
}

static __always_inline __u64 start_of(struct task_struct *leader, struct image *image)
{
	if (image && image->exec_time)
		return image->exec_time;
	return BPF_CORE_READ(leader, start_boottime);
}

/* Nobody: the task before the first, which is the parent of pid 1 and of kthreadd. */
static __always_inline struct task_struct *parent_of(struct task_struct *leader)
{
	return leader->real_parent->group_leader;
}

/*
 * Send the record of one image. `mm` is the current task's, or NULL for another process, whose
 * arguments cannot be read from here.
 */
static __noinline int send_image(struct scratch *s, struct task_struct *leader, struct image *image,
				 struct identity *who, struct mm_struct *mm)
{
	struct task_struct *parent = parent_of(leader);
	struct image *above;
	struct file *exe = NULL;
	__u32 used;

	s->used = 0;
	s->head.kind = NETMON_KIND_PROCESS;
	s->head.flags = 0;
	s->head.reserved = 0;
	s->head.reserved2 = 0;
	s->head.pid = leader->tgid;
	s->head.start = start_of(leader, image);
	s->head.cloned = BPF_CORE_READ(leader, start_boottime);
	s->head.cap_inheritable = who->cap_inheritable;
	s->head.cap_permitted = who->cap_permitted;
	s->head.cap_effective = who->cap_effective;
	s->head.uid = who->uid;
	s->head.gid = who->gid;
	s->head.euid = who->euid;
	s->head.egid = who->egid;
	s->head.auid = bpf_core_field_exists(leader->loginuid) ? leader->loginuid.val : AUID_UNSET;
	bpf_core_read(&s->head.comm, sizeof(s->head.comm), &leader->comm);
	if (image->exec_time)
		s->head.flags |= NETMON_PROCESS_EXECED;
	if (leader->flags & PF_FORKNOEXEC)
		s->head.flags |= NETMON_PROCESS_CLONED;
	if (leader->flags & PF_KTHREAD)
		s->head.flags |= NETMON_PROCESS_KTHREAD;

	s->head.parent = 0;
	s->head.parent_start = 0;
	s->head.ppid = parent->tgid;
	if (s->head.ppid) {
		above = bpf_task_storage_get(&images, parent, 0, 0);
		s->head.parent_start = start_of(parent, above);
		if (above)
			s->head.parent = above->id;
	}

	if (mm)
		exe = mm->exe_file;
	else if (leader->mm)
		exe = leader->mm->exe_file;
	s->head.secureexec = image->secureexec;
	if (exe) {
		if (!image->exec_time)
			s->head.secureexec = secureexec_of(exe, leader->cred, false);
		put_path(s, exe, leader->fs);
	}
	s->head.path_len = s->used;
	put_cgroups(s, leader);
	s->head.cgroup_len = s->used - s->head.path_len;
	used = s->used;
	if (mm)
		put_args(s, mm);
	else
		s->head.flags |= NETMON_PROCESS_ARGS_UNREAD;
	s->head.args_len = s->used - used;

	if (!image->id || !same_identity(&image->identity, who))
		image->id = __sync_fetch_and_add(&last_image, 1) + 1;
	s->head.id = image->id;
	used = s->used;
	if (used > SCRATCH_DATA ||
	    bpf_ringbuf_output(&ring, &s->head, sizeof(s->head) + used, BPF_RB_NO_WAKEUP)) {
		image->id = 0;
		count_lost(NETMON_LOST_PROCESS);
		return 0;
	}
	image->identity = *who;
	image->epoch = epoch;
	image->complete = mm != NULL || leader->flags & PF_KTHREAD;
	return 0;
}

/* exec: what the process was is over, its credentials included. */
static __always_inline void image_replaced(struct task_struct *task)
{
	struct image *image;

	image = bpf_task_storage_get(&images, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!image)
		return;
	image->id = 0;
	image->exec_time = bpf_ktime_get_boot_ns();
	image->secureexec = secureexec_of(task->mm->exe_file, task->cred, true);
}

static __always_inline bool is_known(struct image *image, struct identity *who)
{
	return image->id && image->epoch == epoch && same_identity(&image->identity, who);
}

/*
 * The id of the current process's record, sent first where user space does not have it.
 * To be called in the context of the process only. 0: it could not be sent, which is counted.
 */
static __always_inline __u64 current_image(__u32 slot)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_struct *leader = task->group_leader;
	struct task_struct *parent = parent_of(leader);
	struct image *image, *above;
	struct identity who;
	struct scratch *s;

	image = bpf_task_storage_get(&images, leader, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!image)
		goto lost;
	identity_of(task->cred, &who);
	if (is_known(image, &who) && image->complete)
		return image->id;

	s = bpf_map_lookup_elem(&scratches, &slot);
	if (!s)
		goto lost;
	if (parent->tgid) {
		struct identity parents;

		above = bpf_task_storage_get(&images, parent, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (above) {
			identity_of(parent->cred, &parents);
			if (!is_known(above, &parents))
				send_image(s, parent, above, &parents, NULL);
		}
	}
	send_image(s, leader, image, &who, task->mm);
	return image->id;
lost:
	count_lost(NETMON_LOST_PROCESS);
	return 0;
}

#endif
