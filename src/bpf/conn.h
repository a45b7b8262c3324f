/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Per-connection state, and the events built from it.
 *
 * Locking: entries are created and modified by programs that run under the socket lock. They are
 * removed with conn_claim(), which succeeds for one caller only and hands it a copy. Two places
 * create entries without the lock: accept() in the tracepoint set, and the iterators over existing
 * sockets. They never modify an entry, and use closed_meanwhile() to detect a close that raced with
 * the insert.
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
	PHASE_OPEN,	    /* connected or accepted: a close event is due */
	PHASE_LISTEN,	    /* not a connection: a listener */
	PHASE_PORT_PENDING, /* opening; the filter needs the local port */
};

struct conn {
	struct flow flow; /* the local port may be 0 while opening */
	__u64 begun;	  /* time of SYN_SENT, LISTEN, or of whatever we saw first */
	__u64 since;	  /* time of SYN_SENT, then of ESTABLISHED; 0: before tracing began */
	__u64 state_since;
	__u64 image;  /* owner */
	__u64 closer; /* image of the closer, if not the owner */
	__u64 cookie; /* 0: not available, `begun` is used instead */
	__u64 sk;     /* address of the socket */
	__u32 pid;
	__u32 tid;
	__u32 data_segs_in; /* at the time of our close */
	__u16 rule;
	__u16 error; /* MPTCP: why the first subflow failed to connect */
	__u8 flags;  /* enum netmon_flag: EGRESS, MPTCP, EXISTING */
	__u8 phase;  /* enum phase */
	__u8 state;  /* -e state: the last one reported */
	__u8 repair; /* restored with TCP_REPAIR, without a SYN */
	__u32 ifindex;
};

/*
 * An entry lives in the slot that its cookie selects, modulo SLOTS. Cookies are allocated
 * sequentially; insert, lookup and delete take a few instructions each. slot.cookie identifies the
 * occupant. It is changed with compare-and-exchange, and is TAKEN while the entry is being written.
 * No cookie has that value: the kernel counts up from 1, and down from -1 where a softirq
 * interrupted it (gen_cookie_next()).
 */
#define SLOTS (1 << 14)
#define TAKEN (1ULL << 63)

