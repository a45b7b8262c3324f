/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The filter asked of connections, when they open: a rejected one costs the look-ups it takes to
 * reject it and leaves nothing behind, not even the record of its process.
 */
#ifndef __ADMIT_H__
#define __ADMIT_H__

static __always_inline void put_mapped(__be32 *into, __be32 addr)
{
	into[0] = 0;
	into[1] = 0;
	into[2] = bpf_htonl(0xffff);
	into[3] = addr;
}

static __always_inline void put_flow(struct filter_flow *flow, struct sock *sk, struct target *to,
				     bool raw)
{
	flow->ipv6 = 0;
	if (get(sk, __sk_common.skc_family, raw) == AF_INET6) {
		bpf_core_read(flow->saddr, sizeof(flow->saddr), &sk->__sk_common.skc_v6_rcv_saddr);
		if (to)
			__builtin_memcpy(flow->daddr, to->addr, sizeof(flow->daddr));
		else
			bpf_core_read(flow->daddr, sizeof(flow->daddr),
				      &sk->__sk_common.skc_v6_daddr);
		flow->ipv6 =
			flow->daddr[0] || flow->daddr[1] || flow->daddr[2] != bpf_htonl(0xffff);
		if (!flow->ipv6)
			put_mapped(flow->saddr, flow->saddr[3]);
	} else {
		put_mapped(flow->saddr, get(sk, __sk_common.skc_rcv_saddr, raw));
		put_mapped(flow->daddr, to ? to->addr[0] : get(sk, __sk_common.skc_daddr, raw));
	}
	flow->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	flow->sport = bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport));
	flow->dport = bpf_ntohs(to ? to->port : get(sk, __sk_common.skc_dport, raw));
}

/*
 * Is it anybody's? `current`: the current process is the owner, or else `task`; NULL: nobody is,
 * and then a filter that asks for the process is not met.
 */
static __always_inline bool judge_owner(__u32 slot, struct filter_scratch *s, bool current,
					struct task_struct *task)
{
	filter_all(&s->left);
	if (!(filter.fields & FILTER_PROCESS))
		return true;
	if (current)
		return judge_current(slot);
	return task && judge_task(s, task);
}

static __always_inline bool admit_in(__u32 slot, struct sock *sk, struct conn *conn,
				     struct target *to, bool raw, bool current,
				     struct task_struct *task)
{
	struct filter_scratch *s = bpf_map_lookup_elem(&filter_scratches, &slot);
	__u64 key = (__u64)sk;
	int verdict;

	if (!s || !judge_owner(slot, s, current, task))
		return false;
	put_flow(&s->flow, sk, to, raw);
	s->flow.ingress = !(conn->flags & NETMON_FLAG_EGRESS);
	/* The port is bound after SYN_SENT, where the caller has not done so. */
	s->flow.port_pending = filter_uses(FILTER_SPORT) && !s->flow.sport && !to;
	verdict = judge_flow(slot);
	if (verdict == FILTER_REJECTED)
		return false;
	if (!s->flow.port_pending) {
		conn->rule = verdict;
		return true;
	}
	conn->phase = PHASE_UNJUDGED;
	if (bpf_map_update_elem(&filter_pending, &key, &s->left, BPF_ANY) == 0)
		return true;
	count_lost(NETMON_LOST_TABLE);
	return false;
}

static __always_inline void give_slot(__u32 slot)
{
	struct filter_scratch *s = bpf_map_lookup_elem(&filter_scratches, &slot);

	if (s)
		s->busy = 0;
}

/*
 * Does the connection that the current task opens or accepts get past the filter? Then `conn`
 * knows under which rule, or that its local port has still to be asked for.
 */
static __always_inline bool admit(struct sock *sk, struct conn *conn, struct target *to, __u32 slot,
				  bool raw)
{
	bool admitted;

	if (!started || !is_followed())
		return false;
	if (!filter.fields)
		return true;
	slot = take_slot(slot);
	admitted = admit_in(slot, sk, conn, to, raw, true, NULL);
	give_slot(slot);
	return admitted;
}

/* The same of a socket that was found; `task` has a descriptor of it, NULL: nobody may. */
static __always_inline bool admit_existing(struct sock *sk, struct conn *conn,
					   struct task_struct *task)
{
	bool admitted;
	__u32 slot;

	if (!filter.fields)
		return true;
	slot = take_slot(SCRATCH_RESULT);
	admitted = admit_in(slot, sk, conn, NULL, false, false, task);
	give_slot(slot);
	return admitted;
}

/*
 * A child of a listener: by whom it will be accepted is not known, but maybe the rest says
 * already that it will not matter.
 */
static __always_inline bool admit_child(struct sock *sk)
{
	struct filter_scratch *s;
	bool admitted = true;
	__u32 slot;

	if (!started)
		return false;
	if (!(filter.fields & ~FILTER_PROCESS))
		return true;
	slot = take_slot(SCRATCH_CLOSE);
	s = bpf_map_lookup_elem(&filter_scratches, &slot);
	if (s) {
		filter_all(&s->left);
		put_flow(&s->flow, sk, NULL, false);
		s->flow.ingress = 1;
		s->flow.port_pending = 0;
		admitted = judge_flow(slot) != FILTER_REJECTED;
		s->busy = 0;
	}
	return admitted;
}

/* What is left of a socket, or there yet, and belongs to nobody: the event knows all of it. */
static __always_inline bool admit_remains(const struct netmon_event *e, bool ingress)
{
	const __be32 *saddr = (const __be32 *)e->saddr, *daddr = (const __be32 *)e->daddr;
	struct filter_scratch *s;
	bool admitted = false;
	__u32 slot;

	if (!filter.fields)
		return true;
	if (filter.fields & FILTER_PROCESS)
		return false;
	slot = take_slot(SCRATCH_RESULT);
	s = bpf_map_lookup_elem(&filter_scratches, &slot);
	if (s) {
		filter_all(&s->left);
		s->flow.ipv6 = e->family == 6;
		if (s->flow.ipv6) {
			__builtin_memcpy(s->flow.saddr, saddr, sizeof(s->flow.saddr));
			__builtin_memcpy(s->flow.daddr, daddr, sizeof(s->flow.daddr));
		} else {
			put_mapped(s->flow.saddr, saddr[0]);
			put_mapped(s->flow.daddr, daddr[0]);
		}
		s->flow.sport = e->sport;
		s->flow.dport = e->dport;
		s->flow.netns = e->netns;
		s->flow.ingress = ingress;
		s->flow.port_pending = 0;
		admitted = judge_flow(slot) != FILTER_REJECTED;
		s->busy = 0;
	}
	return admitted;
}

/* The local port is final. False, and forgotten, if the connection is rejected for it. */
static __always_inline bool settle(struct sock *sk, struct conn *conn)
{
	int verdict = FILTER_REJECTED;
	__u64 key = (__u64)sk;
	struct filter_set *left;

	if (!filter_uses(FILTER_SPORT) || conn->phase != PHASE_UNJUDGED)
		return true;
	left = bpf_map_lookup_elem(&filter_pending, &key);
	if (left) {
		filter_port(left, FILTER_SPORT,
			    bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport)));
		verdict = filter_verdict(left);
		bpf_map_delete_elem(&filter_pending, &key);
	}
	if (verdict == FILTER_REJECTED) {
		forget(sk);
		return false;
	}
	conn->phase = PHASE_OPENING;
	conn->rule = verdict;
	return true;
}

#endif
