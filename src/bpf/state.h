/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * -e state: every state transition of a socket. Runs under the socket lock.
 */
#ifndef __STATE_H__
#define __STATE_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "consts.h"
#include "netmon.h"
#include "ring.h"
#include "filter.h"
#include "filter_conn.h"
#include "conn.h"

/* Children in their listener's accept queue. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 16);
	__type(key, __u64);
	__type(value, struct conn);
} waiting SEC(".maps");

static __always_inline void report_state(struct conn *conn, int oldstate, int newstate)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct netmon_event *e = new_event(conn, NETMON_KIND_STATE, now);

	if (e) {
		e->states = oldstate | newstate << 4;
		fill_duration(e, conn->state_since);
		send_event(e);
	}
	conn->state_since = now;
	conn->state = newstate;
}

/* Not inlined, to keep its locals off the caller's stack. */
static __noinline void begin_waiting(struct sock *sk)
{
	struct conn conn = {.sk = (__u64)sk, .flags = flags_of(sk)};
	__u64 key = (__u64)sk;

	conn.cookie = bpf_get_socket_cookie(sk);
	conn.ifindex = ifindex_of(sk);
	conn.begun = bpf_ktime_get_boot_ns();
	fill_flow(&conn.flow, sk, NULL);
	if (!started || (!(filter.fields & FILTER_PROCESS) && !admit_unowned(sk, &conn)))
		return;
	conn.state = TCP_ESTABLISHED;
	if (filter.fields & FILTER_PROCESS)
		conn.state_since = conn.begun;
	else
		report_state(&conn, TCP_SYN_RECV, TCP_ESTABLISHED);
	if (bpf_map_update_elem(&waiting, &key, &conn, BPF_ANY))
		count_lost(NETMON_LOST_TABLE);
}

/* When the child that is now accepted began: its transitions may already have been reported. */
static __always_inline __u64 begun_waiting(struct sock *sk, __u64 now)
{
	__u64 key = (__u64)sk;
	struct conn *child;

	if (!wants(NETMON_WANT_STATE))
		return now;
	child = bpf_map_lookup_elem(&waiting, &key);
	return child ? child->begun : now;
}

/*
 * A transition of a socket that is or may be traced. While the filter is undecided, because it
 * needs the local port or the accepting process, transitions are not reported: the socket may yet
 * be rejected.
 */
static __always_inline void handle_step(struct sock *sk, int oldstate, int newstate, bool second)
{
	struct conn *conn = conn_of(sk), *child;
	__u64 key = (__u64)sk;

	child = bpf_map_lookup_elem(&waiting, &key);
	if (second &&
	    ((conn && conn->state == newstate) || (!conn && child && child->state == newstate)))
		return;
	if (conn) {
		if (child) {
			conn->state_since = child->state_since;
			conn->state = child->state;
			bpf_map_delete_elem(&waiting, &key);
		}
		if (!conn->flow.sport)
			conn->flow.sport = local_port(sk);
		if (conn->phase == PHASE_PORT_PENDING) {
			conn->state_since = bpf_ktime_get_boot_ns();
			conn->state = newstate;
		} else {
			if (conn->state && conn->state != oldstate)
				count_lost(NETMON_LOST_SKIPPED);
			report_state(conn, oldstate, newstate);
		}
	} else if (child) {
		if (filter.fields & FILTER_PROCESS) {
			child->state_since = bpf_ktime_get_boot_ns();
			child->state = newstate;
		} else {
			report_state(child, oldstate, newstate);
		}
		if (newstate == TCP_CLOSE)
			bpf_map_delete_elem(&waiting, &key);
	} else if (oldstate == TCP_SYN_RECV && newstate == TCP_ESTABLISHED && is_tcp(sk)) {
		begin_waiting(sk);
	}
}

#endif
