/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Where a process record is put together: it is too large for the stack.
 */
#ifndef __SCRATCH_H__
#define __SCRATCH_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "netmon.h"
#include "identity.h"

/* a name begins below its limit and may run NETMON_NAME_MAX past it */
#define CGROUP_END   (NETMON_PATH_MAX + NETMON_NAME_MAX + NETMON_CGROUP_MAX)
#define SCRATCH_DATA (CGROUP_END + NETMON_NAME_MAX + NETMON_ARGS_MAX)

/*
 * Of each CPU: a program can be preempted, and another run on the same CPU meanwhile. The busy word
 * says which are in use.
 */
#define SCRATCH_SLOTS 4

struct scratch {
	__u32 busy;
	/*
	 * Bytes of data in use. In memory, not in a register: a loop that appends then looks the
	 * same to the verifier each time round, and it need not follow every sum of lengths.
	 */
	__u32 used;
	struct identity who, parent;
	struct netmon_process head;
	__u8 data[SCRATCH_DATA];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCH_SLOTS);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

/* The number of one that was free in a per-CPU map of them, and now is not; or SCRATCH_SLOTS. */
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

/* A global function: the verifier need not follow what comes after for each number. */
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

/* Append a NUL-ended name, where less than `limit` bytes are in use. */
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
