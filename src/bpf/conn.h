/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What is remembered of a connection, and the events made of it.
 *
 * Who may do what: an entry is made and changed by programs that run under the socket's lock, and
 * removed by the program that conn_claim()s it, which succeeds once; what it said is then the
 * claimer's copy. The exceptions make entries without the lock: accept() in the tracepoint set, and
 * the iterators over what exists. They change none, and find out by closed_meanwhile() whether the
 * close came before the entry.
 */
#ifndef __CONN_H__
#define __CONN_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "consts.h"
#include "netmon.h"
#include "ring.h"
#include "read.h"
#include "flow.h"

enum phase {
	PHASE_OPENING,	    /* SYN sent */
	PHASE_FAILED,	    /* connect() is about to return an error */
	PHASE_OPEN,	    /* connected or accepted: a close is owed */
	PHASE_LISTEN,	    /* no connection, but waiting for them */
	PHASE_PORT_PENDING, /* opening, and the filter waits for the local port */
};

/* What an entry is kept for once the connection is up. */
#define WANT_LASTING (NETMON_WANT_CLOSE | NETMON_WANT_STATE | NETMON_WANT_RETRANSMIT)

#define WANT_LISTENERS (NETMON_WANT_LISTEN | NETMON_WANT_STATE | NETMON_WANT_DROP)

/* What is remembered of a connection between its events. */
struct conn {
	struct flow flow; /* while it opens, the local port may be 0 */
	__u64 begun;	  /* SYN_SENT, LISTEN, or the first that was seen of it */
	__u64 since;	  /* SYN_SENT, then ESTABLISHED; 0: before our time */
	__u64 state_since;
	__u64 image;  /* owner */
	__u64 closer; /* who closed it, if not the owner */
	__u64 cookie; /* 0: the kernel's cannot be had, and `begun` stands for it */
	__u32 pid;
	__u32 tid;
	__u32 data_segs_in; /* when we closed */
	__u16 rule;
	__u16 error; /* MPTCP: why its first subflow did not come up */
	__u8 flags;  /* enum netmon_flag: EGRESS, MPTCP, EXISTING */
	__u8 phase;  /* enum phase */
	__u8 state;  /* -e state: the last that was reported */
	__u8 repair; /* it was restored by TCP_REPAIR, without a SYN */
	__u32 ifindex;
};

/*
 * Entries have a place by the remainder of their cookie, which are given out one after the other:
 * to take it, to find it and to leave it are a few instructions each. `cookie` is whose it is, by
 * compare-and-exchange; TAKEN while it is written.
 */
#define SLOTS (1 << 14)
#define TAKEN (~0ULL)

