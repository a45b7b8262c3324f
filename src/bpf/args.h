/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What a process was called with: its own arguments, and those of parents.
 */
#ifndef __ARGS_H__
#define __ARGS_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "consts.h"
#include "netmon.h"
#include "read.h"
#include "scratch.h"

#define KEPT_ARGS_MAX 4096

/*
 * Only a process itself can read its memory. A parent may be gone before user space comes to read
 * /proc, so a process that forks leaves its arguments here: as of its last fork, or its last exec.
 */
struct kept_args {
	__u32 execs; /* which image they are of: task_struct.self_exec_id */
	__u16 len;
	__u8 flags; /* enum netmon_process_flag */
	__u8 reserved;
	__u8 data[KEPT_ARGS_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct kept_args);
} kept_args SEC(".maps");

/* argv as it lies in memory. */
struct argv {
	const void *start;
	__u64 len;
	__u8 flags; /* enum netmon_process_flag */
};

/*
 * setproctitle() is shown as the kernel shows it (get_mm_cmdline() in fs/proc/base.c): the last NUL
 * is overwritten, and the text may run on into the environment.
 */
static __always_inline struct argv argv_of(struct mm_struct *mm, __u64 limit)
{
	unsigned long start = READ(mm_struct, mm, arg_start);
	unsigned long end = READ(mm_struct, mm, arg_end);
	struct argv argv = {.start = (void *)start};
	__u8 last = 0;

	if (end <= start)
		return argv;
	argv.len = end - start;
	if (bpf_probe_read_user(&last, 1, (void *)(end - 1)) == 0 && last) {
		argv.flags |= NETMON_PROCESS_TITLE;
		if (READ(mm_struct, mm, env_start) == end && READ(mm_struct, mm, env_end) > end)
			argv.len = READ(mm_struct, mm, env_end) - start;
	}
	if (argv.len > limit) {
		argv.len = limit;
		argv.flags |= NETMON_PROCESS_ARGS_CUT;
	}
	return argv;
}

/* Who reads them from /proc, where argv looks like a title, has to know how long argv is. */
static __always_inline __u16 argv_len_of(struct mm_struct *mm)
{
	unsigned long start = READ(mm_struct, mm, arg_start);
	unsigned long end = READ(mm_struct, mm, arg_end);

	if (end <= start)
		return 0;
	return end - start > 0xffff ? 0xffff : end - start;
}

/* Append the current process's arguments. */
static __noinline void append_args(struct scratch *s, struct mm_struct *mm)
{
	struct argv argv = argv_of(mm, NETMON_ARGS_MAX);
	__u64 len = argv.len;
	__u32 used = s->used;

	/* said again for the verifier */
	if (len > NETMON_ARGS_MAX)
		len = NETMON_ARGS_MAX;
	s->head.flags |= argv.flags;
	if (used > CGROUP_END + NETMON_NAME_MAX ||
	    bpf_probe_read_user(&s->data[used], len, argv.start))
		s->head.flags |= NETMON_PROCESS_ARGS_UNREAD;
	else
		s->used = used + len;
}

static __always_inline void fill_kept_args(struct kept_args *kept, struct task_struct *leader,
					   struct mm_struct *mm)
{
	struct argv argv = argv_of(mm, KEPT_ARGS_MAX);
	__u64 len = argv.len;

	if (len > KEPT_ARGS_MAX)
		len = KEPT_ARGS_MAX;
	kept->execs = leader->self_exec_id;
	kept->flags = argv.flags;
	kept->len = len;
	if (bpf_probe_read_user(kept->data, len, argv.start)) {
		kept->flags |= NETMON_PROCESS_ARGS_UNREAD;
		kept->len = 0;
	}
}

/* In the context of a process that has just forked. */
static __always_inline void keep_args(struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;
	struct kept_args *kept;
	struct mm_struct *mm = READ(task_struct, task, mm);

	if (!mm || task->flags & PF_KTHREAD)
		return;
	kept = bpf_task_storage_get(&kept_args, leader, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (kept)
		fill_kept_args(kept, leader, mm);
}

/* In the context of a process that has just exec'd: its children want to know. */
static __always_inline void renew_kept_args(struct task_struct *leader)
{
	struct kept_args *kept = bpf_task_storage_get(&kept_args, leader, 0, 0);

	if (kept)
		fill_kept_args(kept, leader, READ(task_struct, leader, mm));
}

/* Append what another process was called with, if it is known. */
static __noinline void append_kept_args(struct scratch *s, struct task_struct *leader)
{
	struct kept_args *kept = bpf_task_storage_get(&kept_args, leader, 0, 0);
	__u32 used = s->used;
	__u64 len;

	if (!kept || kept->execs != (__u32)leader->self_exec_id ||
	    kept->flags & NETMON_PROCESS_ARGS_UNREAD || used > CGROUP_END + NETMON_NAME_MAX) {
		s->head.flags |= NETMON_PROCESS_ARGS_UNREAD;
		return;
	}
	len = kept->len;
	if (len > KEPT_ARGS_MAX)
		len = KEPT_ARGS_MAX;
	s->head.flags |= kept->flags;
	bpf_probe_read_kernel(&s->data[used], len, kept->data);
	s->used = used + len;
}

#endif
