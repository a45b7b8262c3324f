/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The end of a connection: what it carried, and why it ended.
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

/* Of all subflows together, which since 6.5 the MPTCP socket counts itself. */
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
 * Payload only. bytes_acked counts the SYN of an outgoing connection (tcp_ack() moves snd_una
 * over it; for an incoming one it starts behind it) and both counters count the FIN. Sent and
 * not yet acknowledged is sent too. Our FIN is sent when snd_nxt has caught up with write_seq.
 */
static __always_inline void fill_counts(struct netmon_event *e, struct sock *sk, int oldstate,
					bool repair)
{
	bool fin_queued = oldstate == TCP_FIN_WAIT1 || oldstate == TCP_FIN_WAIT2 ||
			  oldstate == TCP_CLOSING || oldstate == TCP_LAST_ACK;
	__u64 sent, received;
	__u32 snd_nxt;

	snd_nxt = READ(tcp_sock, sk, snd_nxt);
	sent = READ(tcp_sock, sk, bytes_acked) + (__u32)(snd_nxt - READ(tcp_sock, sk, snd_una));
	if (e->flags & NETMON_FLAG_EGRESS && !repair && sent)
		sent--;
	if (fin_queued && snd_nxt == READ(tcp_sock, sk, write_seq) && sent)
		sent--;
	received = READ(tcp_sock, sk, bytes_received);
	if (READ(sock, sk, __sk_common.skc_flags) & (1UL << SOCK_DONE) && received)
		received--;
	e->bytes_sent = sent;
	e->bytes_received = received;
	e->retransmits = READ(tcp_sock, sk, total_retrans);
	e->srtt_us = READ(tcp_sock, sk, srtt_us) >> 3;
}

/*
 * sk_err, if it is what ended the connection. It may also be left from an ICMP message that
 * IP_RECVERR keeps there, or from a sockmap (EPIPE), and the connection was closed in order after
 * it, or its process sent a RST. tcp_reset() sets EPIPE in CLOSE_WAIT only.
 */
static __always_inline int ending_error(struct sock *sk, int oldstate, __u16 flags)
{
	int error = READ(sock, sk, sk_err);

	if (!error || error == ECONNRESET || error == ECONNABORTED || error == ETIMEDOUT ||
	    flags & NETMON_FLAG_MPTCP)
		return error;
	if (error == EPIPE && oldstate != TCP_CLOSE_WAIT)
		return 0;
	if (oldstate == TCP_ESTABLISHED || oldstate == TCP_CLOSE_WAIT) /* inside close()? */
		return READ(sock, sk, sk_shutdown) == SHUTDOWN_MASK && error != EPIPE ? 0 : error;
	/* Was all acknowledged, the FIN too? */
	return READ(tcp_sock, sk, snd_una) == READ(tcp_sock, sk, write_seq) ? 0 : error;
}

static __always_inline void send_close(struct sock *sk, const struct conn *conn, int oldstate)
{
	struct netmon_event *e;

	if (!(config.want & NETMON_WANT_CLOSE))
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
		fill_counts(e, sk, oldstate, conn->repair);
	if (!(e->flags & NETMON_FLAG_MPTCP) && TCP_BIT(sk, repair))
		e->flags |= NETMON_FLAG_REPAIR;
	/*
	 * Data that comes after close() is answered with RST, through the same tcp_reset() that a
	 * RST from the peer ends in (tcp_rcv_state_process()); only the count distinguishes them.
	 */
	if (e->error == ECONNRESET && (oldstate == TCP_FIN_WAIT1 || oldstate == TCP_FIN_WAIT2) &&
	    !(e->flags & NETMON_FLAG_MPTCP) &&
	    READ(tcp_sock, sk, data_segs_in) != conn->data_segs_in)
		e->flags |= NETMON_FLAG_ABORTED_DATA;
	send_event(e);
}

#endif
