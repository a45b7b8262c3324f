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

/* One slot for each kind of program that builds records. */
enum scratch_slot {
	SCRATCH_CONNECT,
	SCRATCH_RESULT,
	SCRATCH_ACCEPT,
	SCRATCH_CLOSE,
	SCRATCH_REQUEST,
	SCRATCH_SLOTS,
};

struct scratch {
	__u32 busy;
	/*
	 * Bytes of data in use. In memory, not in a register: a loop that appends then looks the
	 * same to the verifier each time round, and it need not follow every sum of lengths.
	 */
	__u32 used;
	struct identity parent;
	struct netmon_process head;
	__u8 data[SCRATCH_DATA];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCH_SLOTS);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

/*
 * A program can be preempted, and another one of its kind run on the same CPU meanwhile (fexit of
 * connect for IPv4 and IPv6, say). Then a slot of another kind will do. SCRATCH_SLOTS: all are
 * taken. A global function: the verifier need not follow what comes after for each slot.
 */
__noinline int claim_slot(__u32 slot)
{
	struct scratch *s;
	__u32 i;

	for (i = 0; i < SCRATCH_SLOTS; i++) {
		s = bpf_map_lookup_elem(&scratches, &slot);
		if (s && __sync_lock_test_and_set(&s->busy, 1) == 0)
			return slot;
		slot = slot + 1 < SCRATCH_SLOTS ? slot + 1 : 0;
	}
	return SCRATCH_SLOTS;
}

static __always_inline struct scratch *claim_scratch(__u32 slot)
{
	slot = claim_slot(slot);
	return bpf_map_lookup_elem(&scratches, &slot);
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
