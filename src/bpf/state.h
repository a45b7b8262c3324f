/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The states a socket goes through, for those who ask: listening, and each single step.
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
#include "socket.h"

/*
 * The filter has not had its last word: it waits for the local port, or for the process that will
 * accept. What such a socket does meanwhile is not reported, for it may never be asked for.
 */
static __always_inline bool is_undecided(struct conn *conn)
{
	return conn->phase == PHASE_PORT_PENDING ||
	       (filter.fields & FILTER_PROCESS && conn->phase == PHASE_OPENING &&
		!(conn->flags & (NETMON_FLAG_EGRESS | NETMON_FLAG_EXISTING)));
}

/* Report a step. False: the socket is none of those traced, or not yet. */
static __always_inline bool report_state(struct sock *sk, int oldstate, int newstate)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct netmon_event *e;
	struct conn *conn;

	if (!(config.want & NETMON_WANT_STATE))
		return false;
	conn = conn_of(sk, false);
	if (!conn || conn->phase == PHASE_CLOSED_UNSEEN)
		return false;
	if (is_undecided(conn)) {
		conn->state_since = now;
		return true;
	}
	e = new_event(sk, conn, NULL, NETMON_KIND_STATE, now, false);
	if (e) {
		e->states = oldstate | newstate << 4;
		fill_duration(e, conn->state_since);
		send_event(e);
	}
	conn->state_since = now;
	return true;
}

static __always_inline void send_listen(struct sock *sk, struct conn *conn, __u8 kind)
{
	struct netmon_event *e;

	if (!(config.want & NETMON_WANT_LISTEN))
		return;
	e = new_event(sk, conn, NULL, kind, bpf_ktime_get_boot_ns(), false);
	if (e) {
		e->flags |= NETMON_FLAG_BACKLOG;
		e->backlog_len = sk->sk_ack_backlog;
		e->backlog_max = sk->sk_max_ack_backlog;
		send_event(e);
	}
}

/* CLOSE -> LISTEN, in the task that calls listen(). */
static __always_inline void handle_listen(struct sock *sk)
{
	struct conn conn = {
		.cookie = cookie_of(sk, false),
		.phase = PHASE_LISTEN,
		.flags = flags_of(sk, false),
	};

	if (!admit(sk, &conn, NULL, SCRATCH_CONNECT, false))
		return;
	set_owner(&conn, SCRATCH_CONNECT);
	if (!conn_insert(sk, &conn))
		return;
	report_state(sk, TCP_CLOSE, TCP_LISTEN);
	send_listen(sk, &conn, NETMON_KIND_LISTEN);
}

/* LISTEN -> CLOSE */
static __always_inline void handle_listen_stop(struct sock *sk)
{
	struct conn *conn = conn_of(sk, false);

	if (!conn && existing_running)
		conn = mark_closed(sk);
	if (!conn)
		return;
	report_state(sk, TCP_LISTEN, TCP_CLOSE);
	if (conn->phase == PHASE_LISTEN)
		send_listen(sk, conn, NETMON_KIND_LISTEN_STOP);
	conn_delete(sk);
}

#endif
