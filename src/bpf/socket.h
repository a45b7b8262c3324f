/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The lifetime of a connection, from the first SYN or the accept() to its end.
 */
#ifndef __SOCKET_H__
#define __SOCKET_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "consts.h"
#include "netmon.h"
#include "ring.h"
#include "read.h"
#include "process.h"
#include "attempt.h"
#include "request.h"
#include "file.h"
#include "syscall.h"
#include "conn.h"
#include "filter_conn.h"
#include "state.h"
#include "asked.h"
#include "close.h"

/* The current task opens the connection, and owns it from here on. */
static __always_inline void set_owner(struct conn *conn)
{
	struct task_struct *task = bpf_get_current_task_btf();

	conn->pid = task->tgid;
	conn->tid = task->pid;
	conn->image = current_image();
}

static __always_inline void send_request(const struct conn *conn)
{
	struct netmon_event *e = new_event(conn, NETMON_KIND_REQUEST, conn->begun);

	if (e)
		send_event(e);
}

static __always_inline void send_listen(struct sock *sk, const struct conn *conn, __u8 kind)
{
	struct netmon_event *e;

	if (!wants(NETMON_WANT_LISTEN))
		return;
	e = new_event(conn, kind, bpf_ktime_get_boot_ns());
	if (e) {
		fill_backlog(e, sk);
		send_event(e);
	}
}

/* The rest of handle_opening(), once there is an owner. A global function. */
__noinline int begin(struct conn *conn, int newstate)
{
	struct sock *sk;

	if (!conn)
		return 0;
	sk = sock_at(conn->sk);
	if (newstate == TCP_SYN_SENT) {
		report_asked(conn);
		if (!is_announced(sk))
			send_request(conn);
	}
	announce_reopen(sk);
	if (wants(NETMON_WANT_STATE))
		report_state(conn, TCP_CLOSE, newstate);
	if (newstate == TCP_LISTEN)
		send_listen(sk, conn, NETMON_KIND_LISTEN);
	/* A stale attempt: connect() was to report its failure, but we missed the return. */
	if (hashed_conn(sk, conn->cookie))
		hash_claim(sk, NULL);
	if (!conn_insert(sk, conn) && conn_claim(sk, NULL))
		conn_insert(sk, conn);
	return 0;
}

/* The part of handle_opening() that needs no owner. False if the socket is not to be traced. */
static __noinline bool prepare_opening(struct sock *sk, struct conn *conn, int newstate)
{
	bool listens = newstate == TCP_LISTEN;
	struct target to;
	int index;

	if (!conn)
		return false;
	index = admit_current();
	if (index == NOT_ADMITTED)
		return false;
	conn->flags = flags_of(sk);
	conn->cookie = listens ? cookie_of_listener(sk) : bpf_get_socket_cookie(sk);
	if (!listens)
		conn->flags |= NETMON_FLAG_EGRESS;
	/* An MPTCP socket does not have the target until a subflow has connected. */
	if (!listens && conn->flags & NETMON_FLAG_MPTCP && connect_target(&to))
		fill_flow(&conn->flow, sk, &to);
	else
		fill_flow(&conn->flow, sk, NULL);
	if (!admit_flow(index, sk, conn, listens))
		return false;
	conn->ifindex = ifindex_of(sk);
	conn->begun = bpf_ktime_get_boot_ns();
	if (listens)
		conn->phase = PHASE_LISTEN;
	else
		conn->since = conn->begun;
	return true;
}

/* CLOSE -> SYN_SENT or LISTEN, in the task that calls connect() or listen(). */
static __always_inline void handle_opening(struct sock *sk, int newstate)
{
	struct conn conn = {.sk = (__u64)sk};

	if (!prepare_opening(sk, &conn, newstate))
		return;
	set_owner(&conn);
	begin(&conn, newstate);
}

/*
 * With TCP_FASTOPEN_CONNECT and a cached cookie, connect() sends nothing; the first write sends the
 * SYN. If SACK is on, RACK has kept the send time of the acknowledged segment; otherwise it is
 * unknown.
 */
