/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Answers about processes that have opened or closed a connection before, without a look-up of
 * their images: the id of a record that user space has, or that the filter rejects them.
 */
#ifndef __RECENT_H__
#define __RECENT_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "consts.h"
#include "read.h"
#include "ring.h"
#include "identity.h"

/* Incremented by user space: records that it has dropped are sent again when this changes. */
__u32 epoch = 0;

#define RECENT	 1024
#define REJECTED (~0ULL)

/* Valid for this task, after this many execs, with this identity. */
struct recent {
	__u64 answer; /* 0: none, or being written */
	__u64 leader; /* address of the task_struct */
	__u64 start;  /* tells tasks apart that have had the same address */
	struct identity who;
	__u32 execs;
	__u32 epoch;
	__u32 busy;
	__u32 reserved;
};

/* Indexed by process. Each entry has one writer at a time. */
struct recent recent[RECENT] = {};

static __always_inline struct recent *recent_of(struct task_struct *task)
{
	return &recent[task->tgid & (RECENT - 1)];
}

/* The answer for the current task, or 0. A global function. */
__noinline __u64 recall(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_struct *leader = READ(task_struct, task, group_leader);
	struct recent *r = recent_of(task);
	__u64 answer = *(volatile __u64 *)&r->answer;
	struct identity who;

	if (!answer || r->leader != (__u64)leader ||
	    r->start != READ(task_struct, leader, start_boottime) ||
	    r->execs != (__u32)READ(task_struct, leader, self_exec_id) || r->epoch != epoch)
		return 0;
	identity_of(task, leader, &who);
	if (!same_identity(&r->who, &who))
		return 0;
	/* No answer is ever given twice: if it is still there, nothing has been replaced. */
	return load_last(&r->answer) == answer ? answer : 0;
}

static __always_inline void remember(struct task_struct *leader, const struct identity *who,
				     __u64 answer, __u32 answer_epoch)
{
	struct recent *r = recent_of(leader);

	if (__sync_lock_test_and_set(&r->busy, 1))
		return;
	__sync_lock_test_and_set(&r->answer, 0);
	r->leader = (__u64)leader;
	r->start = leader->start_boottime;
	r->who = *who;
	r->execs = leader->self_exec_id;
	r->epoch = answer_epoch;
	__sync_lock_test_and_set(&r->answer, answer);
	__sync_lock_test_and_set(&r->busy, 0);
}

#endif