struct slot {
	__u64 cookie; /* 0: free */
	__u64 sk;     /* a listener's child has its cookie for a moment; MPTCP's may keep it */
	struct conn conn;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

/*
 * Where a place is taken, and for those without a cookie; keyed by the socket. Every socket dies
 * through TCP_CLOSE, and its entry with it. Entries are allocated as needed, so the limit costs its
 * buckets and nothing more.
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
 * Every program is attached. No connection begins before, and none after they begin to be detached,
 * for some may already run while the one that sees its end does not.
 */
__u32 started = 0;

static __always_inline __u64 cookie_now(struct sock *sk)
{
	return READ(sock, sk, __sk_common.skc_cookie.counter);
}

/*
 * How many entries of `conns` have cookies of one remainder: where it is 0, a look-up is spared.
 * Those without a cookie are under 0; they may be given one by somebody else at any time.
 */
#define TRACKED (1 << 14)
__u32 tracked[TRACKED] = {};

static __always_inline __u32 *tracked_at(__u64 cookie)
{
	return &tracked[cookie & (TRACKED - 1)];
}

static __always_inline bool may_be_tracked(__u64 cookie)
{
	return *(volatile __u32 *)tracked_at(cookie) || *(volatile __u32 *)tracked_at(0);
}

static __always_inline bool is_mptcp(struct sock *sk)
{
	return READ(sock, sk, sk_protocol) == IPPROTO_MPTCP;
}

/*
 * What distinguishes a connection from all others. An accepted MPTCP socket has a copy of its
 * listener's cookie where somebody had asked for that before; its key is random.
 */
static __always_inline __u64 unique_of(struct sock *sk)
{
	struct mptcp_sock *msk = (struct mptcp_sock *)sk;

	if (is_mptcp(sk) && bpf_core_field_exists(msk->local_key))
		return BPF_CORE_READ(msk, local_key);
	return cookie_now(sk);
}

/* The last close seen of a remainder: unique_of(), shifted, and the state that was left. */
#define CLOSING (1 << 12)
__u64 closing[CLOSING] = {};

static __always_inline __u64 *closing_at(__u64 unique)
{
	return &closing[unique & (CLOSING - 1)];
}

/* Under the lock, before the entry is looked up. The exchange is a full barrier. */
static __always_inline void announce_close(struct sock *sk, int oldstate)
{
	__u64 unique;

	if (!config.tracepoints && !existing_running)
		return;
	unique = unique_of(sk);
	if (unique)
		__sync_lock_test_and_set(closing_at(unique), unique << 4 | oldstate);
}

/* The socket connects once more. */
static __always_inline void announce_reopen(struct sock *sk)
{
	__u64 unique;

	if (!config.tracepoints && !existing_running)
		return;
	unique = unique_of(sk);
	if (*closing_at(unique) >> 4 == unique << 4 >> 4)
		*closing_at(unique) = 0;
}

/*
 * After an entry was made without the lock: the state that was left for CLOSE, or 0 if the socket
 * is open. Either we see the close's announcement, or it sees our entry, or both; then one of us
 * will claim it. The addition of nothing is a full barrier.
 */
static __always_inline int closed_meanwhile(struct sock *sk)
{
	__u64 unique = unique_of(sk);
	__u64 last = __sync_fetch_and_add(closing_at(unique), 0);

	if (unique && last >> 4 == unique << 4 >> 4)
		return last & 15;
	return READ(sock, sk, __sk_common.skc_state) == TCP_CLOSE ? TCP_CLOSE : 0;
}

/*
 * The tracepoint set: connections that were taken from their listener's queue and have ended,
 * although their accept() was not seen to return. It may still be about to; what is left when
 * tracing ends are the returns that the kernel skipped. Each table has one connection for a
 * remainder, by unique_of():
 *   queued     ended before a process had its socket; it may still be accepted
 *   unclaimed  has ended, and a process had its socket
 *   late       its accept() returned after its end
 */
__u64 queued[CLOSING] = {};
__u64 unclaimed[CLOSING] = {};
__u64 late[CLOSING] = {};
__u64 unclaimed_closes = 0;

static __always_inline bool take_back(__u64 *table, __u64 unique)
{
	__u64 *entry = &table[unique & (CLOSING - 1)];

	return *entry == unique && __sync_val_compare_and_swap(entry, unique, 0) == unique;
}

/* Both sides write first and then look: one of them takes the entry back. */
static __always_inline bool note_unless_late(__u64 *table, __u64 unique)
{
	__u32 at = unique & (CLOSING - 1);

	__sync_lock_test_and_set(&table[at], unique);
	return !(__sync_fetch_and_add(&late[at], 0) == unique && take_back(table, unique));
}

static __always_inline void count_unclaimed(__u64 unique)
{
	__sync_fetch_and_add(&unclaimed_closes, 1);
	if (!note_unless_late(unclaimed, unique))
		__sync_fetch_and_add(&unclaimed_closes, -1);
}

static __always_inline void claim_late(__u64 unique)
{
	if (!config.tracepoints)
		return;
	__sync_lock_test_and_set(&late[unique & (CLOSING - 1)], unique);
	take_back(queued, unique);
	if (take_back(unclaimed, unique))
		__sync_fetch_and_add(&unclaimed_closes, -1);
}

/* The slot of the cookie, which another connection may occupy. */
static __always_inline struct slot *slot_of(__u64 cookie)
{
	__u32 index = cookie & (SLOTS - 1);

	return bpf_map_lookup_elem(&slots, &index);
}

static __always_inline bool hash_delete(struct sock *sk, __u64 cookie)
{
	__u64 key = (__u64)sk;

	if (bpf_map_delete_elem(&conns, &key))
		return false;
	__sync_fetch_and_add(tracked_at(cookie), -1);
	return true;
}

/* Remove the entry. True for one caller only, whose it is from then on. */
static __always_inline bool conn_claim(struct sock *sk, struct conn *copy)
{
	__u64 key = (__u64)sk, cookie = cookie_now(sk);
	struct slot *slot = slot_of(cookie);
	struct conn *conn;

	if (slot && cookie && slot->cookie == cookie && slot->sk == key) {
		if (copy)
			*copy = slot->conn;
		return __sync_val_compare_and_swap(&slot->cookie, cookie, 0) == cookie;
	}
	conn = bpf_map_lookup_elem(&conns, &key);
	if (!conn)
		return false;
	if (copy)
		*copy = *conn;
	cookie = conn->cookie;
	return hash_delete(sk, cookie);
}

/*
 * An entry under another cookie is of a socket that was here before and whose end went unseen,
 * since the kernel skipped the program: an event is lost.
 */
static __always_inline bool is_stale(struct sock *sk, const struct conn *conn, __u64 cookie)
{
	bool counts = conn->phase != PHASE_FAILED;

	if (!conn->cookie || conn->cookie == cookie)
		return false;
	if (hash_delete(sk, conn->cookie) && counts)
		count_lost(NETMON_LOST_SKIPPED);
	return true;
}

/* What is known of the socket. */
static __always_inline struct conn *conn_of(struct sock *sk)
{
	__u64 key = (__u64)sk, cookie = cookie_now(sk);
	struct slot *slot = slot_of(cookie);
	struct conn *conn;

	if (slot && cookie && slot->cookie == cookie && slot->sk == key)
		return &slot->conn;
	if (!may_be_tracked(cookie))
		return NULL;
	conn = bpf_map_lookup_elem(&conns, &key);
	return conn && !is_stale(sk, conn, cookie) ? conn : NULL;
}

static __always_inline bool hash_insert(struct sock *sk, const struct conn *conn)
{
	__u64 key = (__u64)sk;
	struct conn *other;
	long error;

	__sync_fetch_and_add(tracked_at(conn->cookie), 1);
	error = bpf_map_update_elem(&conns, &key, conn, BPF_NOEXIST);
	if (error == -EEXIST) {
		other = bpf_map_lookup_elem(&conns, &key);
		if (other && is_stale(sk, other, conn->cookie))
			error = bpf_map_update_elem(&conns, &key, conn, BPF_NOEXIST);
	}
	if (!error)
		return true;
	__sync_fetch_and_add(tracked_at(conn->cookie), -1);
	if (error != -EEXIST)
		count_lost(NETMON_LOST_TABLE);
	return false;
}

/* False if there is one already, or no room. The last exchange is a full barrier. */
static __always_inline bool conn_insert(struct sock *sk, const struct conn *conn)
{
	struct slot *slot = slot_of(conn->cookie);

	if (!slot || !conn->cookie || __sync_val_compare_and_swap(&slot->cookie, 0, TAKEN) != 0) {
		if (slot && conn->cookie && slot->cookie == conn->cookie && slot->sk == (__u64)sk)
			return false;
		return hash_insert(sk, conn);
	}
	slot->sk = (__u64)sk;
	slot->conn = *conn;
	__sync_lock_test_and_set(&slot->cookie, conn->cookie);
	return true;
}

/* Of a TCP socket. */
static __always_inline bool is_subflow(struct sock *sk)
{
	const struct tcp_ulp_ops *ulp = READ(inet_connection_sock, sk, icsk_ulp_ops);
	char name[2] = {};

	if (!ulp)
		return false;
	bpf_core_read(name, sizeof(name), &ulp->name);
	return name[0] == 'm' && name[1] == 'p';
}

/*
 * A connection's socket: TCP, or MPTCP, whose subflows are TCP sockets of their own (with an
 * upper layer protocol called "mptcp") that belong to no application.
 */
static __always_inline bool is_tcp(struct sock *sk)
{
	__u16 protocol = READ(sock, sk, sk_protocol);

	return protocol == IPPROTO_MPTCP || (protocol == IPPROTO_TCP && !is_subflow(sk));
}

/* The MPTCP connection that a subflow belongs to, or NULL if it is none. */
static __always_inline struct sock *msk_of(struct sock *sk)
{
	struct mptcp_subflow_context *subflow;

	if (READ(sock, sk, sk_protocol) != IPPROTO_TCP || !is_subflow(sk))
		return NULL;
	subflow = READ(inet_connection_sock, sk, icsk_ulp_data);
	return bpf_core_field_exists(subflow->conn) ? BPF_CORE_READ(subflow, conn) : NULL;
}

/* A listener's; nobody is to ask an MPTCP one for it before its children have copied it. */
static __always_inline __u64 cookie_of_listener(struct sock *sk)
{
	return is_mptcp(sk) ? cookie_now(sk) : bpf_get_socket_cookie(sk);
}

static __always_inline __u8 flags_of(struct sock *sk)
{
	return is_mptcp(sk) ? NETMON_FLAG_MPTCP : 0;
}

/* Of an MPTCP socket the first subflow, which has what only TCP knows; else the socket itself. */
static __always_inline struct sock *tcp_of(struct sock *sk)
{
	struct mptcp_sock *msk = (struct mptcp_sock *)sk;

	return is_mptcp(sk) && bpf_core_field_exists(msk->first) ? BPF_CORE_READ(msk, first) : sk;
}

/*
 * Did the other host open the connection? tcp_v4_syn_recv_sock() and tcp_v6_syn_recv_sock() leave
 * the interface of the handshake where nothing else can be on a stream socket: IP_MULTICAST_IF and
 * IPV6_MULTICAST_IF are refused.
 */
static __always_inline bool is_passive(struct sock *sk)
{
	struct sock *tcp = tcp_of(sk);

	/* Of an IPv4 socket pinet6 is NULL, which is read as 0. */
	return READ(inet_sock, tcp, mc_index) |
	       READ(ipv6_pinfo, READ(inet_sock, tcp, pinet6), mcast_oif);
}

/* A blank record with all that is known of the connection, or NULL. */
static __always_inline struct netmon_event *new_record(const struct conn *conn, __u8 kind,
						       __u64 now)
{
	struct netmon_event *e = bpf_ringbuf_reserve(&ring, sizeof(*e), 0);

	if (!e)
		return NULL;
	__builtin_memset(e, 0, sizeof(*e));
	e->kind = kind;
	e->flags = conn->flags;
	e->rule = conn->rule;
	e->time = now;
	e->cookie = conn->cookie ? conn->cookie : conn->begun;
	e->begun = conn->begun;
	e->image = conn->image;
	e->pid = conn->pid;
	e->tid = conn->tid;
	e->ifindex = conn->ifindex;
	e->flow = conn->flow;
	return e;
}

/* The same of an event, which is counted as lost where there is no room. */
static __always_inline struct netmon_event *new_event(const struct conn *conn, __u8 kind, __u64 now)
{
	struct netmon_event *e = new_record(conn, kind, now);

	if (!e)
		count_lost(NETMON_LOST_RING);
	return e;
}

static __always_inline void fill_duration(struct netmon_event *e, __u64 since)
{
	if (!since)
		return;
	e->duration_ns = e->time - since;
	e->flags |= NETMON_FLAG_TIMED;
}

/* Of a listener. An MPTCP one leaves its queue to its first subflow. */
static __always_inline void fill_backlog(struct netmon_event *e, struct sock *sk)
{
	sk = tcp_of(sk);
	e->flags |= NETMON_FLAG_BACKLOG;
	e->backlog_len = READ(sock, sk, sk_ack_backlog);
	e->backlog_max = READ(sock, sk, sk_max_ack_backlog);
	e->drops = READ(sock, sk, sk_drops.counter);
}

static __always_inline void send_event(struct netmon_event *e)
{
	bpf_ringbuf_submit(e, wake_flag());
}

#endif
