/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The system call that the current task is in.
 */
#ifndef __SYSCALL_H__
#define __SYSCALL_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "consts.h"
#include "read.h"

/* From the registers saved on a task's stack; to the verifier, `regs` may be a mere scalar. */
#define READ_SYSCALL_NR(regs)	  ((long)READ(pt_regs, regs, SYSCALL_NR_MEMBER))
#define READ_SYSCALL_ARG(regs, n) ((__u64)READ(pt_regs, regs, SYSCALL_ARG##n))

/* A 32-bit task has different system call numbers. */
static __always_inline bool is_compat(void)
{
	struct task_struct *task = bpf_get_current_task_btf();

#if defined(__TARGET_ARCH_x86)
	return task->thread_info.status & TS_COMPAT;
#elif defined(__TARGET_ARCH_arm64)
	return task->thread_info.flags & (1UL << TIF_32BIT);
#endif
}

#endif
