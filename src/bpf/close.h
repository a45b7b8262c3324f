/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The end of a connection: what it transferred, and why it ended.
 */
#ifndef __CLOSE_H__
#define __CLOSE_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "consts.h"
#include "netmon.h"
#include "ring.h"
#include "read.h"
#include "conn.h"

/* Totals over all subflows, which the MPTCP socket has kept since 6.5. */
static __always_inline void fill_mptcp_counts(struct netmon_event *e, struct sock *sk)
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
 * Payload only. bytes_acked includes the SYN of an outgoing connection (tcp_ack() moves snd_una
 * past it; on an incoming one snd_una starts past it), and both counters include the FIN. Data that
 * was sent but not acknowledged counts as sent. Our FIN has been sent once snd_nxt has caught up
 * with write_seq.
 */
static __always_inline void fill_counts(struct netmon_event *e, const struct tcp_sock *tp,
					int oldstate, bool repair)
{
	bool fin_queued = oldstate == TCP_FIN_WAIT1 || oldstate == TCP_FIN_WAIT2 ||
			  oldstate == TCP_CLOSING || oldstate == TCP_LAST_ACK;
	__u64 sent, received;
	__u32 snd_nxt;

	snd_nxt = FIELD(tp, snd_nxt);
	sent = FIELD(tp, bytes_acked) + (__u32)(snd_nxt - FIELD(tp, snd_una));
	if (e->flags & NETMON_FLAG_EGRESS && !repair && sent)
		sent--;
	if (fin_queued && snd_nxt == FIELD(tp, write_seq) && sent)
		sent--;
	received = FIELD(tp, bytes_received);
	if (FIELD(tp, inet_conn.icsk_inet.sk.__sk_common.skc_flags) & (1UL << SOCK_DONE) &&
	    received)
		received--;
	e->bytes_sent = sent;
	e->bytes_received = received;
	e->retransmits = FIELD(tp, total_retrans);
	e->srtt_us = FIELD(tp, srtt_us) >> 3;
}

/*
 * sk_err, if it is what ended the connection. It may be stale: set earlier by an ICMP error that
 * IP_RECVERR kept or by a sockmap (EPIPE), after which the connection was closed in an orderly way
 * or reset by its own process. tcp_reset() sets EPIPE in CLOSE_WAIT only.
 */
static __always_inline int ending_error(struct sock *sk, int oldstate, __u16 flags)
{
	int error = FIELD(sk, sk_err);

	if (!error || error == ECONNRESET || error == ECONNABORTED || error == ETIMEDOUT ||
	    flags & NETMON_FLAG_MPTCP)
		return error;
	if (error == EPIPE && oldstate != TCP_CLOSE_WAIT)
		return 0;
	if (oldstate == TCP_ESTABLISHED || oldstate == TCP_CLOSE_WAIT) /* inside close()? */
		return FIELD(sk, sk_shutdown) == SHUTDOWN_MASK && error != EPIPE ? 0 : error;
	/* Orderly if everything was acknowledged, including our FIN. */
	return READ(tcp_sock, sk, snd_una) == READ(tcp_sock, sk, write_seq) ? 0 : error;
}

static __always_inline void send_close(struct sock *sk, const struct conn *conn, int oldstate)
{
	struct tcp_sock *tp = AT(tcp_sock, sk);
	struct netmon_event *e;

	if (!wants(NETMON_WANT_CLOSE))
		return;
	e = new_event(conn, NETMON_KIND_CLOSE, bpf_ktime_get_boot_ns());
	if (!e)
		return;
	e->states = oldstate | TCP_CLOSE << 4;
	e->error = ending_error(sk, oldstate, e->flags);
	e->closer = conn->closer;
	fill_duration(e, conn->since);
	if (e->flags & NETMON_FLAG_MPTCP)
		fill_mptcp_counts(e, sk);
	else
		fill_counts(e, tp, oldstate, conn->repair);
	if (!(e->flags & NETMON_FLAG_MPTCP) && TCP_BIT(tp, repair))
		e->flags |= NETMON_FLAG_REPAIR;
	/*
	 * Data that arrives after close() is answered with a RST, and takes the same path through
	 * tcp_reset() as a RST from the peer (tcp_rcv_state_process()). Only data_segs_in tells the
	 * two apart.
	 */
	if (e->error == ECONNRESET && (oldstate == TCP_FIN_WAIT1 || oldstate == TCP_FIN_WAIT2) &&
	    !(e->flags & NETMON_FLAG_MPTCP) && FIELD(tp, data_segs_in) != conn->data_segs_in)
		e->flags |= NETMON_FLAG_ABORTED_DATA;
	send_event(e);
}

#endif
