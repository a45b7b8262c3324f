/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The target of a connect(): the socket does not have it yet when connect() is called, and no
 * longer has it after a failure.
 */
#ifndef __ATTEMPT_H__
#define __ATTEMPT_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "consts.h"
#include "ring.h"

/* struct sockaddr_in overlaid with sockaddr_in6 (ABI); addr[] takes either address */
struct target {
	__u16 family; /* AF_INET or AF_INET6 */
	__be16 port;
	__be32 ipv4;	/* sockaddr_in: the address; sockaddr_in6: flow information */
	__be32 addr[4]; /* IPv4 is in addr[0] */
};

/* Parse a socket address. False if it is not a valid IPv4 or IPv6 one. */
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
 * Tracepoint set: targets noted by the cgroup programs, indexed by socket cookie. A note lasts
 * until the call returns or another note replaces it.
 */
#define ATTEMPTS 4096

struct attempt {
	__u64 cookie; /* 0: free, or being written */
	struct target to;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ATTEMPTS);
	__type(key, __u32);
	__type(value, struct attempt);
} attempts SEC(".maps");

static __always_inline struct attempt *attempt_of(__u64 cookie)
{
	__u32 slot = cookie & (ATTEMPTS - 1);

	return bpf_map_lookup_elem(&attempts, &slot);
}

static __always_inline void note_attempt(struct bpf_sock_addr *ctx, const struct target *to)
{
	/* Generates the cookie if there is none yet; programs that run later cannot. */
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct attempt *noted = attempt_of(cookie);

	if (!noted)
		return;
	__sync_lock_test_and_set(&noted->cookie, 0);
	noted->to = *to;
	__sync_lock_test_and_set(&noted->cookie, cookie);
}

/* Take the target of an attempt that has just failed. Succeeds once. */
static __always_inline bool take_attempt(struct target *to, __u64 cookie)
{
	struct attempt *noted = attempt_of(cookie);

	if (!noted || !cookie || noted->cookie != cookie)
		return false;
	*to = noted->to;
	barrier();
	return __sync_val_compare_and_swap(&noted->cookie, cookie, 0) == cookie;
}

/* A state transition has reported the outcome: drop the note. */
static __always_inline void attempt_ended(__u64 cookie)
{
	bool notes = config.tracepoints && wants(NETMON_WANT_ATTEMPTS);
	struct attempt *noted = notes ? attempt_of(cookie) : NULL;

	if (noted && cookie && noted->cookie == cookie)
		__sync_val_compare_and_swap(&noted->cookie, cookie, 0);
}

#endif