struct slot {
	__u64 cookie; /* 0: free */
	struct conn conn;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

/*
 * Overflow table, keyed by socket address: for connections whose slot is occupied, and for those
 * without a cookie. Every socket goes through TCP_CLOSE before it is freed, which removes its
 * entry. Entries are not preallocated, so the limit costs only the buckets.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, NETMON_CONNECTIONS_MAX);
	__type(key, __u64);
	__type(value, struct conn);
} conns SEC(".maps");

/* Set while the iterators over existing sockets run (existing.h). */
__u32 existing_running = 0;

/*
 * Set while every program is attached. Connections are not tracked before that, nor once detaching
 * has started: some programs may be running while the one that would see the close is not.
 */
__u32 started = 0;

/* An address as a typed pointer, for FIELD(). A trusted pointer becomes untrusted. */
static __always_inline struct sock *sock_at(__u64 address)
{
	return AT(sock, address);
}

static __always_inline __u64 cookie_now(struct sock *sk)
{
	return FIELD(sk, __sk_common.skc_cookie.counter);
}

/*
 * Number of entries in `conns` for each cookie modulo TRACKED; a 0 saves the hash lookup. Entries
 * without a cookie are counted at index 0, which is always checked as well: somebody else may have
 * a cookie generated for such a socket at any time.
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
	return FIELD(sk, sk_protocol) == IPPROTO_MPTCP;
}

/*
 * A value unique to the connection. An accepted MPTCP socket has a copy of its listener's cookie if
 * anybody asked for that earlier, so its random key is used instead.
 */
static __always_inline __u64 unique_of(struct sock *sk)
{
	struct mptcp_sock *msk = (struct mptcp_sock *)sk;

	if (is_mptcp(sk) && bpf_core_field_exists(msk->local_key))
		return BPF_CORE_READ(msk, local_key);
	return cookie_now(sk);
}

/* The last close seen at each index: unique_of() << 4 | the state that was left. */
#define CLOSING (1 << 12)
__u64 closing[CLOSING] = {};

static __always_inline __u64 *closing_at(__u64 unique)
{
	return &closing[unique & (CLOSING - 1)];
}

/* Called under the socket lock, before the entry is looked up. The exchange is a full barrier. */
static __always_inline void announce_close(struct sock *sk, int oldstate)
{
	__u64 unique;

	if (!config.tracepoints && !existing_running)
		return;
	unique = unique_of(sk);
	if (unique)
		__sync_lock_test_and_set(closing_at(unique), unique << 4 | oldstate);
}

/* The socket connects again: withdraw the announcement. */
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
 * Called after an insert without the lock. Returns the state from which the socket went to CLOSE,
 * or 0 if it is still open. Either we see the announcement, or the closing side sees our entry, or
 * both; conn_claim() then picks one of us. Adding 0 is a full barrier.
 */
static __always_inline int closed_meanwhile(struct sock *sk)
{
	__u64 unique, last;

	if (config.tracepoints || existing_running) {
		unique = unique_of(sk);
		last = __sync_fetch_and_add(closing_at(unique), 0);
		if (unique && last >> 4 == unique << 4 >> 4)
			return last & 15;
	}
	return FIELD(sk, __sk_common.skc_state) == TCP_CLOSE ? TCP_CLOSE : 0;
}

/*
 * Tracepoint set: connections that ended before their accept() was seen to return. The return may
 * still come; whatever is left when tracing ends are returns that the kernel skipped. Each table
 * holds one connection per index, identified by unique_of():
 *   queued     ended before any process had its socket; may still be accepted
 *   unclaimed  ended after a process had its socket
 *   late       accept() returned after the end
 * A socket without a cookie cannot be told from others, and is left out.
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

/* Both sides write their own table, then check the other one, so that one takes the entry back. */
static __always_inline bool note_unless_late(__u64 *table, __u64 unique)
{
	__u32 at = unique & (CLOSING - 1);

	if (!unique)
		return false;
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
	if (!config.tracepoints || !unique)
		return;
	__sync_lock_test_and_set(&late[unique & (CLOSING - 1)], unique);
	take_back(queued, unique);
	if (take_back(unclaimed, unique))
		__sync_fetch_and_add(&unclaimed_closes, -1);
}

/* The slot for a cookie; another connection may occupy it. */
static __always_inline struct slot *slot_of(__u64 cookie)
{
	__u32 index = cookie & (SLOTS - 1);

	return bpf_map_lookup_elem(&slots, &index);
}

static __always_inline bool hash_delete(__u64 key, __u64 cookie)
{
	if (bpf_map_delete_elem(&conns, &key))
		return false;
	__sync_fetch_and_add(tracked_at(cookie), -1);
	return true;
}

/*
 * The slot, if it holds the entry of `sk`. A child briefly has its listener's cookie, and an MPTCP
 * one may keep it.
 */
static __always_inline struct slot *slot_with(struct sock *sk, __u64 cookie)
{
	struct slot *slot = slot_of(cookie);

	return slot && cookie && slot->cookie == cookie && slot->conn.sk == (__u64)sk ? slot : NULL;
}

/* Take the entry out of its slot. It may be used in place until slot_free(). As conn_claim(). */
static __always_inline bool slot_claim(struct slot *slot, __u64 cookie)
{
	return __sync_val_compare_and_swap(&slot->cookie, cookie, TAKEN) == cookie;
}

/* The exchange is a full barrier. */
static __always_inline void slot_free(struct slot *slot)
{
	__sync_lock_test_and_set(&slot->cookie, 0);
}

/* As conn_claim(), for an entry that is not in a slot. */
static __always_inline bool hash_claim(struct sock *sk, struct conn *copy)
{
	__u64 key = (__u64)sk, cookie;
	struct conn *conn = bpf_map_lookup_elem(&conns, &key);

	if (!conn)
		return false;
	if (copy)
		*copy = *conn;
	cookie = conn->cookie;
	return hash_delete(key, cookie);
}

/* Remove the entry. True for exactly one caller, which owns it from then on. */
static __always_inline bool conn_claim(struct sock *sk, struct conn *copy)
{
	__u64 cookie = cookie_now(sk);
	struct slot *slot = slot_with(sk, cookie);

	if (!slot)
		return hash_claim(sk, copy);
	if (!slot_claim(slot, cookie))
		return false;
	if (copy)
		*copy = slot->conn;
	slot_free(slot);
	return true;
}

/*
 * An entry with a different cookie is stale: it belongs to an earlier socket at this address whose
 * close was missed because the kernel skipped the program. That event is lost. A global function.
 */
__noinline int is_stale(const struct conn *conn, __u64 cookie)
{
	bool counts;

	if (!conn || !conn->cookie || conn->cookie == cookie)
		return false;
	counts = conn->phase != PHASE_FAILED;
	if (hash_delete(conn->sk, conn->cookie) && counts)
		count_lost(NETMON_LOST_SKIPPED);
	return true;
}

/* The socket's entry if it is not in a slot, or NULL. */
static __always_inline struct conn *hashed_conn(struct sock *sk, __u64 cookie)
{
	__u64 key = (__u64)sk;
	struct conn *conn;

	if (!may_be_tracked(cookie))
		return NULL;
	conn = bpf_map_lookup_elem(&conns, &key);
	return conn && !is_stale(conn, cookie) ? conn : NULL;
}

/* The socket's entry, or NULL. */
static __always_inline struct conn *conn_of(struct sock *sk)
{
	__u64 cookie = cookie_now(sk);
	struct slot *slot = slot_with(sk, cookie);

	return slot ? &slot->conn : hashed_conn(sk, cookie);
}

/* A global function. */
__noinline int hash_insert(const struct conn *conn)
{
	struct conn copy; /* 6.1 does not put a global function's argument into a map */
	struct conn *other;
	__u64 key;
	long error;

	if (!conn)
		return false;
	copy = *conn;
	key = copy.sk;
	__sync_fetch_and_add(tracked_at(copy.cookie), 1);
	error = bpf_map_update_elem(&conns, &key, &copy, BPF_NOEXIST);
	if (error == -EEXIST) {
		other = bpf_map_lookup_elem(&conns, &key);
		if (other && is_stale(other, copy.cookie))
			error = bpf_map_update_elem(&conns, &key, &copy, BPF_NOEXIST);
	}
	if (!error)
		return true;
	__sync_fetch_and_add(tracked_at(copy.cookie), -1);
	if (error != -EEXIST)
		count_lost(NETMON_LOST_TABLE);
	return false;
}

/* False if there is an entry already, or no room. The final exchange is a full barrier. */
static __always_inline bool conn_insert(struct sock *sk, const struct conn *conn)
{
	struct slot *slot = slot_of(conn->cookie);

	if (!slot || !conn->cookie || __sync_val_compare_and_swap(&slot->cookie, 0, TAKEN) != 0)
		return !slot_with(sk, conn->cookie) && hash_insert(conn);
	slot->conn = *conn;
	__sync_lock_test_and_set(&slot->cookie, conn->cookie);
	return true;
}

/* Is `sk`, which must be a TCP socket, an MPTCP subflow? */
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
 * Is this a connection's own socket, TCP or MPTCP? MPTCP subflows are TCP sockets as well (with the
 * ULP "mptcp"), but belong to no application.
 */
