/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Sockets that exist when tracing starts: reported, and tracked as if we had seen them open.
 *
 * Two iterators find them. iter/tcp walks the sockets of one network namespace, including those
 * without a file descriptor; iter/task_file tells which tasks have descriptors. The probes are
 * already running: sockets they know are left to them, and a close that races with the iterators is
 * announced (announce_close()).
 */
#ifndef __EXISTING_H__
#define __EXISTING_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include "consts.h"
#include "netmon.h"
#include "ring.h"
#include "read.h"
#include "conn.h"
#include "close.h"
#include "process.h"
#include "filter_conn.h"
#include "socket.h"

/*
 * The reader's buffer size limits how many sockets are visited per read(), so that it can drain the
 * ring in between: each one costs a byte. When the buffer is full the socket will be visited again.
 */
static __always_inline bool spend_budget(struct seq_file *seq)
{
	__u8 turn = 0;

	return bpf_seq_write(seq, &turn, sizeof(turn)) == 0;
}

static __always_inline void report_existing(struct conn *conn, struct sock *sk, int state)
{
	struct netmon_event *e = new_event(conn, NETMON_KIND_EXISTING, bpf_ktime_get_boot_ns());

	if (!e)
		return;
	e->states = state << 4;
	if (state == TCP_LISTEN)
		fill_backlog(e, sk);
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

/*
 * A timewait socket, or the request socket of a handshake (SYN_RECV): there is no full socket any
 * more, or none yet.
 */
static __always_inline void handle_request_or_timewait(struct seq_file *seq,
						       struct sock_common *skc)
{
	struct tcp_timewait_sock *tw;
	int state = skc->skc_state;
	struct conn conn = {};

	if (!(config.existing & NETMON_EXISTING_REPORT) || !spend_budget(seq))
		return;
	if (state == TCP_TIME_WAIT) {
		/* an orphan in FIN_WAIT2 may be a timewait socket, too */
		tw = bpf_skc_to_tcp_timewait_sock(skc);
		if (tw)
			state = tw->tw_sk.tw_substate;
	} else if (state == TCP_NEW_SYN_RECV) {
		state = TCP_SYN_RECV;
	}
	/* The filter treats timewait sockets as opened by this host. */
	conn.flags = state == TCP_SYN_RECV ? NETMON_FLAG_INGRESS : NETMON_FLAG_EGRESS;
	conn.ifindex = READ(sock_common, skc, skc_bound_dev_if);
	conn.begun = config.start;
	conn.cookie = bpf_get_socket_cookie(skc);
	fill_common_flow(&conn.flow, skc);
	if (!admit_unowned((struct sock *)skc, &conn))
		return;
	conn.flags &= ~NETMON_FLAG_EGRESS;
	conn.rule = 0;
	report_existing(&conn, NULL, state);
}

static __always_inline void track_existing(struct sock *sk, struct conn *conn, int state)
{
	int left;

	if (state == TCP_LISTEN) {
		if (!wants(NETMON_WANT_LISTENERS))
			return;
		conn->phase = PHASE_LISTEN;
	} else if (is_waiting(sk) ||
		   !wants(state == TCP_SYN_SENT ? NETMON_WANT_OUTGOING : NETMON_WANT_LASTING)) {
		return;
	} else {
		conn->phase = state == TCP_SYN_SENT ? PHASE_OPENING : PHASE_OPEN;
	}
	if (!(conn->flags & NETMON_FLAG_MPTCP))
		conn->data_segs_in = READ(tcp_sock, sk, data_segs_in);
	if (!conn_insert(sk, conn))
		return;
	left = closed_meanwhile(sk);
	if (left && conn_claim(sk, conn) && conn->phase == PHASE_OPEN)
		send_last(conn, left);
}

/* Once everything about the socket is known. A global function. */
__noinline int keep_existing(struct conn *conn, int state, bool known)
{
	struct sock *sk;

	if (!conn)
		return 0;
	sk = sock_at(conn->sk);
	if (config.existing & NETMON_EXISTING_REPORT) {
		if (state != TCP_LISTEN && !(conn->flags & NETMON_FLAG_EGRESS))
			conn->flags |= NETMON_FLAG_INGRESS;
		report_existing(conn, sk, state);
		conn->flags &= ~NETMON_FLAG_INGRESS;
	}
	if (config.existing & NETMON_EXISTING_TRACK && !known)
		track_existing(sk, conn, state);
	return 0;
}

/* What the socket tells, except its cookie. A global function. */
__noinline int describe_existing(struct conn *conn, int state)
{
	struct sock *sk;

	if (!conn)
		return 0;
	sk = sock_at(conn->sk);
	conn->flags = NETMON_FLAG_EXISTING | flags_of(sk);
	if (state != TCP_LISTEN && !is_passive(sk))
		conn->flags |= NETMON_FLAG_EGRESS;
	conn->ifindex = ifindex_of(sk);
	conn->begun = config.start;
	fill_flow(&conn->flow, sk, NULL);
	return 0;
}

/*
 * `task` has a descriptor of the socket; if NULL, there may be no such task. The descriptors are
 * visited first, so that an entry has its owner when it is created.
 */
static __always_inline void handle_existing_socket(struct seq_file *seq, struct sock *sk,
						   struct task_struct *task)
{
	struct conn fresh = {.sk = (__u64)sk}, *conn = conn_of(sk);
	int state = sk->__sk_common.skc_state, index;
	bool known = conn;

	if (state == TCP_CLOSE || (conn && !(conn->flags & NETMON_FLAG_EXISTING)) ||
	    !spend_budget(seq))
		return;
	barrier_var(known); /* or the verifier would follow each kind of entry */
	index = admit_process(false, task);
	if (index == NOT_ADMITTED)
		return;
	fresh.cookie = state == TCP_LISTEN ? cookie_of_listener(sk) : bpf_get_socket_cookie(sk);
	describe_existing(&fresh, state);
	if (!admit_flow(index, sk, &fresh, true))
		return;
	if (task) {
		fresh.image = record_of(task, task->group_leader, false);
		fresh.pid = task->tgid;
		fresh.tid = task->pid;
	}
	keep_existing(&fresh, state, known);
}

#endif
