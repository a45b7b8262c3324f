/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * -e request: every attempt to connect a TCP socket, whatever its outcome. Calling connect() again
 * while an attempt is in progress only asks for its status, which is what io_uring always does.
 *
 * Connections that begin without connect() are reported when they begin: sendto() with
 * MSG_FASTOPEN, and io_uring if only the system call is traced.
 */
#ifndef __REQUEST_H__
#define __REQUEST_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "consts.h"
#include "netmon.h"
#include "ring.h"
#include "read.h"
#include "attempt.h"

/* Tracepoint set: threads inside connect(). */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, __u8);
} connecting SEC(".maps");

static __always_inline void call_begins(void)
{
	__u64 key = bpf_get_current_pid_tgid();
	__u8 value = 1;

	bpf_map_update_elem(&connecting, &key, &value, BPF_ANY);
}

static __always_inline void call_ended(void)
{
	__u64 key;

	if (!wants(NETMON_WANT_REQUEST))
		return;
	key = bpf_get_current_pid_tgid();
	bpf_map_delete_elem(&connecting, &key);
}

static __always_inline bool is_under_way(struct sock *sk)
{
	return READ(socket, READ(sock, sk, sk_socket), state) == SS_CONNECTING;
}

/*
 * A connection begins or fails in the current task: was its request already reported, or is none
 * wanted? tcp_sendmsg_fastopen() sets fastopen_req before it connects; connect() with
 * TCP_FASTOPEN_CONNECT sets it afterwards.
 */
static __always_inline bool is_announced(struct sock *sk)
{
	void *fastopen;
	__u64 key;

	/* MPTCP does not have its target yet. */
	if (!wants(NETMON_WANT_REQUEST) || FIELD(sk, sk_protocol) != IPPROTO_TCP)
		return true;
	if (config.tracepoints) {
		key = bpf_get_current_pid_tgid();
		return bpf_map_lookup_elem(&connecting, &key) != NULL;
	}
	fastopen = READ(tcp_sock, sk, fastopen_req);
	return !fastopen;
}

#endif
