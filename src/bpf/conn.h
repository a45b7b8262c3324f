/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What is remembered of a connection, and the events made of it.
 */
#ifndef __CONN_H__
#define __CONN_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "consts.h"
#include "netmon.h"
#include "ring.h"
#include "flow.h"

enum phase {
	PHASE_OPENING,	     /* no event yet: SYN sent, or waiting for accept() */
	PHASE_FAILED,	     /* connect() is about to return an error */
	PHASE_OPEN,	     /* connected or accepted: a close is owed */
	PHASE_LISTEN,	     /* no connection, but waiting for them */
	PHASE_PORT_PENDING,  /* opening, and the filter waits for the local port */
	PHASE_CLOSED_UNSEEN, /* closed before the iterators came to it */
};

/* What is remembered of a connection between its events. */
struct conn {
	__u64 since; /* SYN_SENT, then ESTABLISHED; 0: before our time */
	__u64 state_since;
	__u64 image;  /* owner */
	__u64 closer; /* who closed it, if not the owner */
	__u64 cookie; /* 0: the kernel's cannot be had, and `since` stands for it */
	__u32 pid;
	__u32 tid;
	__u32 data_segs_in; /* when we closed */
	__u16 rule;
	__u8 flags; /* enum netmon_flag: EGRESS, MPTCP, EXISTING */
	__u8 phase; /* enum phase */
};

/*
 * Keyed by the socket: every socket dies through TCP_CLOSE, and its entry with it. Entries are
 * allocated as needed, so the limit costs its buckets (16 MB) and nothing more.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, NETMON_CONNECTIONS_MAX);
	__type(key, __u64);
	__type(value, struct conn);
} conns SEC(".maps");

/* The iterators over what exists are running (existing.h). */
__u32 existing_running = 0;

/*
 * Every program is attached. No connection begins before, for some may already run while the one
 * that sees its end does not.
 */
__u32 started = 0;

static __always_inline void conn_delete(struct sock *sk)
{
	__u64 key = (__u64)sk;

	bpf_map_delete_elem(&conns, &key);
}

/*
 * What is known of the socket. An entry under another cookie is of a socket that was here before
 * and whose end went unseen, since the kernel skips a program that it has just interrupted.
 */
static __always_inline struct conn *conn_of(struct sock *sk, bool raw)
{
	__u64 key = (__u64)sk;
	struct conn *conn = bpf_map_lookup_elem(&conns, &key);

	if (!conn || !conn->cookie ||
	    conn->cookie == (__u64)sk_read(sk, __sk_common.skc_cookie.counter, raw))
		return conn;
	conn_delete(sk);
	return NULL;
}

static __always_inline bool conn_insert(struct sock *sk, const struct conn *conn)
{
	__u64 key = (__u64)sk;

	if (bpf_map_update_elem(&conns, &key, conn, BPF_ANY) == 0)
		return true;
	count_lost(NETMON_LOST_TABLE);
	return false;
}

/*
 * A connection's socket: TCP, or MPTCP, whose subflows are TCP sockets of their own (with an
 * upper layer protocol called "mptcp") that belong to no application.
 */
static __always_inline bool is_tcp(struct sock *sk, bool raw)
{
	const struct tcp_ulp_ops *ulp;
	__u16 protocol = sk_read(sk, sk_protocol, raw);
	char name[2] = {};

	if (protocol == IPPROTO_MPTCP)
		return true;
	if (protocol != IPPROTO_TCP)
		return false;
	ulp = BPF_CORE_READ((struct inet_connection_sock *)sk, icsk_ulp_ops);
	if (!ulp)
		return true;
	bpf_core_read(name, sizeof(name), &ulp->name);
	return !(name[0] == 'm' && name[1] == 'p');
}

/* It is made when it is first asked for; of a raw socket nobody can ask, and it may be 0. */
static __always_inline __u64 cookie_of(struct sock *sk, bool raw)
{
	return raw ? (__u64)BPF_CORE_READ(sk, __sk_common.skc_cookie.counter)
		   : bpf_get_socket_cookie(sk);
}

static __always_inline __u8 flags_of(struct sock *sk, bool raw)
{
	return sk_read(sk, sk_protocol, raw) == IPPROTO_MPTCP ? NETMON_FLAG_MPTCP : 0;
}

/*
 * A blank entry in the table, or NULL, counted as lost. Made there, since the stack of the programs
 * that need it is full.
 */
static const struct conn blank = {};

static __always_inline struct conn *new_conn(struct sock *sk, bool raw)
{
	struct conn *conn;

	if (!conn_insert(sk, &blank))
		return NULL;
	conn = conn_of(sk, raw);
	if (conn) {
		conn->flags = flags_of(sk, raw);
		conn->cookie = cookie_of(sk, raw);
	}
	return conn;
}

/* A blank event with all that holds for the socket and its owner, or NULL, counted as lost. */
static __always_inline struct netmon_event *
new_event(struct sock *sk, struct conn *conn, struct target *to, __u8 kind, __u64 now, bool raw)
{
	struct netmon_event *e = bpf_ringbuf_reserve(&ring, sizeof(*e), 0);

	if (!e) {
		count_lost(NETMON_LOST_RING);
		return NULL;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->kind = kind;
	e->flags = conn->flags;
	e->rule = conn->rule;
	e->time = now;
	e->cookie = conn->cookie ? conn->cookie : conn->since;
	e->image = conn->image;
	e->pid = conn->pid;
	e->tid = conn->tid;
	fill_flow(&e->flow, sk, to, raw);
	return e;
}

static __always_inline void fill_duration(struct netmon_event *e, __u64 since)
{
	if (!since)
		return;
	e->duration_ns = e->time - since;
	e->flags |= NETMON_FLAG_TIMED;
}

static __always_inline void send_event(struct netmon_event *e)
{
	bpf_ringbuf_submit(e, wake_flag());
}

#endif
