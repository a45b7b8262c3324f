/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What happens to one connection, from the first SYN or the accept to the end.
 */
#ifndef __SOCKET_H__
#define __SOCKET_H__

#define RCV_SHUTDOWN	1
#define SHUTDOWN_MASK	3
#define SOCK_DONE	1 /* enum sock_flags: set by tcp_fin() alone */
#define ECONNRESET	104
#define MAX_CONNECTIONS (1 << 20)
#define WANT_ACCEPTED	(NETMON_WANT_ACCEPT | NETMON_WANT_CLOSE | NETMON_WANT_STATE)

enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT,
	TCP_SYN_RECV,
	TCP_FIN_WAIT1,
	TCP_FIN_WAIT2,
	TCP_TIME_WAIT,
	TCP_CLOSE,
	TCP_CLOSE_WAIT,
	TCP_LAST_ACK,
	TCP_LISTEN,
	TCP_CLOSING,
	TCP_NEW_SYN_RECV,
};

enum phase {
	PHASE_OPENING,	/* no event yet: SYN sent, or waiting for accept() */
	PHASE_FAILED,	/* connect() is about to return an error */
	PHASE_OPEN,	/* connected or accepted: a close is owed */
	PHASE_LISTEN,	/* no connection, but waiting for them */
	PHASE_UNJUDGED, /* opening, and the filter waits for the local port */
	PHASE_BURIED,	/* closed before the survey came to it */
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
	__uint(max_entries, MAX_CONNECTIONS);
	__type(key, __u64);
	__type(value, struct conn);
} conns SEC(".maps");

/* The survey of what exists is under way (survey.h). */
__u32 surveying = 0;

/*
 * A socket comes either as the verifier's own pointer, which can be read at once, or (`raw`) from
 * a file table, as a number that can only be probed.
 */
#define get(sk, field, raw) ((raw) ? BPF_CORE_READ(sk, field) : (sk)->field)

static __always_inline struct tcp_sock *tcp_of(struct sock *sk, bool raw)
{
	return raw ? (struct tcp_sock *)sk : bpf_skc_to_tcp_sock(sk);
}

static __always_inline void forget(struct sock *sk)
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
	    conn->cookie == (__u64)get(sk, __sk_common.skc_cookie.counter, raw))
		return conn;
	forget(sk);
	return NULL;
}

static __always_inline bool remember(struct sock *sk, struct conn *conn)
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
	__u16 protocol = get(sk, sk_protocol, raw);
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

static __always_inline void put_ipv6(struct netmon_event *e, __be32 *local, __be32 *remote)
{
	__be32 *saddr = (__be32 *)e->saddr, *daddr = (__be32 *)e->daddr;

	if (remote[0] == 0 && remote[1] == 0 && remote[2] == bpf_htonl(0xffff)) {
		e->family = 4;
		saddr[0] = local[3];
		daddr[0] = remote[3];
		return;
	}
	e->family = 6;
	__builtin_memcpy(saddr, local, 16);
	__builtin_memcpy(daddr, remote, 16);
}

/*
 * Both ends; the remote one is `to`'s if given. The local port is inet_sport: skc_num is already
 * 0 when a socket closes.
 */
static __always_inline void put_ends(struct netmon_event *e, struct sock *sk, struct target *to,
				     bool raw)
{
	__be32 local[4], remote[4];

	if ((to ? to->family : get(sk, __sk_common.skc_family, raw)) == AF_INET6) {
		bpf_core_read(local, sizeof(local), &sk->__sk_common.skc_v6_rcv_saddr);
		if (to)
			__builtin_memcpy(remote, to->addr, sizeof(remote));
		else
			bpf_core_read(remote, sizeof(remote), &sk->__sk_common.skc_v6_daddr);
		put_ipv6(e, local, remote);
	} else {
		e->family = 4;
		*(__be32 *)e->saddr = get(sk, __sk_common.skc_rcv_saddr, raw);
		*(__be32 *)e->daddr = to ? to->addr[0] : get(sk, __sk_common.skc_daddr, raw);
	}
	e->sport = bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport));
	e->dport = bpf_ntohs(to ? to->port : get(sk, __sk_common.skc_dport, raw));
}

/* It is made when it is first asked for; of a raw socket nobody can ask, and it may be 0. */
static __always_inline __u64 cookie_of(struct sock *sk, bool raw)
{
	return raw ? (__u64)BPF_CORE_READ(sk, __sk_common.skc_cookie.counter)
		   : bpf_get_socket_cookie(sk);
}

