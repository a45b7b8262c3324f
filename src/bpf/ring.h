/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The ring buffer to user space, when to wake its reader, and the loss counters.
 */
#ifndef __RING_H__
#define __RING_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "netmon.h"

const volatile struct netmon_config config = {};

/*
 * In the object for plain runs (build.rs) these are constants, and the compiler leaves out what
 * they exclude, so that there is less to load: filters, `-- COMMAND`, and other events than the
 * default ones. In the others, user space sets them before load, and the verifier leaves it out.
 */
#ifdef PLAIN
#define CHOICE const
#else
#define CHOICE const volatile
#endif

CHOICE __u32 want = NETMON_WANT_DEFAULT; /* enum netmon_want */
CHOICE __u32 follow = 0;		 /* 1: only descendants of tcptrace itself */

/* Is any of these kinds of events wanted? */
static __always_inline bool wants(__u32 kinds)
{
	return want & kinds;
}

/* Read by user space when it stops. Written only on a loss, so a shared cache line is fine. */
__u64 lost[NETMON_LOST_CAUSES] = {};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20); /* --ring-size */
} ring SEC(".maps");

static __always_inline void count_lost(__u32 cause)
{
	__sync_fetch_and_add(&lost[cause], 1);
}

#define RINGBUF_HEADER 8 /* BPF_RINGBUF_HDR_SZ */

/*
 * A wake-up costs ten times as much as a record. The reader polls every few milliseconds anyway; it
 * is woken about eight times while the ring fills, in case it sleeps through a burst. The record's
 * address tells where in the ring it is; once stored it is a plain number to the verifier.
 */
static __always_inline __u64 wake_flag(struct netmon_event *e)
{
	volatile __u64 *word = &e->time;
	__u64 time = *word, address;

	*word = (__u64)e;
	address = *word;
	*word = time;
	return (address & config.wake_mask) < RINGBUF_HEADER + sizeof(*e) ? BPF_RB_FORCE_WAKEUP
									  : BPF_RB_NO_WAKEUP;
}

#endif
