/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Buffers for building process records, which are too large for the stack.
 */
#ifndef __SCRATCH_H__
#define __SCRATCH_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "netmon.h"
#include "identity.h"

/* a name starts below its limit and may extend NETMON_NAME_MAX past it */
#define CGROUP_END   (NETMON_PATH_MAX + NETMON_NAME_MAX + NETMON_CGROUP_MAX)
#define SCRATCH_DATA (CGROUP_END + NETMON_NAME_MAX + NETMON_ARGS_MAX)

/*
 * Slots per CPU: a program can be preempted and another one run on the same CPU. `busy` marks the
 * slots in use.
 */
#define SCRATCH_SLOTS 4

/* Whose record is being built. Addresses: a global function cannot be given a task. */
struct subject {
	struct identity who;
	__u64 task; /* has the mm of its thread group */
	__u64 leader;
	__u64 current; /* it is the current task, so its arguments can be read */
};

struct scratch {
	__u32 busy;
	/*
	 * Bytes of data in use. Kept in memory, not in a register, so that each iteration of a loop
	 * that appends looks the same to the verifier; it need not track every sum of lengths.
	 */
	__u32 used;
	struct subject own, parent;
	struct netmon_process head;
	__u8 data[SCRATCH_DATA];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCH_SLOTS);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

/* Claim a free slot of a per-CPU map. Yields its index, or SCRATCH_SLOTS if all are busy. */
#define CLAIM(type, map)                                                                           \
	({                                                                                         \
		struct type *candidate;                                                            \
		__u32 i, index;                                                                    \
                                                                                                   \
		for (i = 0; i < SCRATCH_SLOTS; i++) {                                              \
			index = i;                                                                 \
			candidate = bpf_map_lookup_elem(map, &index);                              \
			if (candidate && __sync_lock_test_and_set(&candidate->busy, 1) == 0)       \
				break;                                                             \
		}                                                                                  \
		i;                                                                                 \
	})

/* A global function, so that the verifier need not follow the caller separately for each index. */
__noinline int claim_slot(void)
{
	return CLAIM(scratch, &scratches);
}

static __always_inline struct scratch *claim_scratch(void)
{
	__u32 index = claim_slot();

	return bpf_map_lookup_elem(&scratches, &index);
}

static __always_inline void release_scratch(struct scratch *s)
{
	s->busy = 0;
}

/* Append a NUL-terminated name if fewer than `limit` bytes are in use. */
static __always_inline bool append_name(struct scratch *s, const void *name, __u32 limit)
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

#endif