static __always_inline __u8 flags_of(struct sock *sk, bool raw)
{
	return get(sk, sk_protocol, raw) == IPPROTO_MPTCP ? NETMON_FLAG_MPTCP : 0;
}

/*
 * A blank entry in the table, or NULL, counted as lost. Made there, since the stack of the programs
 * that need it is full.
 */
static const struct conn blank = {};

static __always_inline struct conn *new_conn(struct sock *sk, bool raw)
{
	struct conn *conn;

	if (!remember(sk, (struct conn *)&blank))
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
	/* Not through the verifier's pointer: it takes a millisecond to look into what that is. */
	e->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	put_ends(e, sk, to, raw);
	return e;
}

static __always_inline void put_duration(struct netmon_event *e, __u64 since)
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

#include "admit.h"

/* The current task opens the connection: it is the owner from here on. */
static __always_inline void own(struct conn *conn, __u32 slot)
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
static __always_inline void connect_begins(struct sock *sk)
{
	struct conn conn = {
		.since = bpf_ktime_get_boot_ns(),
		.cookie = cookie_of(sk, false),
		.flags = NETMON_FLAG_EGRESS | flags_of(sk, false),
	};

	if (!admit(sk, &conn, NULL, SCRATCH_CONNECT, false))
		return;
	own(&conn, SCRATCH_CONNECT);
	if (!is_announced(sk))
		send_request(sk, &conn, NULL, false);
	remember(sk, &conn);
}

static __always_inline void connected(struct sock *sk, struct conn *conn)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct netmon_event *e;

	attempt_ended(sk);
	if (!settle(sk, conn))
		return;
	conn->phase = PHASE_OPEN;
	if (config.want & NETMON_WANT_CONNECT) {
		e = new_event(sk, conn, NULL, NETMON_KIND_CONNECT, now, false);
		if (e) {
			put_duration(e, conn->since);
			send_event(e);
		}
	}
	conn->since = now;
	if (!(config.want & (NETMON_WANT_CLOSE | NETMON_WANT_STATE)))
		forget(sk);
}

/* SYN_SENT or SYN_RECV -> ESTABLISHED. A child of a listener waits here for its accept. */
static __always_inline void established(struct sock *sk, int oldstate)
{
	struct conn *conn = conn_of(sk, false);

	if (conn && conn->phase != PHASE_BURIED) {
		if (conn->flags & NETMON_FLAG_EGRESS && conn->phase != PHASE_OPEN)
			connected(sk, conn);
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
 * Its way out of SYN_SENT went unseen: the kernel has skipped that program run, or the survey met
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
static __always_inline void closing(struct sock *sk, int oldstate)
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

/* Of all subflows together, which since 6.5 the MPTCP socket counts itself. */
static __always_inline void put_mptcp_counts(struct netmon_event *e, struct sock *sk)
{
	struct mptcp_sock *msk = (struct mptcp_sock *)sk;

	if (!bpf_core_field_exists(msk->bytes_sent)) {
		e->flags |= NETMON_FLAG_UNCOUNTED;
		return;
	}
	e->bytes_sent = BPF_CORE_READ(msk, bytes_sent);
	e->bytes_received = BPF_CORE_READ(msk, bytes_received);
}

/*
 * Payload only. bytes_acked counts the SYN of an outgoing connection (tcp_ack() moves snd_una
 * over it; for an incoming one it starts behind it) and both counters count the FIN. Sent and
 * not yet acknowledged is sent too. Our FIN is sent when snd_nxt has caught up with write_seq.
 */
static __always_inline void put_counts(struct netmon_event *e, struct sock *sk, int oldstate,
				       bool raw)
{
	struct tcp_sock *tp = tcp_of(sk, raw);
	bool fin_queued = oldstate == TCP_FIN_WAIT1 || oldstate == TCP_FIN_WAIT2 ||
			  oldstate == TCP_CLOSING || oldstate == TCP_LAST_ACK;
	__u64 sent, received;
	__u32 snd_nxt;

	if (e->flags & NETMON_FLAG_MPTCP) {
		put_mptcp_counts(e, sk);
		return;
	}
	if (!tp)
		return;
	snd_nxt = get(tp, snd_nxt, raw);
	sent = get(tp, bytes_acked, raw) + (__u32)(snd_nxt - get(tp, snd_una, raw));
	if (e->flags & NETMON_FLAG_EGRESS && sent)
		sent--;
	if (fin_queued && snd_nxt == get(tp, write_seq, raw) && sent)
		sent--;
	received = get(tp, bytes_received, raw);
	if (get(sk, __sk_common.skc_flags, raw) & (1UL << SOCK_DONE) && received)
		received--;
	e->bytes_sent = sent;
	e->bytes_received = received;
	e->retransmits = get(tp, total_retrans, raw);
	e->srtt_us = get(tp, srtt_us, raw) >> 3;
}

static __always_inline void send_close(struct sock *sk, struct conn *conn, int oldstate, bool raw)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct netmon_event *e;
	struct tcp_sock *tp;

	if (!(config.want & NETMON_WANT_CLOSE))
		return;
	e = new_event(sk, conn, NULL, NETMON_KIND_CLOSE, now, raw);
	if (!e)
		return;
	e->states = oldstate | TCP_CLOSE << 4;
	e->error = get(sk, sk_err, raw);
	e->closer = conn->closer;
	put_duration(e, conn->since);
	put_counts(e, sk, oldstate, raw);
	/*
	 * Data that comes after close() is answered with RST, through the same tcp_reset() that a
	 * RST from the peer ends in (tcp_rcv_state_process()); only the count tells them apart.
	 */
	if (e->error == ECONNRESET && (oldstate == TCP_FIN_WAIT1 || oldstate == TCP_FIN_WAIT2)) {
		tp = tcp_of(sk, raw);
		if (tp && get(tp, data_segs_in, raw) != conn->data_segs_in)
			e->flags |= NETMON_FLAG_ABORTED_DATA;
	}
	send_event(e);
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
		put_duration(e, conn->since);
		send_event(e);
	}
}