static __always_inline bool is_tcp(struct sock *sk)
{
	__u16 protocol = FIELD(sk, sk_protocol);

	return protocol == IPPROTO_MPTCP || (protocol == IPPROTO_TCP && !is_subflow(sk));
}

/* The MPTCP socket that a subflow belongs to; NULL if `sk` is not a subflow. */
static __always_inline struct sock *msk_of(struct sock *sk)
{
	struct mptcp_subflow_context *subflow;

	if (FIELD(sk, sk_protocol) != IPPROTO_TCP || !is_subflow(sk))
		return NULL;
	subflow = READ(inet_connection_sock, sk, icsk_ulp_data);
	return bpf_core_field_exists(subflow->conn) ? READ(mptcp_subflow_context, subflow, conn)
						    : NULL;
}

/* Never generate an MPTCP listener's cookie: its children would get a copy of it. */
static __always_inline __u64 cookie_of_listener(struct sock *sk)
{
	return is_mptcp(sk) ? cookie_now(sk) : bpf_get_socket_cookie(sk);
}

static __always_inline __u32 ifindex_of(struct sock *sk)
{
	return FIELD(sk, __sk_common.skc_bound_dev_if);
}

static __always_inline __u8 flags_of(struct sock *sk)
{
	return is_mptcp(sk) ? NETMON_FLAG_MPTCP : 0;
}

