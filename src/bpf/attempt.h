/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Where a connect() was to go: what the socket does not know any more once it has failed.
 */
#ifndef __ATTEMPT_H__
#define __ATTEMPT_H__

#define MAX_ATTEMPTS 8192

struct target {
	__be32 addr[4]; /* IPv4 in the first */
	__u16 family;	/* AF_INET or AF_INET6 */
	__be16 port;
};

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
