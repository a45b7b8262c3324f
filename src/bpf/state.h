/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The states a socket goes through, for those who ask: listening, and each single step.
 */
#ifndef __STATE_H__
#define __STATE_H__

/*
 * The filter has not had its last word: it waits for the local port, or for the process that will
 * accept. What such a socket does meanwhile is not told, for it may never be asked for.
 */
static __always_inline bool is_undecided(struct conn *conn)
{
	return conn->phase == PHASE_UNJUDGED ||
	       (filter.fields & FILTER_PROCESS && conn->phase == PHASE_OPENING &&
		!(conn->flags & (NETMON_FLAG_EGRESS | NETMON_FLAG_EXISTING)));
}

/* Tell of a step. False: the socket is none of those traced, or not yet. */
static __always_inline bool state_changed(struct sock *sk, int oldstate, int newstate)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct netmon_event *e;
	struct conn *conn;

	if (!(config.want & NETMON_WANT_STATE))
		return false;
	conn = conn_of(sk, false);
	if (!conn || conn->phase == PHASE_BURIED)
		return false;
	if (is_undecided(conn)) {
		conn->state_since = now;
		return true;
	}
	e = new_event(sk, conn, NULL, NETMON_KIND_STATE, now, false);
	if (e) {
		e->states = oldstate | newstate << 4;
		put_duration(e, conn->state_since);
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
static __always_inline void listen_begins(struct sock *sk)
{
	struct conn conn = {
		.cookie = cookie_of(sk, false),
		.phase = PHASE_LISTEN,
		.flags = flags_of(sk, false),
	};

	if (!admit(sk, &conn, NULL, SCRATCH_CONNECT, false))
		return;
	own(&conn, SCRATCH_CONNECT);
	if (!remember(sk, &conn))
		return;
	state_changed(sk, TCP_CLOSE, TCP_LISTEN);
	send_listen(sk, &conn, NETMON_KIND_LISTEN);
}

/* LISTEN -> CLOSE */
static __always_inline void listen_ends(struct sock *sk)
{
	struct conn *conn = conn_of(sk, false);

	if (!conn && surveying)
		conn = bury(sk);
	if (!conn)
		return;
	state_changed(sk, TCP_LISTEN, TCP_CLOSE);
	if (conn->phase == PHASE_LISTEN)
		send_listen(sk, conn, NETMON_KIND_UNLISTEN);
	forget(sk);
}

#endif