/* For MPTCP the first subflow, which has the TCP state; otherwise the socket itself. */
static __always_inline struct sock *tcp_of(struct sock *sk)
{
	struct mptcp_sock *msk = (struct mptcp_sock *)sk;

	return is_mptcp(sk) && bpf_core_field_exists(msk->first) ? READ(mptcp_sock, msk, first)
								 : sk;
}

/*
 * Did the peer open the connection? tcp_v4_syn_recv_sock() and tcp_v6_syn_recv_sock() store the
 * interface of the handshake in the child's multicast interface. Nothing else can set that on a
 * stream socket: IP_MULTICAST_IF and IPV6_MULTICAST_IF are refused.
 */
static __always_inline bool is_passive(struct sock *sk)
{
	struct sock *tcp = tcp_of(sk);

	/* pinet6 is NULL for an IPv4 socket; READ() then yields 0. */
	return READ(inet_sock, tcp, mc_index) |
	       READ(ipv6_pinfo, READ(inet_sock, tcp, pinet6), mcast_oif);
}

/* Is this a child in its listener's accept queue? Its connection is traced from accept() on. */
static __always_inline bool is_waiting(struct sock *sk)
{
	return !READ(sock, sk, sk_socket) &&
	       !(FIELD(sk, __sk_common.skc_flags) & (1UL << SOCK_DEAD));
}

/* A ring record with everything known about the connection; NULL if the ring is full. */
static __always_inline struct netmon_event *new_record(const struct conn *conn, __u8 kind,
						       __u64 now)
{
	struct netmon_event *e = bpf_ringbuf_reserve(&ring, sizeof(*e), 0);

	if (!e)
		return NULL;
	__builtin_memset(&e->closer, 0, sizeof(*e) - offsetof(struct netmon_event, closer));
	e->kind = kind;
	e->states = 0;
	e->flags = conn->flags;
	e->rule = conn->rule;
	e->error = 0;
	e->time = now;
	e->cookie = conn->cookie ? conn->cookie : conn->begun;
	e->begun = conn->begun;
	e->image = conn->image;
	e->pid = conn->pid;
	e->tid = conn->tid;
	e->ifindex = conn->ifindex;
	e->drops = 0;
	e->flow = conn->flow;
	return e;
}

/* Same, but counts a lost event if the ring is full. */
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

/* `sk` is a listener. The accept queue of an MPTCP listener is that of its first subflow. */
static __always_inline void fill_backlog(struct netmon_event *e, struct sock *sk)
{
	sk = AT(sock, tcp_of(sk));
	e->flags |= NETMON_FLAG_BACKLOG;
	e->backlog_len = FIELD(sk, sk_ack_backlog);
	e->backlog_max = FIELD(sk, sk_max_ack_backlog);
	e->drops = FIELD(sk, sk_drops.counter);
}

static __always_inline void send_event(struct netmon_event *e)
{
	bpf_ringbuf_submit(e, wake_flag(e));
}

#endif
