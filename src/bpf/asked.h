/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The target that connect() was asked for, if a cgroup program rewrote it.
 */
#ifndef __ASKED_H__
#define __ASKED_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include "consts.h"
#include "netmon.h"
#include "ring.h"
#include "read.h"
#include "attempt.h"
#include "syscall.h"
#include "conn.h"

/* The target in the memory of the current task; false unless it is in connect(). */
static __always_inline bool connect_target(struct target *to)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());

	return READ_SYSCALL_NR(regs) == SYS_CONNECT && !is_compat() &&
	       read_target(to, (void *)READ_SYSCALL_ARG(regs, 2), READ_SYSCALL_ARG(regs, 3), true);
}

/*
 * May a cgroup program other than ours have changed the target of connect()? Our own one notes the
 * target (attempt.h). Reading the caller's memory costs ten times as much as this.
 */
static __always_inline bool may_be_rewritten(const struct conn *conn)
{
	struct sock *sk = sock_at(conn->sk);
	struct bpf_prog_array_item *item;
	struct attempt *ours;
	void *effective;
	__u32 type;

	/* without CONFIG_CGROUP_BPF */
	if (!bpf_core_field_exists(struct cgroup, bpf.effective) ||
	    !bpf_core_field_exists(struct sock, sk_cgrp_data.cgroup))
		return true;
	type = FIELD(sk, __sk_common.skc_family) == AF_INET
		       ? bpf_core_enum_value(enum cgroup_bpf_attach_type, CGROUP_INET4_CONNECT)
		       : bpf_core_enum_value(enum cgroup_bpf_attach_type, CGROUP_INET6_CONNECT);
	/* READ() needs a structure: an element of this array starts as an item does. */
	effective = (void *)READ(sock, sk, sk_cgrp_data.cgroup) +
		    bpf_core_field_offset(struct cgroup, bpf.effective) + type * sizeof(void *);
	item = (void *)READ(bpf_prog_array_item, effective, prog) +
	       bpf_core_field_offset(struct bpf_prog_array, items);
	if (config.tracepoints && READ(bpf_prog_array_item, item, prog)) {
		ours = attempt_of(conn->cookie);
		if (ours && ours->cookie == conn->cookie)
			item = (void *)item + bpf_core_type_size(struct bpf_prog_array_item);
	}
	return READ(bpf_prog_array_item, item, prog);
}

/*
 * A cgroup program may have rewritten the target of connect(). The unspecified address is skipped:
 * it stands for this host.
 */
static __always_inline void report_asked(const struct conn *conn)
{
	struct netmon_event *e;
	struct target to;
	__be32 addr[4];

	if (conn->flags & NETMON_FLAG_MPTCP || !may_be_rewritten(conn) || !connect_target(&to))
		return;
	if (to.family == AF_INET)
		map_ipv4(addr, to.addr[0]);
	else
		__builtin_memcpy(addr, to.addr, sizeof(addr));
	if ((addr[0] == conn->flow.daddr[0] && addr[1] == conn->flow.daddr[1] &&
	     addr[2] == conn->flow.daddr[2] && addr[3] == conn->flow.daddr[3] &&
	     bpf_ntohs(to.port) == conn->flow.dport) ||
	    (!addr[0] && !addr[1] && !addr[3]))
		return;
	e = new_record(conn, NETMON_KIND_ASKED, conn->begun);
	if (!e)
		return;
	__builtin_memcpy(e->flow.daddr, addr, sizeof(addr));
	e->flow.dport = bpf_ntohs(to.port);
	send_event(e);
}

#endif
