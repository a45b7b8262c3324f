/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The arguments a process was started with: its own, and those of its parents.
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
 * A process's memory can only be read in its own context, and a parent may have exited by the time
 * user space reads /proc. So every process that forks saves its arguments here, as of its last fork
 * or exec.
 */
struct kept_args {
	__u32 execs; /* task_struct.self_exec_id of the image they belong to */
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

struct argv {
	const void *start;
	__u64 len;
	__u8 flags; /* enum netmon_process_flag */
};

/*
 * Follows get_mm_cmdline() in fs/proc/base.c for setproctitle(): if the last NUL has been
 * overwritten, the title may extend into the environment.
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

/* User space recognizes a title by the length of /proc/PID/cmdline, which then differs. */
static __always_inline __u16 argv_len_of(struct mm_struct *mm)
{
	unsigned long start = READ(mm_struct, mm, arg_start);
	unsigned long end = READ(mm_struct, mm, arg_end);

	if (end <= start)
		return 0;
	return end - start > 0xffff ? 0xffff : end - start;
}

/* Append the arguments of the current process, whose mm is at `mm`. A global function. */
__noinline int append_args(struct scratch *s, __u64 mm)
{
	struct argv argv;
	__u32 used;
	__u64 len;

	if (!s)
		return 0;
	argv = argv_of((struct mm_struct *)mm, NETMON_ARGS_MAX);
	len = argv.len;
	used = s->used;
	/* repeat the bound for the verifier */
	if (len > NETMON_ARGS_MAX)
		len = NETMON_ARGS_MAX;
	s->head.flags |= argv.flags;
	if (used > CGROUP_END + NETMON_NAME_MAX ||
	    bpf_probe_read_user(&s->data[used], len, argv.start))
		s->head.flags |= NETMON_PROCESS_ARGS_UNREAD;
	else
		s->used = used + len;
	return 0;
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

/* Runs in the context of the process that has just forked. */
static __always_inline void keep_args(struct task_struct *task, struct task_struct *leader)
{
	struct kept_args *kept;
	struct mm_struct *mm = READ(task_struct, task, mm);

	if (!mm || task->flags & PF_KTHREAD)
		return;
	kept = bpf_task_storage_get(&kept_args, leader, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (kept)
		fill_kept_args(kept, leader, mm);
}

/* Runs in the context of a process that has just exec'd; refreshes what its children will read. */
static __always_inline void renew_kept_args(struct task_struct *leader)
{
	struct kept_args *kept = bpf_task_storage_get(&kept_args, leader, 0, 0);

	if (kept)
		fill_kept_args(kept, leader, READ(task_struct, leader, mm));
}

/*
 * Append the saved arguments of a process that cannot be read, if there are any. `execs` is its
 * self_exec_id.
 */
__noinline int append_kept_args(struct scratch *s, const struct kept_args *kept, __u32 execs)
{
	__u32 used;
	__u64 len;

	if (!s)
		return 0;
	used = s->used;
	if (!kept || kept->execs != execs || kept->flags & NETMON_PROCESS_ARGS_UNREAD ||
	    used > CGROUP_END + NETMON_NAME_MAX) {
		s->head.flags |= NETMON_PROCESS_ARGS_UNREAD;
		return 0;
	}
	len = kept->len;
	if (len > KEPT_ARGS_MAX)
		len = KEPT_ARGS_MAX;
	s->head.flags |= kept->flags;
	bpf_probe_read_kernel(&s->data[used], len, kept->data);
	s->used = used + len;
	return 0;
}

#endif
