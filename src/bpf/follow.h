/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Which processes belong to the traced command.
 *
 * tcptrace marks itself before it starts the command, and every child of a marked process is marked
 * at fork. Threads are marked as well, since a thread that execs becomes the group leader.
 */
#ifndef __FOLLOW_H__
#define __FOLLOW_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "netmon.h"
#include "ring.h"

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u32);
} followed SEC(".maps");

static __always_inline bool is_marked(struct task_struct *task)
{
	return bpf_task_storage_get(&followed, task->group_leader, 0, 0) != NULL;
}

static __always_inline void follow_fork(struct task_struct *parent, struct task_struct *child)
{
	if (is_marked(parent) &&
	    !bpf_task_storage_get(&followed, child, 0, BPF_LOCAL_STORAGE_GET_F_CREATE))
		count_lost(NETMON_LOST_FOLLOW);
}

/* Is the current task to be traced? Always true if no command was given. */
static __always_inline bool is_followed(void)
{
	return !follow || is_marked(bpf_get_current_task_btf());
}

#endif
