/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Arguments of connect(), and results of connect() and accept(), for both probe sets.
 */
#ifndef __RETURNS_H__
#define __RETURNS_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "consts.h"
#include "read.h"
#include "file.h"
#include "attempt.h"
#include "request.h"
#include "conn.h"
#include "socket.h"

/* Runs in the task that calls connect(). AF_UNSPEC disconnects, and is ignored. */
static __always_inline void handle_connect_call(struct sock *sk, const void *address, int len,
						bool from_user)
{
	struct conn conn = {.sk = (__u64)sk};
	struct target to = {};
	int index;

	if (!sk || !is_tcp(sk) || is_under_way(sk) || len < 0 ||
	    !read_target(&to, address, len, from_user))
		return;
	index = admit_current();
	if (index == NOT_ADMITTED)
		return;
	conn.flags = NETMON_FLAG_EGRESS | flags_of(sk);
	conn.cookie = cookie_now(sk);
	fill_flow(&conn.flow, sk, &to);
	if (!admit_flow(index, sk, &conn, true))
		return;
	conn.begun = bpf_ktime_get_boot_ns();
	set_owner(&conn);
	send_request(&conn);
}

/* Not inlined, so that its locals do not take stack space during set_owner(). */
static __noinline bool prepare_return(struct conn *conn, struct sock *sk,
				      const struct sockaddr *address, int len, int error)
{
	struct target to = {};

	return is_tcp(sk) && read_target(&to, address, len, false) &&
	       prepare_failed(conn, &to, error);
}

/* Trampoline set: `addr` is the kernel's copy, and the socket is locked. */
static __always_inline void handle_connect_return(struct sock *sk, struct sockaddr *addr,
						  int addr_len, int error)
{
	struct conn conn = {.sk = (__u64)sk};

	if (FIELD(sk, sk_protocol) == IPPROTO_TCP && is_subflow(sk)) {
		note_subflow_failure(sk, error);
		return;
	}
	if (!prepare_return(&conn, sk, addr, addr_len, error))
		return;
	set_owner(&conn);
	report_failed(&conn, error);
}

/*
 * Did a security module refuse the call? Then no cgroup program has run, so there is no note, and
 * the socket is unchanged. But a note may also have been overwritten, and a state transition may
 * already have reported the outcome. Not so if write_seq is 0: the first SYN sets it, and nothing
 * clears it. EPERM and EACCES never come from the network, except for EACCES over IPv6.
 */
static __always_inline bool is_refused(struct sock *sk, int error)
{
	if (FIELD(sk, __sk_common.skc_state) != TCP_CLOSE)
		return false;
	if (error == EPERM || (error == EACCES && FIELD(sk, __sk_common.skc_family) == AF_INET))
		return true;
	return !is_mptcp(sk) && !READ(tcp_sock, sk, write_seq) && error != EINVAL;
}

/*
 * Tracepoint set: the call failed. Once a SYN has been sent, the outcome is reported by the state
 * transition, whatever the call returns. `address` is in the caller's memory, or 0. A global
 * function.
 */
__noinline int prepare_attempt(struct conn *conn, int error, __u64 address, int len)
{
	struct target to = {};
	struct sock *sk;
	bool known;

	if (!conn || error == EINPROGRESS || error == EALREADY || error == EISCONN ||
	    error == EINTR || error >= ERESTARTSYS)
		return false;
	sk = sock_at(conn->sk);
	if (!is_tcp(sk))
		return false;
	known = take_attempt(&to, cookie_now(sk)) || (address && len > 0 && is_refused(sk, error) &&
						      read_target(&to, (void *)address, len, true));
	return prepare_failed(conn, known ? &to : NULL, error);
}

static __always_inline void handle_attempt_failed(struct sock *sk, int error, const void *address,
						  int len)
{
	struct conn conn = {.sk = (__u64)sk};

	if (!sk || !prepare_attempt(&conn, error, (__u64)address, len))
		return;
	set_owner(&conn);
	report_failed(&conn, error);
}

static __always_inline void handle_accept_return(long fd, struct sock *listener)
{
	struct sock *sk = fd < 0 ? NULL : sock_of_fd(fd);

	if (sk && is_tcp(sk))
		handle_accepted(sk, listener);
}

/* The first members of struct user_msghdr (ABI). */
struct destination {
	const void *name;
	int namelen;
};

/*
 * MSG_FASTOPEN connects. `to` is filled in only for EACCES and EPERM, with which a security module
 * refuses: most other errors of a send have nothing to do with connecting. False if the call is of
 * no interest.
 */
static __always_inline bool send_destination(struct destination *to, struct pt_regs *regs, long nr,
					     long ret)
{
	bool plain = nr == SYS_SENDTO;
	__u32 flags = plain ? READ_SYSCALL_ARG(regs, 4) : READ_SYSCALL_ARG(regs, 3);

	if (!(flags & MSG_FASTOPEN) || ret == -EPIPE || ret == -EOPNOTSUPP)
		return false;
	if (ret != -EACCES && ret != -EPERM)
		return true;
	if (plain) {
		to->name = (void *)READ_SYSCALL_ARG(regs, 5);
		to->namelen = READ_SYSCALL_ARG(regs, 6);
	} else {
		bpf_probe_read_user(to, sizeof(*to), (void *)READ_SYSCALL_ARG(regs, 2));
	}
	return true;
}

/*
 * These two are not inlined: one stack frame cannot hold the locals of both, and most system calls
 * are others. SYS_CONNECT to SYS_SENDMSG are also a few other calls, which are ignored here.
 */
static __noinline void handle_connect_exit(struct pt_regs *regs, long nr, long ret)
{
	struct destination to = {};

	if (is_compat())
		return;
	if (nr == SYS_CONNECT) {
		to.name = (void *)READ_SYSCALL_ARG(regs, 2);
		to.namelen = READ_SYSCALL_ARG(regs, 3);
	} else if ((nr != SYS_SENDTO && nr != SYS_SENDMSG) ||
		   !send_destination(&to, regs, nr, ret)) {
		return;
	}
	if (ret < 0)
		handle_attempt_failed(sock_of_fd(READ_SYSCALL_ARG(regs, 1)), -ret, to.name,
				      to.namelen);
	if (nr == SYS_CONNECT)
		call_ended();
}

static __noinline void handle_accept_exit(long fd)
{
	if (!is_compat())
		handle_accept_return(fd, NULL);
}

#endif