static __always_inline __u64 syn_sent_at(struct sock *sk, const struct conn *conn, __u64 now)
{
	struct tcp_sock *tp = AT(tcp_sock, sk);
	__u64 then, micros;

	if (conn->flags & NETMON_FLAG_MPTCP || !TCP_BIT(tp, fastopen_connect) ||
	    !TCP_BIT(tp, syn_data))
		return conn->since;
	then = FIELD(tp, rack.mstamp);
	micros = bpf_ktime_get_ns() / 1000;
	return then && then <= micros ? now - (micros - then) * 1000 : 0;
}

/* SYN_SENT -> ESTABLISHED, or another state after a simultaneous open. */
static __always_inline void handle_connected(struct sock *sk, struct conn *conn)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct netmon_event *e;

	/* MPTCP gets its addresses and ports only now. */
	if (conn->flags & NETMON_FLAG_MPTCP)
		fill_flow(&conn->flow, sk, NULL);
	else
		conn->flow.sport = local_port(sk);
	attempt_ended(conn->cookie);
	if (!resolve_pending_port(sk, conn))
		return;
	conn->phase = PHASE_OPEN;
	if (!(conn->flags & NETMON_FLAG_MPTCP))
		conn->repair = TCP_BIT(AT(tcp_sock, sk), repair);
	if (wants(NETMON_WANT_CONNECT)) {
		e = new_event(conn, NETMON_KIND_CONNECT, now);
		if (e) {
			fill_duration(e, syn_sent_at(sk, conn, now));
			send_event(e);
		}
	}
	conn->since = now;
	if (!wants(NETMON_WANT_LASTING))
		conn_claim(sk, NULL);
}

/* -> ESTABLISHED. A listener's child has no entry yet; it waits for its accept(). */
static __always_inline void handle_established(struct sock *sk, int oldstate)
{
	bool waits = oldstate == TCP_SYN_RECV && !READ(sock, sk, sk_socket);
	struct conn *conn = waits ? NULL : conn_of(sk);

	if (!conn) {
		/* Generate the cookie now: at accept() the socket is not locked, and we cannot. */
		if (config.tracepoints && oldstate != TCP_SYN_SENT && is_tcp(sk))
			bpf_get_socket_cookie(sk);
	} else if (conn->phase != PHASE_OPEN && conn->flags & NETMON_FLAG_EGRESS) {
		handle_connected(sk, conn);
	} else if (!(conn->flags & NETMON_FLAG_EGRESS)) {
		/* accepted before the handshake completed, as with Fast Open */
		conn->since = bpf_ktime_get_boot_ns();
	}
}

/* Note the process that sends the FIN or RST, if it is not the owner. */
static __always_inline void note_closer(struct conn *conn)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (conn->phase != PHASE_OPEN || task->flags & PF_KTHREAD)
		return;
	if (conn->pid != (__u32)task->tgid)
		conn->closer = current_image();
	else if (!conn->image) /* its record was lost; there may be room now */
		conn->image = current_image();
}

/*
 * The transition out of SYN_SENT was missed: the kernel skipped the program, or an iterator found
 * the socket just then.
 */
static __always_inline void catch_up(struct conn *conn, int oldstate)
{
	if (conn->phase == PHASE_OPENING && oldstate != TCP_SYN_SENT && oldstate != TCP_SYN_RECV) {
		conn->phase = PHASE_OPEN;
		if (wants(NETMON_WANT_CONNECT) && !(conn->flags & NETMON_FLAG_EXISTING))
			count_lost(NETMON_LOST_SKIPPED);
	}
}

/* -> FIN_WAIT1 or LAST_ACK: always in the context of the task that calls close() or shutdown(). */
static __always_inline void handle_closing(struct sock *sk, int oldstate, bool owned)
{
	struct conn *conn = wants(NETMON_WANT_CLOSE) ? conn_of(sk) : NULL;

	if (!conn)
		return;
	catch_up(conn, oldstate);
	if (owned)
		note_closer(conn);
	if (!(conn->flags & NETMON_FLAG_MPTCP))
		conn->data_segs_in = READ(tcp_sock, sk, data_segs_in);
}