/*
 * While the survey is under way: a socket that nothing is known of has closed. The survey must not
 * take it for open any more, and where it just has, its entry counts.
 */
static const struct conn grave = {.phase = PHASE_BURIED};

static __always_inline struct conn *bury(struct sock *sk)
{
	__u64 key = (__u64)sk;

	return bpf_map_update_elem(&conns, &key, &grave, BPF_NOEXIST) ? conn_of(sk, false) : NULL;
}

/* -> CLOSE: the end, with the final counts; sk_err is why, if it was not closed in order. */
static __always_inline void closed(struct sock *sk, int oldstate)
{
	struct conn *conn = conn_of(sk, false);

	if (!conn && surveying)
		conn = bury(sk);
	if (!conn || !settle(sk, conn))
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
	forget(sk);
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
static __always_inline void accepted(struct sock *sk, struct sock *listener, bool raw)
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
		forget(sk);
		return;
	}
	/* Nobody saw it before (MPTCP, or older than tcptrace): it gets the time for a cookie. */
	if (!conn->cookie)
		conn->since = now;
	own(conn, SCRATCH_ACCEPT);
	conn->phase = PHASE_OPEN;
	if (config.want & NETMON_WANT_ACCEPT) {
		e = new_event(sk, conn, NULL, NETMON_KIND_ACCEPT, now, raw);
		if (e) {
			if (!listener)
				listener = current_listener(e->sport);
			if (listener) {
				e->flags |= NETMON_FLAG_BACKLOG;
				e->backlog_len = BPF_CORE_READ(listener, sk_ack_backlog);
				e->backlog_max = BPF_CORE_READ(listener, sk_max_ack_backlog);
			}
			send_event(e);
		}
	}
	if (get(sk, __sk_common.skc_state, raw) == TCP_CLOSE) {
		send_close(sk, conn, TCP_CLOSE, raw);
		forget(sk);
	}
}

/*
 * connect() failed with `error` before any SYN left, in the connecting task. The socket no longer
 * knows where to; `to` does.
 */
static __always_inline void connect_refused(struct sock *sk, struct target *to, int error, bool raw)
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
		own(conn, SCRATCH_RESULT);
		if (!is_announced(sk))
			send_request(sk, conn, to, raw);
	}
	if (config.want & NETMON_WANT_FAIL) {
		e = new_event(sk, conn, to, NETMON_KIND_FAIL, now, raw);
		if (e) {
			e->error = error;
			put_duration(e, conn->since);
			send_event(e);
		}
	}
out:
	forget(sk);
}

#endif
