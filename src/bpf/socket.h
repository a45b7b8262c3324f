/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What happens to one connection, from the first SYN or the accept to the end.
 */
#ifndef __SOCKET_H__
#define __SOCKET_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include "consts.h"
#include "netmon.h"
#include "ring.h"
#include "process.h"
#include "attempt.h"
#include "request.h"
#include "file.h"
#include "conn.h"
#include "filter_conn.h"
#include "close.h"

#define WANT_ACCEPTED (NETMON_WANT_ACCEPT | NETMON_WANT_CLOSE | NETMON_WANT_STATE)

/* The current task opens the connection: it is the owner from here on. */
static __always_inline void set_owner(struct conn *conn, __u32 slot)
{
	__u64 id = bpf_get_current_pid_tgid();

	conn->image = current_image(slot);
	conn->pid = id >> 32;
	conn->tid = id;
}

static __always_inline void send_request(struct sock *sk, struct conn *conn, struct target *to,
					 bool raw)
{
	struct netmon_event *e;

	e = new_event(sk, conn, to, NETMON_KIND_REQUEST, conn->since, raw);
	if (e)
		send_event(e);
}

/* CLOSE -> SYN_SENT, in the connecting task. */
static __always_inline void handle_connect(struct sock *sk)
{
	struct conn conn = {
		.since = bpf_ktime_get_boot_ns(),
		.cookie = cookie_of(sk, false),
		.flags = NETMON_FLAG_EGRESS | flags_of(sk, false),
	};

	if (!admit(sk, &conn, NULL, SCRATCH_CONNECT, false))
		return;
	set_owner(&conn, SCRATCH_CONNECT);
	if (!is_announced(sk))
		send_request(sk, &conn, NULL, false);
	conn_insert(sk, &conn);
}

static __always_inline void handle_connected(struct sock *sk, struct conn *conn)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct netmon_event *e;

	attempt_ended(sk);
	if (!resolve_pending_port(sk, conn))
		return;
	conn->phase = PHASE_OPEN;
	if (config.want & NETMON_WANT_CONNECT) {
		e = new_event(sk, conn, NULL, NETMON_KIND_CONNECT, now, false);
		if (e) {
			fill_duration(e, conn->since);
			send_event(e);
		}
	}
	conn->since = now;
	if (!(config.want & (NETMON_WANT_CLOSE | NETMON_WANT_STATE)))
		conn_delete(sk);
}

/* SYN_SENT or SYN_RECV -> ESTABLISHED. A child of a listener waits here for its accept. */
static __always_inline void handle_established(struct sock *sk, int oldstate)
{
	struct conn *conn = conn_of(sk, false);

	if (conn && conn->phase != PHASE_CLOSED_UNSEEN) {
		if (conn->flags & NETMON_FLAG_EGRESS && conn->phase != PHASE_OPEN)
			handle_connected(sk, conn);
		else if (conn->cookie)
			conn->since = bpf_ktime_get_boot_ns();
	} else if (oldstate == TCP_SYN_RECV && config.want & WANT_ACCEPTED) {
		if (!admit_child(sk))
			return;
		conn = new_conn(sk, false);
		if (conn)
			conn->since = bpf_ktime_get_boot_ns();
	}
}

/* Whoever sends the FIN or the RST, when that is not the owner. */
static __always_inline void note_closer(struct conn *conn)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (conn->phase != PHASE_OPEN || task->flags & PF_KTHREAD)
		return;
	if (conn->pid != (__u32)task->tgid)
		conn->closer = current_image(SCRATCH_CLOSE);
	else if (!conn->image) /* its record was lost; now there may be room */
		conn->image = current_image(SCRATCH_CLOSE);
}

/*
 * Its way out of SYN_SENT went unseen: the kernel has skipped that program run, or an iterator met
 * it just then.
 */
static __always_inline void catch_up(struct conn *conn, int oldstate)
{
	if (conn->phase == PHASE_OPENING &&
	    conn->flags & (NETMON_FLAG_EGRESS | NETMON_FLAG_EXISTING) && oldstate != TCP_SYN_SENT &&
	    oldstate != TCP_SYN_RECV)
		conn->phase = PHASE_OPEN;
}

/* -> FIN_WAIT1 or LAST_ACK: always in the task that calls close() or shutdown(). */
static __always_inline void handle_closing(struct sock *sk, int oldstate)
{
	struct conn *conn = conn_of(sk, false);
	struct tcp_sock *tp;

	if (!conn || !(config.want & NETMON_WANT_CLOSE))
		return;
	catch_up(conn, oldstate);
	note_closer(conn);
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp)
		conn->data_segs_in = tp->data_segs_in;
}

/*
 * The socket leaves SYN_SENT inside connect(), before a SYN was sent: no port was free, say.
 * connect() will tell the error in a moment. A caller that closes has set sk_shutdown.
 */
static __always_inline bool dies_in_connect(struct sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);

	return tp && !sk->sk_err && !tp->segs_out && !(sk->sk_shutdown & SHUTDOWN_MASK);
}