/*
 * The socket leaves SYN_SENT inside connect() before a SYN was sent, for example because no port
 * was free; connect() is about to return the error. A caller that closes has set sk_shutdown.
 */
static __always_inline bool dies_in_connect(struct sock *sk, const struct conn *conn)
{
	return !sk->sk_err && !conn->error && !READ(tcp_sock, tcp_of(sk), segs_out) &&
	       !(sk->sk_shutdown & SHUTDOWN_MASK);
}

static __always_inline void send_failure(const struct conn *conn, int error)
{
	struct netmon_event *e;

	if (!wants(NETMON_WANT_FAIL))
		return;
	e = new_event(conn, NETMON_KIND_FAIL, bpf_ktime_get_boot_ns());
	if (e) {
		e->error = error;
		fill_duration(e, conn->since);
		send_event(e);
	}
}

/*
 * A connection ends without an entry although everything is traced: the program that would have
 * seen it open was skipped. Two events are lost, the opening and this close. A child that is still
 * in its listener's accept queue has no socket; its accept() may still come.
 */
static __always_inline void count_unopened(struct sock *sk, int oldstate)
{
	bool egress;

	if (filter.fields || follow || existing_running || !started ||
	    !(config.existing & NETMON_EXISTING_TRACK) || !wants(NETMON_WANT_CLOSE))
		return;
	if (oldstate == TCP_SYN_SENT || oldstate == TCP_SYN_RECV || oldstate == TCP_LISTEN ||
	    oldstate == TCP_CLOSE || !is_tcp(sk))
		return;
	if (is_waiting(sk)) {
		if (config.tracepoints)
			note_unless_late(queued, unique_of(sk));
		return;
	}
	egress = !is_passive(sk);
	if (!egress && config.tracepoints) {
		count_unclaimed(unique_of(sk));
		return;
	}
	count_lost(NETMON_LOST_SKIPPED);
	if (wants(egress ? NETMON_WANT_CONNECT : NETMON_WANT_ACCEPT))
		count_lost(NETMON_LOST_SKIPPED);
}

/* The event that ends a connection. A global function. */
__noinline int send_last(const struct conn *conn, int oldstate)
{
	struct sock *sk;
	int error;

	if (!conn)
		return 0;
	sk = sock_at(conn->sk);
	if (conn->phase == PHASE_OPEN) {
		send_close(sk, conn, oldstate);
	} else {
		attempt_ended(conn->cookie);
		/* no error: the caller gave up */
		error = FIELD(sk, sk_err);
		send_failure(conn, error ? error : conn->error);
	}
	return 0;
}

/* Remove the entry and send its last event. Not inlined, to keep `copy` off the caller's stack. */
static __noinline void finish_hashed(struct sock *sk, int oldstate)
{
	struct conn copy;

	if (hash_claim(sk, &copy))
		send_last(&copy, oldstate);
}

/* Not inlined, to keep `copy` off the caller's stack. */
static __noinline void finish_late(struct sock *sk)
{
	struct conn copy;

	if (conn_claim(sk, &copy) && (copy.phase == PHASE_OPEN || copy.phase == PHASE_OPENING))
		send_last(&copy, closed_meanwhile(sk));
}

/*
 * A connection's socket is about to be freed. If a task has locked it, a process had it open: a
 * listener that is closed frees the children in its accept queue with only the spinlock held. An
 * entry that is still there was inserted by accept() during the close, and neither side saw the
 * other because the announcement was overwritten, or the kernel skipped the program at the close.
 */
static __always_inline void handle_destroyed(struct sock *sk)
{
	__u64 unique = cookie_now(sk);

	if (!unique)
		return;
	if (sk->sk_lock.owned && take_back(queued, unique))
		count_unclaimed(unique);
	if (wants(NETMON_WANT_LASTING) && conn_of(sk))
		finish_late(sk);
}

