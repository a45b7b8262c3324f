/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The filter asked of connections, when they open: a rejected one costs the look-ups it takes to
 * reject it and leaves nothing behind, not even the record of its process.
 */
#ifndef __FILTER_CONN_H__
#define __FILTER_CONN_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include "consts.h"
#include "netmon.h"
#include "ring.h"
#include "filter.h"
#include "filter_process.h"
#include "flow.h"
#include "follow.h"
#include "conn.h"

/*
 * Is it anybody's? `current`: the current process is the owner, or else `task`; NULL: nobody is,
 * and then a filter that asks for the process is not met.
 */
static __always_inline bool evaluate_owner(__u32 slot, struct filter_scratch *s, bool current,
					   struct task_struct *task)
{
	filter_all(&s->left);
	if (!(filter.fields & FILTER_PROCESS))
		return true;
	if (current)
		return evaluate_current(slot);
	return task && evaluate_task(s, task);
}

static __always_inline bool admit_in(__u32 slot, struct sock *sk, struct conn *conn,
				     struct target *to, bool raw, bool current,
				     struct task_struct *task)
{
	struct filter_scratch *s = bpf_map_lookup_elem(&filter_scratches, &slot);
	__u64 key = (__u64)sk;
	int verdict;

	if (!s || !evaluate_owner(slot, s, current, task))
		return false;
	fill_flow(&s->flow.ends, sk, to, raw);
	s->flow.ingress = !(conn->flags & NETMON_FLAG_EGRESS);
	/* The port is bound after SYN_SENT, where the caller has not done so. */
	s->flow.port_pending = filter_uses(FILTER_SPORT) && !s->flow.ends.sport && !to;
	verdict = evaluate_flow(slot);
	if (verdict == FILTER_REJECTED)
		return false;
	if (!filter_uses(FILTER_SPORT) || !s->flow.port_pending) {
		conn->rule = verdict;
		return true;
	}
	conn->phase = PHASE_PORT_PENDING;
	if (bpf_map_update_elem(&filter_pending, &key, &s->left, BPF_ANY) == 0)
		return true;
	count_lost(NETMON_LOST_TABLE);
	return false;
}

static __always_inline void release_filter_slot(__u32 slot)
{
	struct filter_scratch *s = bpf_map_lookup_elem(&filter_scratches, &slot);

	if (s)
		s->busy = 0;
}

/*
 * Does the connection that the current task opens or accepts get past the filter? Then `conn`
 * knows under which rule, or that its local port has still to be asked for.
 */
static __always_inline bool admit(struct sock *sk, struct conn *conn, struct target *to, __u32 slot,
				  bool raw)
{
	bool admitted;

	if (!started || !is_followed())
		return false;
	if (!filter.fields)
		return true;
	slot = claim_filter_slot(slot);
	admitted = admit_in(slot, sk, conn, to, raw, true, NULL);
	release_filter_slot(slot);
	return admitted;
}

/* The same of a socket that was found; `task` has a descriptor of it, NULL: nobody may. */
static __always_inline bool admit_existing(struct sock *sk, struct conn *conn,
					   struct task_struct *task)
{
	bool admitted;
	__u32 slot;

	if (!filter.fields)
		return true;
	slot = claim_filter_slot(SCRATCH_RESULT);
	admitted = admit_in(slot, sk, conn, NULL, false, false, task);
	release_filter_slot(slot);
	return admitted;
}

/*
 * A child of a listener: by whom it will be accepted is not known, but maybe the rest says
 * already that it will not matter.
 */
static __always_inline bool admit_child(struct sock *sk)
{
	struct filter_scratch *s;
	bool admitted = true;
	__u32 slot;

	if (!started)
		return false;
	if (!(filter.fields & ~FILTER_PROCESS))
		return true;
	slot = claim_filter_slot(SCRATCH_CLOSE);
	s = bpf_map_lookup_elem(&filter_scratches, &slot);
	if (s) {
		filter_all(&s->left);
		fill_flow(&s->flow.ends, sk, NULL, false);
		s->flow.ingress = 1;
		s->flow.port_pending = 0;
		admitted = evaluate_flow(slot) != FILTER_REJECTED;
		s->busy = 0;
	}
	return admitted;
}

/* What is left of a socket, or there yet, and belongs to nobody: the event knows all of it. */
static __always_inline bool admit_remains(const struct netmon_event *e, bool ingress)
{
	struct filter_scratch *s;
	bool admitted = false;
	__u32 slot;

	if (!filter.fields)
		return true;
	if (filter.fields & FILTER_PROCESS)
		return false;
	slot = claim_filter_slot(SCRATCH_RESULT);
	s = bpf_map_lookup_elem(&filter_scratches, &slot);
	if (s) {
		filter_all(&s->left);
		s->flow.ends = e->flow;
		s->flow.ingress = ingress;
		s->flow.port_pending = 0;
		admitted = evaluate_flow(slot) != FILTER_REJECTED;
		s->busy = 0;
	}
	return admitted;
}

/* The local port is final. False, and forgotten, if the connection is rejected for it. */
static __always_inline bool resolve_pending_port(struct sock *sk, struct conn *conn)
{
	int verdict = FILTER_REJECTED;
	__u64 key = (__u64)sk;
	struct filter_set *left;

	if (!filter_uses(FILTER_SPORT) || conn->phase != PHASE_PORT_PENDING)
		return true;
	left = bpf_map_lookup_elem(&filter_pending, &key);
	if (left) {
		filter_port(left, FILTER_SPORT,
			    bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport)));
		verdict = filter_verdict(left);
		bpf_map_delete_elem(&filter_pending, &key);
	}
	if (verdict == FILTER_REJECTED) {
		conn_delete(sk);
		return false;
	}
	conn->phase = PHASE_OPENING;
	conn->rule = verdict;
	return true;
}

#endif
