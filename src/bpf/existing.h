/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What exists at the start: reported, and tracked as if it had been seen to begin.
 *
 * Two iterators find it. iter/tcp sees the sockets of one network namespace, also those that no
 * process has a descriptor of; iter/task_file sees who has descriptors. Probes run meanwhile. A
 * socket they already know of is theirs to tell; one that closes meanwhile is marked closed
 * (socket.h).
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
#include "conn.h"
#include "process.h"
#include "filter_conn.h"

/*
 * The reader says with the size of its buffer how many sockets may be visited at a time, so that
 * it can empty the ring in between: each is worth one byte. No room: it will be visited again.
 */
static __always_inline bool spend_budget(struct seq_file *seq)
{
	__u8 turn = 0;

	return bpf_seq_write(seq, &turn, sizeof(turn)) == 0;
}

static __always_inline struct netmon_event *new_existing_event(struct sock_common *skc, int state)
{
	struct netmon_event *e = bpf_ringbuf_reserve(&ring, sizeof(*e), 0);

	if (!e) {
		count_lost(NETMON_LOST_RING);
		return NULL;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->kind = NETMON_KIND_EXISTING;
	e->time = bpf_ktime_get_boot_ns();
	e->states = state << 4;
	fill_common_flow(&e->flow, skc);
	e->cookie = bpf_get_socket_cookie(skc);
	return e;
}

/* TIME_WAIT, or SYN_RECV of a listener's request: all that is left, or there yet, of a socket. */
static __always_inline void handle_request_or_timewait(struct seq_file *seq,
						       struct sock_common *skc)
{
	struct tcp_timewait_sock *tw;
	int state = skc->skc_state;
	struct netmon_event *e;

	if (!(config.existing & NETMON_EXISTING_REPORT) || !spend_budget(seq))
		return;
	if (state == TCP_TIME_WAIT) {
		/* the kernel keeps FIN_WAIT2 without an owner this way too */
		tw = bpf_skc_to_tcp_timewait_sock(skc);
		if (tw)
			state = tw->tw_sk.tw_substate;
	} else if (state == TCP_NEW_SYN_RECV) {
		state = TCP_SYN_RECV;
	}
	e = new_existing_event(skc, state);
	if (!e)
		return;
	if (state == TCP_SYN_RECV)
		e->flags |= NETMON_FLAG_INGRESS;
	if (admit_remains(e, state == TCP_SYN_RECV))
		bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	else
		bpf_ringbuf_discard(e, BPF_RB_NO_WAKEUP);
}

/* A listener's child that waits for accept(): its connection begins there. */
static __always_inline bool is_waiting(struct sock *sk)
{
	return !sk->sk_socket && !(sk->__sk_common.skc_flags & (1UL << SOCK_DEAD));
}

static __always_inline void track_existing(struct sock *sk, struct conn *conn, int state)
{
	__u64 key = (__u64)sk;
	struct tcp_sock *tp;

	if (state == TCP_LISTEN) {
		if (!(config.want & (NETMON_WANT_LISTEN | NETMON_WANT_STATE)))
			return;
		conn->phase = PHASE_LISTEN;
	} else if (is_waiting(sk)) {
		return;
	} else {
		conn->phase = state == TCP_SYN_SENT ? PHASE_OPENING : PHASE_OPEN;
	}
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp)
		conn->data_segs_in = tp->data_segs_in;
	if (bpf_map_update_elem(&conns, &key, conn, BPF_NOEXIST) && !conn_of(sk, false))
		count_lost(NETMON_LOST_TABLE);
}

/* `task` has a descriptor of the socket; NULL: nobody may. */
static __always_inline void handle_existing_socket(struct seq_file *seq, struct sock *sk,
						   struct task_struct *task)
{
	struct conn fresh = {}, *conn = conn_of(sk, false);
	int state = sk->__sk_common.skc_state;
	struct netmon_event *e;

	if (state == TCP_CLOSE || (conn && !(conn->flags & NETMON_FLAG_EXISTING)) ||
	    !spend_budget(seq))
		return;
	fresh.flags = NETMON_FLAG_EXISTING | flags_of(sk, false);
	/* a child has its listener's limit; a socket that never listened has none */
	if (state != TCP_LISTEN && !sk->sk_max_ack_backlog)
		fresh.flags |= NETMON_FLAG_EGRESS;
	if (!admit_existing(sk, &fresh, task))
		return;
	if (task) {
		fresh.image = record_of(task, SCRATCH_RESULT, false);
		fresh.pid = task->tgid;
		fresh.tid = task->pid;
	}
	fresh.cookie = cookie_of(sk, false);
	if (config.existing & NETMON_EXISTING_TRACK) {
		if (!conn) {
			track_existing(sk, &fresh, state);
		} else if (task && !conn->pid) {
			conn->image = fresh.image;
			conn->tid = fresh.tid;
			conn->pid = fresh.pid;
		}
	}
	if (!(config.existing & NETMON_EXISTING_REPORT))
		return;
	e = new_existing_event(&sk->__sk_common, state);
	if (!e)
		return;
	e->flags = fresh.flags;
	e->rule = fresh.rule;
	e->image = fresh.image;
	e->pid = fresh.pid;
	e->tid = fresh.tid;
	if (state == TCP_LISTEN) {
		e->flags |= NETMON_FLAG_BACKLOG;
		e->backlog_len = sk->sk_ack_backlog;
		e->backlog_max = sk->sk_max_ack_backlog;
	} else if (!(fresh.flags & NETMON_FLAG_EGRESS)) {
		e->flags |= NETMON_FLAG_INGRESS;
	}
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

#endif