/*
 * An MPTCP subflow failed to connect. The MPTCP socket is closed before its own sk_err is set; by
 * then the subflow's sk_err has been read, which clears it.
 */
static __noinline void note_subflow_failure(struct sock *sk, int error)
{
	struct sock *msk = msk_of(sk);
	struct conn *conn = msk ? conn_of(msk) : NULL;

	if (!conn || conn->phase == PHASE_OPEN)
		return;
	conn->error = error;
	if (FIELD(sk, __sk_common.skc_dport))
		fill_flow(&conn->flow, sk, NULL);
}

/* -> CLOSE: the end, with final counters. sk_err is the reason unless the close was orderly. */
static __always_inline void handle_closed(struct sock *sk, int oldstate, bool owned, bool second)
{
	__u64 cookie = cookie_now(sk);
	struct slot *slot;
	struct conn *conn;

	announce_close(sk, oldstate);
	slot = slot_with(sk, cookie);
	conn = slot ? &slot->conn : hashed_conn(sk, cookie);
	if (!conn) {
		if (oldstate == TCP_SYN_SENT)
			note_subflow_failure(sk, sk->sk_err);
		else if (!second)
			count_unopened(sk, oldstate);
		return;
	}
	if (conn->phase == PHASE_OPENING || conn->phase == PHASE_PORT_PENDING)
		conn->flow.sport = local_port(sk);
	if (!resolve_pending_port(sk, conn))
		return;
	catch_up(conn, oldstate);
	if (wants(NETMON_WANT_ATTEMPTS) && conn->phase == PHASE_OPENING &&
	    dies_in_connect(sk, conn)) {
		conn->phase = PHASE_FAILED;
		return;
	}
	/* tcp_abort() (`ss -K` and the like) runs in the context of the requesting task */
	if (owned && (!sk->sk_err || sk->sk_err == ECONNABORTED) &&
	    (oldstate == TCP_ESTABLISHED || oldstate == TCP_CLOSE_WAIT))
		note_closer(conn);
	if (!slot) {
		finish_hashed(sk, oldstate);
	} else if (slot_claim(slot, cookie)) {
		send_last(conn, oldstate);
		slot_free(slot);
	}
}

/*
 * The listener of the current accept() call, or NULL if the task is in another call. The child has
 * no pointer to its listener.
 */
static __always_inline struct sock *current_listener(void)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
	long nr = READ_SYSCALL_NR(regs);
	struct sock *sk;

	if ((nr != SYS_ACCEPT && nr != SYS_ACCEPT4) || is_compat())
		return NULL;
	sk = sock_of_fd(READ_SYSCALL_ARG(regs, 1));
	return sk && FIELD(sk, __sk_common.skc_state) == TCP_LISTEN ? sk : NULL;
}

/*
 * CLOCK_BOOTTIME - CLOCK_MONOTONIC, which only a suspend changes. Read again after a while, and so
 * after a suspend, which takes longer: reading a clock costs as much as a record's contents.
 */
#define SUSPENDED_AGE (100 * 1000 * 1000ULL) /* ns */
__u64 suspended = 0;
__u64 suspended_at = 0;

static __always_inline __u64 suspended_until(__u64 now)
{
	volatile __u64 *time = &suspended, *at = &suspended_at;

	if (now - *at < SUSPENDED_AGE)
		return *time;
	*time = now - bpf_ktime_get_ns();
	*at = now;
	return *time;
}

/*
 * When the child became established. The kernel takes this timestamp for receive buffer tuning and
 * updates it when data is read, which cannot happen before accept().
 */
static __always_inline __u64 established_at(struct sock *sk, const struct conn *conn, __u64 now)
{
	__u64 micros, then;

	if (conn->flags & NETMON_FLAG_MPTCP)
		return now;
	micros = READ(tcp_sock, sk, rcvq_space.time);
	then = micros * 1000 + suspended_until(now);
	return micros && then < now ? then : now;
}

