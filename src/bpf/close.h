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
					bool raw)
{
	struct tcp_sock *tp = tcp_of(sk, raw);
	bool fin_queued = oldstate == TCP_FIN_WAIT1 || oldstate == TCP_FIN_WAIT2 ||
			  oldstate == TCP_CLOSING || oldstate == TCP_LAST_ACK;
	__u64 sent, received;
	__u32 snd_nxt;

	if (e->flags & NETMON_FLAG_MPTCP) {
		fill_mptcp_counts(e, sk);
		return;
	}
	if (!tp)
		return;
	snd_nxt = sk_read(tp, snd_nxt, raw);
	sent = sk_read(tp, bytes_acked, raw) + (__u32)(snd_nxt - sk_read(tp, snd_una, raw));
	if (e->flags & NETMON_FLAG_EGRESS && sent)
		sent--;
	if (fin_queued && snd_nxt == sk_read(tp, write_seq, raw) && sent)
		sent--;
	received = sk_read(tp, bytes_received, raw);
	if (sk_read(sk, __sk_common.skc_flags, raw) & (1UL << SOCK_DONE) && received)
		received--;
	e->bytes_sent = sent;
	e->bytes_received = received;
	e->retransmits = sk_read(tp, total_retrans, raw);
	e->srtt_us = sk_read(tp, srtt_us, raw) >> 3;
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
	e->error = sk_read(sk, sk_err, raw);
	e->closer = conn->closer;
	fill_duration(e, conn->since);
	fill_counts(e, sk, oldstate, raw);
	/*
	 * Data that comes after close() is answered with RST, through the same tcp_reset() that a
	 * RST from the peer ends in (tcp_rcv_state_process()); only the count tells them apart.
	 */
	if (e->error == ECONNRESET && (oldstate == TCP_FIN_WAIT1 || oldstate == TCP_FIN_WAIT2)) {
		tp = tcp_of(sk, raw);
		if (tp && sk_read(tp, data_segs_in, raw) != conn->data_segs_in)
			e->flags |= NETMON_FLAG_ABORTED_DATA;
	}
	send_event(e);
}

#endif