/* SYN_SENT -> CLOSE. Without sk_err the caller gave up. */
static __always_inline void send_failure(struct sock *sk, struct conn *conn)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct netmon_event *e;

	if (!(config.want & NETMON_WANT_FAIL))
		return;
	e = new_event(sk, conn, NULL, NETMON_KIND_FAIL, now, false);
	if (e) {
		e->error = sk->sk_err;
		fill_duration(e, conn->since);
		send_event(e);
	}
}

/*
 * While the iterators run: a socket that nothing is known of has closed. An iterator must not
 * take it for open any more, and where it just has, its entry counts.
 */
static const struct conn tombstone = {.phase = PHASE_CLOSED_UNSEEN};

static __always_inline struct conn *mark_closed(struct sock *sk)
{
	__u64 key = (__u64)sk;

	return bpf_map_update_elem(&conns, &key, &tombstone, BPF_NOEXIST) ? conn_of(sk, false)
									  : NULL;
}

/* -> CLOSE: the end, with the final counts; sk_err is why, if it was not closed in order. */
static __always_inline void handle_closed(struct sock *sk, int oldstate)
{
	struct conn *conn = conn_of(sk, false);

	if (!conn && existing_running)
		conn = mark_closed(sk);
	if (!conn || !resolve_pending_port(sk, conn))
		return;
	catch_up(conn, oldstate);
	if (conn->phase == PHASE_OPEN) {
		if (!sk->sk_err && (oldstate == TCP_ESTABLISHED || oldstate == TCP_CLOSE_WAIT))
			note_closer(conn);
		send_close(sk, conn, oldstate, false);
	} else if (conn->flags & NETMON_FLAG_EGRESS) {
		if (dies_in_connect(sk)) {
			conn->phase = PHASE_FAILED;
			return;
		}
		attempt_ended(sk);
		send_failure(sk, conn);
	}
	conn_delete(sk);
}

/*
 * The listener of the accept system call the task is in, or NULL: then the first argument is
 * something else, a ring's descriptor for instance. Nothing leads from the child to it.
 */
static __always_inline struct sock *current_listener(__u16 sport)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
	struct sock *sk = sock_of_fd(PT_REGS_PARM1_CORE_SYSCALL(regs));

	if (!sk || BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_LISTEN ||
	    bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport)) != sport)
		return NULL;
	return sk;
}

/* accept() returned `sk` to the current task. `listener` may be NULL: it is looked for. */
static __always_inline void handle_accepted(struct sock *sk, struct sock *listener, bool raw)
{
	struct conn *conn = conn_of(sk, raw);
	__u64 now = bpf_ktime_get_boot_ns();
	struct netmon_event *e;

	if (!(config.want & WANT_ACCEPTED) || (conn && conn->phase == PHASE_OPEN))
		return;
	if (!conn) {
		/* Established before tcptrace was there, or reset by the peer while it waited. */
		conn = new_conn(sk, raw);
		if (!conn)
			return;
		conn->since = now;
	}
	if (!admit(sk, conn, NULL, SCRATCH_ACCEPT, raw)) {
		conn_delete(sk);
		return;
	}
	/* Nobody saw it before (MPTCP, or older than tcptrace): it gets the time for a cookie. */
	if (!conn->cookie)
		conn->since = now;
	set_owner(conn, SCRATCH_ACCEPT);
	conn->phase = PHASE_OPEN;
	if (config.want & NETMON_WANT_ACCEPT) {
		e = new_event(sk, conn, NULL, NETMON_KIND_ACCEPT, now, raw);
		if (e) {
			if (!listener)
				listener = current_listener(e->flow.sport);
			if (listener) {
				e->flags |= NETMON_FLAG_BACKLOG;
				e->backlog_len = BPF_CORE_READ(listener, sk_ack_backlog);
				e->backlog_max = BPF_CORE_READ(listener, sk_max_ack_backlog);
			}
			send_event(e);
		}
	}
	if (sk_read(sk, __sk_common.skc_state, raw) == TCP_CLOSE) {
		send_close(sk, conn, TCP_CLOSE, raw);
		conn_delete(sk);
	}
}

/*
 * connect() failed with `error` before any SYN left, in the connecting task. The socket no longer
 * knows where to; `to` does.
 */
static __always_inline void handle_connect_failed(struct sock *sk, struct target *to, int error,
						  bool raw)
{
	struct conn *conn = conn_of(sk, raw);
	__u64 now = bpf_ktime_get_boot_ns();
	struct netmon_event *e;

	if (!conn) {
		conn = new_conn(sk, raw);
		if (!conn)
			return;
		conn->since = now;
		conn->flags |= NETMON_FLAG_EGRESS;
		if (!admit(sk, conn, to, SCRATCH_RESULT, raw))
			goto out;
		set_owner(conn, SCRATCH_RESULT);
		if (!is_announced(sk))
			send_request(sk, conn, to, raw);
	}
	if (config.want & NETMON_WANT_FAIL) {
		e = new_event(sk, conn, to, NETMON_KIND_FAIL, now, raw);
		if (e) {
			e->error = error;
			fill_duration(e, conn->since);
			send_event(e);
		}
	}
out:
	conn_delete(sk);
}

#endif
