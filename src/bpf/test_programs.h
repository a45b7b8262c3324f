/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Programs for the tests (cargo feature `test-programs`). tcptrace does not attach them; the filter
 * programs are run with BPF_PROG_TEST_RUN on made-up cases.
 */
#ifndef __TEST_PROGRAMS_H__
#define __TEST_PROGRAMS_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "netmon.h"
#include "filter.h"
#include "filter_process.h"

/* A made-up process and its connection. */
struct filter_case {
	struct filter_who who;
	struct filter_flow flow;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct filter_case);
} filter_cases SEC(".maps");

SEC("?tc")
int on_filter_case(struct __sk_buff *skb)
{
	struct filter_set left;
	struct filter_case *c;
	__u32 key = 0;

	c = bpf_map_lookup_elem(&filter_cases, &key);
	if (!c)
		return -2;
	filter_all(&left);
	filter_evaluate_who(&left, &c->who);
	filter_evaluate_flow(&left, &c->flow);
	filter_port(&left, FILTER_SPORT, c->flow.ends.sport);
	return filter_verdict(&left);
}

/* Cgroup names from the innermost up to the root: cgroup2, an empty name, cgroup v1. */
struct container_case {
	__u8 name[NETMON_CGROUP_PARTS][NETMON_NAME_MAX];
	__u8 container[FILTER_TEXT_MAX + 1]; /* result */
	__u8 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct container_case);
} container_cases SEC(".maps");

/* Returns 1 if the cgroup is a container's. */
SEC("?tc")
int on_container_case(struct __sk_buff *skb)
{
	struct filter_scratch *s;
	struct container_case *c;
	__u32 i, key = 0;
	bool found = false;
	const void *name;
	__u64 address;

	c = bpf_map_lookup_elem(&container_cases, &key);
	s = bpf_map_lookup_elem(&filter_scratches, &key);
	if (!c || !s)
		return -2;
	__builtin_memset(s->who.container.text, 0, sizeof(s->who.container.text));
	s->supervised = 0;
	for (i = 0; i < NETMON_CGROUP_PARTS && !found; i++) {
		/* a scalar: read from memory, the pointer is not one to the verifier */
		name = c->name[i];
		bpf_probe_read_kernel(&address, sizeof(address), &name);
		found = fill_container_of(s, address);
	}
	bpf_probe_read_kernel(c->container, sizeof(c->container), s->who.container.text);
	return found;
}

_Static_assert(sizeof(struct container_case) == NETMON_CGROUP_PARTS * NETMON_NAME_MAX + 256,
	       "container_case has no padding");

/* Stands in for another tool: 198.51.100.1 goes to 127.0.0.1, 198.51.100.2 is refused. */
SEC("?cgroup/connect4")
int on_test_connect(struct bpf_sock_addr *ctx)
{
	if (ctx->user_ip4 == bpf_htonl(0xc6336401))
		ctx->user_ip4 = bpf_htonl(0x7f000001);
	return ctx->user_ip4 != bpf_htonl(0xc6336402);
}

/* include/uapi/linux/bpf.h; rewritten by the verifier */
struct bpf_sk_lookup {
	__u64 cookie;
	__u32 family;
	__u32 protocol;
	__u32 remote_ip4;
	__u32 remote_ip6[4];
	__u32 remote_port;
	__u32 local_ip4;
	__u32 local_ip6[4];
	__u32 local_port;
	__u32 ingress_ifindex;
};

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} test_listeners SEC(".maps");

/* Connections to port 1 are for a listener on another port. */
SEC("?sk_lookup")
int on_test_lookup(struct bpf_sk_lookup *ctx)
{
	struct bpf_sock *listener;
	__u32 key = 0;

	if (ctx->local_port != 1)
		return 1;
	listener = bpf_map_lookup_elem(&test_listeners, &key);
	if (!listener)
		return 1;
	bpf_sk_assign(ctx, listener, 0);
	bpf_sk_release(listener);
	return 1;
}

__u32 test_losses = 0;

/* Drops the first large packet. */
SEC("?cgroup_skb/ingress")
int on_test_loss(struct __sk_buff *skb)
{
	return skb->len < 1000 || __sync_fetch_and_add(&test_losses, 1) > 0;
}

#endif
