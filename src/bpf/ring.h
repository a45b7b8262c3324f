/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The way out: the ring, its rare wake-ups, and the count of what did not fit.
 */
#ifndef __RING_H__
#define __RING_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "netmon.h"

const volatile struct netmon_config config = {};

/* Read by user space when it stops. Touched only on a loss, so one line for all CPUs will do. */
__u64 lost[NETMON_LOST_CAUSES] = {};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20); /* --ring-size */
} ring SEC(".maps");

static __always_inline void count_lost(__u32 cause)
{
	__sync_fetch_and_add(&lost[cause], 1);
}

/*
 * A wake-up costs ten times a record. The reader comes by itself every few milliseconds; it is
 * woken about eight times while the ring fills, in case it sleeps through a burst.
 */
static __always_inline __u64 wake_flag(void)
{
	__u64 written = bpf_ringbuf_query(&ring, BPF_RB_PROD_POS);

	return (written & config.wake_mask) < sizeof(struct netmon_event) ? BPF_RB_FORCE_WAKEUP
									  : BPF_RB_NO_WAKEUP;
}

#endif
