/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Applies the filter to connections as they open. A rejected connection costs only the lookups
 * needed to reject it and leaves nothing behind, not even the record of its process.
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
 * Does the process pass the filter? The owner is the current task if `current` is set, otherwise
 * `task`. If that is NULL there is no owner, and filters on the process do not match. Returns the
 * index of a claimed scratch slot, which admit_flow() releases, or NOT_ADMITTED.
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

/* Is it certain already that no connection of the current task is traced? */
static __always_inline bool is_out(void)
{
	return !started || !is_followed() ||
	       (filter.fields & FILTER_PROCESS && recall() == REJECTED);
}

/* Same as admit_process() for the current task, as the owner of a connection or a listener. */
static __always_inline int admit_current(void)
{
	return is_out() ? NOT_ADMITTED : admit_process(true, NULL);
}

/* The local ports that the kernel chooses from. IP_LOCAL_PORT_RANGE can only leave out some. */
static __always_inline void chosen_ports(struct sock *sk, __u16 *first, __u16 *last)
{
	struct net *net = READ(sock, sk, __sk_common.skc_net.net);
	struct local_ports *ports = &net->ipv4.ip_local_ports;
	struct local_ports___6_8 *packed = (struct local_ports___6_8 *)ports;
	__u32 range;

	if (bpf_core_field_exists(packed->range)) {
		range = READ(local_ports___6_8, packed, range);
		*first = range;
		*last = range >> 16;
	} else {
		*first = READ(local_ports, ports, range[0]);
		*last = READ(local_ports, ports, range[1]);
	}
}

/*
 * Replace a local port that the kernel has yet to choose, if they all have the same terms: they do
 * if the filter is on a server's port. False if the choice matters.
 */
static __always_inline bool guess_port(struct sock *sk, __u16 *port)
{
	__u16 first, last;

	chosen_ports(sk, &first, &last);
	if (first < filter.alike_first || last > filter.alike_last)
		return false;
	*port = first;
	return true;
}

/*
 * Does the connection pass as well? On success `conn` has its rule, or PHASE_PORT_PENDING if the
 * filter still needs the local port: unless the caller has bound the socket, the port is chosen
 * after SYN_SENT.
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
	s->flow.ends = conn->flow;
	pending = filter_uses(FILTER_SPORT) && !conn->flow.sport && !port_final &&
		  !guess_port(sk, &s->flow.ends.sport);
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

/* For a socket without an owner, which no filter on the process matches. */
static __always_inline bool admit_unowned(struct sock *sk, struct conn *conn)
{
	int index = admit_process(false, NULL);

	return index != NOT_ADMITTED && admit_flow(index, sk, conn, true);
}

/* The local port is final. If the filter rejects it, drop the entry and return false. */
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