static __always_inline void send_accept(const struct conn *conn, __u64 now, struct sock *listener)
{
	struct netmon_event *e;

	if (!wants(NETMON_WANT_ACCEPT))
		return;
	e = new_event(conn, NETMON_KIND_ACCEPT, now);
	if (!e)
		return;
	if (!listener)
		listener = current_listener();
	if (listener)
		fill_backlog(e, listener);
	send_event(e);
}

/* Track a connection whose accept() was reported. It may already be closed. A global function. */
__noinline int track_accepted(struct conn *conn)
{
	struct sock *sk;
	int left;

	if (!conn)
		return 0;
	sk = sock_at(conn->sk);
	if (!conn_insert(sk, conn))
		return 0;
	left = closed_meanwhile(sk);
	if (left)
		claim_late(unique_of(sk));
	if (left && conn_claim(sk, conn))
		send_last(conn, left);
	return 0;
}

/*
 * accept() returned `sk` to the current task. If `listener` is NULL it is looked up. In the
 * tracepoint set the socket is not locked, and may be closing on another CPU.
 */
static __always_inline void handle_accepted(struct sock *sk, struct sock *listener)
{
	struct conn conn = {.sk = (__u64)sk};
	int index;
	__u64 now;

	if (!wants(NETMON_WANT_ACCEPTED) || is_out() || conn_of(sk))
		return;
	index = admit_process(true, NULL);
	if (index == NOT_ADMITTED)
		return;
	now = bpf_ktime_get_boot_ns();
	/* The tracepoint set cannot generate a cookie here, see handle_established(). */
	conn.cookie = config.tracepoints ? cookie_now(sk) : bpf_get_socket_cookie(sk);
	conn.flags = flags_of(sk);
	conn.phase = PHASE_OPEN;
	fill_flow(&conn.flow, sk, NULL);
	if (!admit_flow(index, sk, &conn, true))
		return;
	conn.ifindex = ifindex_of(sk);
	conn.begun = begun_waiting(sk, now);
	conn.since = established_at(sk, &conn, now);
	set_owner(&conn);
	send_accept(&conn, now, listener);
	if (wants(NETMON_WANT_LASTING))
		track_accepted(&conn);
}

/*
 * connect() failed with `error` before a SYN was sent; runs in the connecting task. The socket no
 * longer has the target. `to` is the target, or NULL if it is unknown, when only an existing entry
 * can be reported. Returns true if the failure is still to be reported and needs an owner. A global
 * function.
 */
__noinline int prepare_failed(struct conn *conn, const struct target *to, int error)
{
	struct conn *known;
	struct sock *sk;
	int index;

	if (!conn)
		return false;
	sk = sock_at(conn->sk);
	known = conn_of(sk);
	if (known) {
		if (known->phase == PHASE_FAILED && conn_claim(sk, conn))
			send_failure(conn, error);
		return false;
	}
	/* Another address family: no connection was attempted. */
	if (!to || to->family != FIELD(sk, __sk_common.skc_family))
		return false;
	index = admit_current();
	if (index == NOT_ADMITTED)
		return false;
	conn->cookie = cookie_now(sk);
	conn->flags = NETMON_FLAG_EGRESS | flags_of(sk);
	fill_flow(&conn->flow, sk, to);
	if (!admit_flow(index, sk, conn, true))
		return false;
	conn->ifindex = ifindex_of(sk);
	conn->begun = bpf_ktime_get_boot_ns();
	return true;
}

/* Without a SYN there is no duration: `since` is 0. A global function. */
__noinline int report_failed(const struct conn *conn, int error)
{
	struct sock *sk;

	if (!conn)
		return 0;
	sk = sock_at(conn->sk);
	report_asked(conn);
	if (!is_announced(sk))
		send_request(conn);
	send_failure(conn, error);
	return 0;
}

#endif
