/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Where a connect() is to go: what the socket does not know yet when it is called, and not any
 * more once it has failed.
 */
#ifndef __ATTEMPT_H__
#define __ATTEMPT_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "consts.h"
#include "ring.h"

#define MAX_ATTEMPTS 8192

/* struct sockaddr_in and sockaddr_in6 laid over each other (ABI), with one place for both */
struct target {
	__u16 family; /* AF_INET or AF_INET6 */
	__be16 port;
	__be32 ipv4;	/* in an address; or IPv6 flow information */
	__be32 addr[4]; /* IPv4 in the first */
};

/* The target an address names; false if it is none that TCP knows. */
static __always_inline bool read_target(struct target *to, const void *address, __u64 len,
					bool from_user)
{
	__u32 size = len >= SOCKADDR_IN6_LEN ? SOCKADDR_IN6_LEN : SOCKADDR_IN_LEN;

	if (len < SOCKADDR_IN_LEN)
		return false;
	if (from_user ? bpf_probe_read_user(to, size, address)
		      : bpf_probe_read_kernel(to, size, address))
		return false;
	if (to->family == AF_INET)
		to->addr[0] = to->ipv4;
	return to->family == AF_INET || (to->family == AF_INET6 && len >= SOCKADDR_IN6_LEN);
}

/*
 * The tracepoint set notes the target where cgroup programs see it, keyed by the socket. An entry
 * dies when the connection's state tells its fate or the call returns; calls whose return is not
 * watched (sendto() with MSG_FASTOPEN) leave theirs to be displaced.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_ATTEMPTS);
	__type(key, __u64);
	__type(value, struct target);
} attempts SEC(".maps");

static __always_inline void attempt_begins(struct bpf_sock_addr *ctx, struct target *to)
{
	__u64 key = ctx->sk_bits;

	/* A cookie is made when it is first asked for, and later nobody here can ask. */
	bpf_get_socket_cookie(ctx);
	bpf_map_update_elem(&attempts, &key, to, BPF_ANY);
}

static __always_inline void attempt_ended(struct sock *sk)
{
	__u64 key = (__u64)sk;

	if (config.tracepoints)
		bpf_map_delete_elem(&attempts, &key);
}

#endif
