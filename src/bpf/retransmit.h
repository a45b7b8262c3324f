/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * -e retransmit and -e drop: trouble with single segments. Rare, and not always under the socket
 * lock: entries are read here but never modified.
 */
#ifndef __RETRANSMIT_H__
#define __RETRANSMIT_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include "consts.h"
#include "netmon.h"
#include "read.h"
#include "flow.h"
#include "filter_conn.h"
#include "conn.h"
#include "existing.h"

/* tcp_send_loss_probe() has its own timer, and does not run during loss recovery. */
static __always_inline bool is_loss_probe(struct sock *sk)
{
	struct inet_connection_sock *icsk = (struct inet_connection_sock *)sk;

	return READ(inet_connection_sock, sk, icsk_pending) == ICSK_TIME_LOSS_PROBE &&
	       BPF_CORE_READ_BITFIELD_PROBED(icsk, icsk_ca_state) < TCP_CA_RECOVERY;
}

static __always_inline int segment_of(struct sock *sk, __u8 flags, __u32 len)
{
	if (flags & TCPHDR_SYN)
		return NETMON_SEGMENT_SYN;
	if (is_loss_probe(sk))
		return NETMON_SEGMENT_PROBE;
	return flags & TCPHDR_FIN && len == 1 ? NETMON_SEGMENT_FIN : NETMON_SEGMENT_DATA;
}

static __always_inline void send_retransmit(const struct conn *conn, struct sock *sk,
					    struct sk_buff *skb)
{
	struct netmon_event *e = new_event(conn, NETMON_KIND_RETRANSMIT, bpf_ktime_get_boot_ns());
	struct tcp_skb_cb cb = {};

	if (!e)
		return;
	bpf_core_read(&cb.seq, sizeof(cb.seq), &((struct tcp_skb_cb *)&skb->cb)->seq);
	bpf_core_read(&cb.end_seq, sizeof(cb.end_seq), &((struct tcp_skb_cb *)&skb->cb)->end_seq);
	bpf_core_read(&cb.tcp_flags, 1, &((struct tcp_skb_cb *)&skb->cb)->tcp_flags);
	if (!e->flow.sport)
		e->flow.sport = local_port(sk);
	e->states = sk->__sk_common.skc_state << 4;
	e->seq = cb.seq;
	e->seq_len = cb.end_seq - cb.seq;
	e->segment = segment_of(sk, cb.tcp_flags, e->seq_len);
	e->retransmits = READ(tcp_sock, sk, total_retrans);
	send_event(e);
}

/* A child in its listener's accept queue has no owner yet. */
static __noinline void send_unowned_retransmit(struct sock *sk, struct sk_buff *skb)
{
	struct conn conn = {};

	conn.cookie = cookie_now(sk);
	conn.flags = flags_of(sk);
	conn.ifindex = ifindex_of(sk);
	conn.begun = bpf_ktime_get_boot_ns();
	fill_flow(&conn.flow, sk, NULL);
	if (admit_unowned(sk, &conn))
		send_retransmit(&conn, sk, skb);
}

/* For MPTCP, `sk` is the subflow that retransmits. */
static __always_inline void handle_retransmit(struct sock *sk, struct sk_buff *skb)
{
	struct sock *msk = msk_of(sk);
	struct conn *conn = conn_of(msk ? msk : sock_at((__u64)sk));

	if (!started || !skb)
		return;
	if (!conn) {
		if (!msk && !follow && is_passive(sk) && is_waiting(sk))
			send_unowned_retransmit(sk, skb);
	} else if (conn->phase == PHASE_OPENING || conn->phase == PHASE_OPEN) {
		send_retransmit(conn, sk, skb);
	}
}

/* A SYN is answered by a request socket, which is not a full socket yet and has no owner. */
static __always_inline void handle_retransmit_synack(struct request_sock *req)
{
	struct conn conn = {};
	struct netmon_event *e;

	if (!started || follow)
		return;
	conn.begun = bpf_ktime_get_boot_ns();
	conn.cookie = READ(request_sock, req, __req_common.skc_cookie.counter);
	fill_common_flow(&conn.flow, &req->__req_common);
	if (!admit_unowned((struct sock *)req, &conn))
		return;
	e = new_event(&conn, NETMON_KIND_RETRANSMIT, conn.begun);
	if (!e)
		return;
	e->states = TCP_SYN_RECV << 4;
	e->segment = NETMON_SEGMENT_SYN_ACK;
	e->retransmits = READ(request_sock, req, num_retrans) + 1;
	send_event(e);
}

/* Addresses and ports of a received segment, from the listener's point of view. */
static __always_inline void fill_segment_flow(struct flow *flow, struct sk_buff *skb)
{
	unsigned char *head = READ(sk_buff, skb, head);
	unsigned char *ip = head + READ(sk_buff, skb, network_header);
	unsigned char *tcp = head + READ(sk_buff, skb, transport_header);
	__be16 ports[2] = {};
	__be32 addrs[2] = {};
	__u8 version = 0;

	bpf_probe_read_kernel(&version, 1, ip);
	if (version >> 4 == 4) {
		bpf_probe_read_kernel(addrs, sizeof(addrs), ip + 12);
		map_ipv4(flow->daddr, addrs[0]);
		map_ipv4(flow->saddr, addrs[1]);
	} else {
		bpf_probe_read_kernel(flow->daddr, 16, ip + 8);
		bpf_probe_read_kernel(flow->saddr, 16, ip + 24);
	}
	bpf_probe_read_kernel(ports, sizeof(ports), tcp);
	flow->dport = bpf_ntohs(ports[0]);
	flow->sport = bpf_ntohs(ports[1]);
}

/*
 * The last segment of a handshake, or data after it, dropped by tcp_check_req() because the accept
 * queue is full. The peer believes that it is connected, and retransmits.
 */
static __always_inline void handle_drop(struct sock *listener, struct sk_buff *skb)
{
	struct sock *msk = msk_of(listener);
	struct conn *conn = conn_of(msk ? msk : sock_at((__u64)listener));
	struct netmon_event *e;

	if (!conn || conn->phase != PHASE_LISTEN)
		return;
	e = new_event(conn, NETMON_KIND_DROP, bpf_ktime_get_boot_ns());
	if (!e)
		return;
	fill_segment_flow(&e->flow, skb);
	fill_backlog(e, listener);
	send_event(e);
}

#endif
