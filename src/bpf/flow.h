/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Both ends of a connection, read from its socket.
 */
#ifndef __FLOW_H__
#define __FLOW_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include "consts.h"
#include "netmon.h"
#include "attempt.h"

/*
 * A socket comes either as the verifier's own pointer, which can be read at once, or (`raw`) from
 * a file table, as a number that can only be probed.
 */
#define sk_read(sk, field, raw) ((raw) ? BPF_CORE_READ(sk, field) : (sk)->field)

static __always_inline struct tcp_sock *tcp_of(struct sock *sk, bool raw)
{
	return raw ? (struct tcp_sock *)sk : bpf_skc_to_tcp_sock(sk);
}

static __always_inline void map_ipv4(__be32 *into, __be32 addr)
{
	into[0] = 0;
	into[1] = 0;
	into[2] = bpf_htonl(0xffff);
	into[3] = addr;
}

static __always_inline bool is_ipv4(const struct flow *flow)
{
	return !flow->daddr[0] && !flow->daddr[1] && flow->daddr[2] == bpf_htonl(0xffff);
}

/* IPv6 addresses as they are, and those of an IPv4 connection through an IPv6 socket. */
static __always_inline void fill_ipv6(struct flow *flow, const struct sock_common *skc,
				      const struct target *to)
{
	bpf_core_read(flow->saddr, sizeof(flow->saddr), &skc->skc_v6_rcv_saddr);
	if (to)
		__builtin_memcpy(flow->daddr, to->addr, sizeof(flow->daddr));
	else
		bpf_core_read(flow->daddr, sizeof(flow->daddr), &skc->skc_v6_daddr);
	/* the local one may be unspecified */
	if (is_ipv4(flow))
		map_ipv4(flow->saddr, flow->saddr[3]);
}

/*
 * Both ends; the remote one is `to`'s if given. The local port is inet_sport: skc_num is already
 * 0 when a socket closes.
 */
static __always_inline void fill_flow(struct flow *flow, struct sock *sk, const struct target *to,
				      bool raw)
{
	if ((to ? to->family : sk_read(sk, __sk_common.skc_family, raw)) == AF_INET6) {
		fill_ipv6(flow, &sk->__sk_common, to);
	} else {
		map_ipv4(flow->saddr, sk_read(sk, __sk_common.skc_rcv_saddr, raw));
		map_ipv4(flow->daddr, to ? to->addr[0] : sk_read(sk, __sk_common.skc_daddr, raw));
	}
	/* Not through the verifier's pointer: it takes a millisecond to look into what that is. */
	flow->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	flow->sport = bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport));
	flow->dport = bpf_ntohs(to ? to->port : sk_read(sk, __sk_common.skc_dport, raw));
}

/* The same of what has no more than this: TIME_WAIT, and requests. */
static __always_inline void fill_common_flow(struct flow *flow, struct sock_common *skc)
{
	if (skc->skc_family == AF_INET6) {
		fill_ipv6(flow, skc, NULL);
	} else {
		map_ipv4(flow->saddr, skc->skc_rcv_saddr);
		map_ipv4(flow->daddr, skc->skc_daddr);
	}
	flow->netns = skc->skc_net.net->ns.inum;
	flow->sport = skc->skc_num;
	flow->dport = bpf_ntohs(skc->skc_dport);
}

#endif
