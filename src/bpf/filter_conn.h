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

#define NOT_ADMITTED -1

/*
 * Does the process get past the filter? `current`: the current one is the owner, or else `task`;
 * NULL: there is none, and a filter on the process does not match. The number of a scratch
 * that was claimed, which admit_flow() releases, or NOT_ADMITTED.
 */
static __always_inline int admit_process(bool current, struct task_struct *task)
{
	struct filter_scratch *s;
	bool admitted = true;
	int index;

	if (!filter.fields)
		return 0;
	index = claim_filter_slot();
	s = bpf_map_lookup_elem(&filter_scratches, &index);
	if (!s)
		return NOT_ADMITTED;
	filter_all(&s->left);
	if (filter.fields & FILTER_PROCESS)
		admitted = current ? evaluate_current(index) : task && evaluate_task(s, task);
	if (admitted)
		return index;
	s->busy = 0;
	return NOT_ADMITTED;
}

/* Does the current task's connection, or its listener? */
static __always_inline int admit_current(void)
{
	if (!started || !is_followed())
		return NOT_ADMITTED;
	return admit_process(true, NULL);
}

/*
 * Does what `conn` says of the connection get past it as well? Then it knows under which rule, or
 * that its local port has still to be asked for: the port is bound after SYN_SENT, where the
 * caller has not done so.
 */
static __always_inline bool admit_flow(int index, struct sock *sk, struct conn *conn,
				       bool port_final)
{
	struct filter_scratch *s;
	__u64 key = (__u64)sk;
	bool pending;
	int verdict;

	if (!filter.fields)
		return true;
	s = bpf_map_lookup_elem(&filter_scratches, &index);
	if (!s)
		return false;
	pending = filter_uses(FILTER_SPORT) && !conn->flow.sport && !port_final;
	s->flow.ends = conn->flow;
	s->flow.ingress = !(conn->flags & NETMON_FLAG_EGRESS);
	s->flow.port_pending = pending;
	verdict = evaluate_flow(index);
	if (verdict != FILTER_REJECTED && pending) {
		conn->phase = PHASE_PORT_PENDING;
		if (bpf_map_update_elem(&filter_pending, &key, &s->left, BPF_ANY)) {
			count_lost(NETMON_LOST_TABLE);
			verdict = FILTER_REJECTED;
		}
	} else {
		conn->rule = verdict;
	}
	s->busy = 0;
	return verdict != FILTER_REJECTED;
}

/* A socket without an owner: does it match what the filter asks of the connection? */
static __always_inline bool admit_unowned(struct sock *sk, struct conn *conn)
{
	int index = admit_process(false, NULL);

	return index != NOT_ADMITTED && admit_flow(index, sk, conn, true);
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
		filter_port(left, FILTER_SPORT, conn->flow.sport);
		verdict = filter_verdict(left);
		bpf_map_delete_elem(&filter_pending, &key);
	}
	if (verdict == FILTER_REJECTED) {
		conn_claim(sk, NULL);
		return false;
	}
	conn->phase = PHASE_OPENING;
	conn->rule = verdict;
	return true;
}

#endif
