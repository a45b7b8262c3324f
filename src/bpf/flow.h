/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Addresses and ports of a connection, read from its socket.
 */
#ifndef __FLOW_H__
#define __FLOW_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include "consts.h"
#include "netmon.h"
#include "read.h"
#include "attempt.h"

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

/* IPv6 addresses, or the mapped addresses of an IPv4 connection on an IPv6 socket. */
static __always_inline void fill_ipv6(struct flow *flow, const struct sock_common *skc,
				      const struct target *to)
{
	bpf_core_read(flow->saddr, sizeof(flow->saddr), &skc->skc_v6_rcv_saddr);
	if (to)
		__builtin_memcpy(flow->daddr, to->addr, sizeof(flow->daddr));
	else
		bpf_core_read(flow->daddr, sizeof(flow->daddr), &skc->skc_v6_daddr);
	/* the local address may still be :: */
	if (is_ipv4(flow))
		map_ipv4(flow->saddr, flow->saddr[3]);
}

/* Not skc_num, which is already 0 when a socket closes. */
static __always_inline __u16 local_port(struct sock *sk)
{
	return bpf_ntohs(READ(inet_sock, sk, inet_sport));
}

/* `to`, if given, replaces the socket's remote end. */
static __always_inline void fill_flow(struct flow *flow, struct sock *sk, const struct target *to)
{
	struct net *net = READ(sock, sk, __sk_common.skc_net.net);

	if ((to ? to->family : FIELD(sk, __sk_common.skc_family)) == AF_INET6) {
		fill_ipv6(flow, &sk->__sk_common, to);
	} else {
		map_ipv4(flow->saddr, FIELD(sk, __sk_common.skc_rcv_saddr));
		map_ipv4(flow->daddr, to ? to->addr[0] : FIELD(sk, __sk_common.skc_daddr));
	}
	flow->netns = READ(net, net, ns.inum);
	flow->sport = local_port(sk);
	flow->dport = bpf_ntohs(to ? to->port : FIELD(sk, __sk_common.skc_dport));
}

/* Same for timewait and request sockets, which have only a sock_common. */
static __always_inline void fill_common_flow(struct flow *flow, struct sock_common *skc)
{
	struct net *net = READ(sock_common, skc, skc_net.net);

	if (skc->skc_family == AF_INET6) {
		fill_ipv6(flow, skc, NULL);
	} else {
		map_ipv4(flow->saddr, skc->skc_rcv_saddr);
		map_ipv4(flow->daddr, skc->skc_daddr);
	}
	flow->netns = READ(net, net, ns.inum);
	flow->sport = skc->skc_num;
	flow->dport = bpf_ntohs(skc->skc_dport);
}

#endif
