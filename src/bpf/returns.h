/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What connect() is called with, and what it and accept() return, in each probe set.
 */
#ifndef __RETURNS_H__
#define __RETURNS_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "consts.h"
#include "file.h"
#include "attempt.h"
#include "request.h"
#include "conn.h"
#include "socket.h"

/* A 32-bit program: its system calls have other numbers. */
static __always_inline bool is_compat(void)
{
	struct task_struct *task = bpf_get_current_task_btf();

#if defined(__TARGET_ARCH_x86)
	return task->thread_info.status & TS_COMPAT;
#elif defined(__TARGET_ARCH_arm64)
	return task->thread_info.flags & (1UL << TIF_32BIT);
#endif
}

/* In the task that calls connect(). To the address family AF_UNSPEC it disconnects. */
static __always_inline void handle_connect_call(struct sock *sk, const void *address, int len,
						bool from_user)
{
	struct conn conn = {.since = bpf_ktime_get_boot_ns(), .flags = NETMON_FLAG_EGRESS};
	struct target to = {};

	if (!sk || !is_tcp(sk, true) || is_under_way(sk) || len < 0 ||
	    !read_target(&to, address, len, from_user))
		return;
	conn.flags |= flags_of(sk, true);
	conn.cookie = cookie_of(sk, true);
	if (!admit(sk, &conn, &to, SCRATCH_REQUEST, true))
		return;
	set_owner(&conn, SCRATCH_REQUEST);
	send_request(sk, &conn, &to, true);
}

/* The trampoline set: the kernel's own copy of the address is at hand. */
static __always_inline void handle_connect_return(struct sock *sk, struct sockaddr *addr,
						  int addr_len, int error)
{
	struct target to = {};

	/* An address of another kind: no connection was attempted. */
	if (error != EAFNOSUPPORT && is_tcp(sk, false) && read_target(&to, addr, addr_len, false))
		handle_connect_failed(sk, &to, error, false);
}

/*
 * The tracepoint set: the call failed. Once a SYN is sent it is for the connection's state to
 * say, whatever the call returns.
 */
static __always_inline void handle_attempt_failed(struct sock *sk, int error)
{
	__u64 key = (__u64)sk;
	struct target *noted;
	struct conn *conn;

	if (!sk || error == EINPROGRESS || error == EALREADY || error == EISCONN ||
	    error == EINTR || error >= ERESTARTSYS)
		return;
	conn = conn_of(sk, true);
	noted = bpf_map_lookup_elem(&attempts, &key);
	if (!noted || (conn && conn->phase != PHASE_FAILED))
		return;
	handle_connect_failed(sk, noted, error, true);
	bpf_map_delete_elem(&attempts, &key);
}

static __always_inline void handle_accept_return(long fd, struct sock *listener)
{
	struct sock *sk = fd < 0 ? NULL : sock_of_fd(fd);

	if (sk && is_tcp(sk, true))
		handle_accepted(sk, listener, true);
}

/* Functions of their own, for a stack of their own: one does not hold both. */
static __noinline void handle_connect_exit(struct pt_regs *regs, long ret)
{
	if (ret < 0)
		handle_attempt_failed(sock_of_fd(PT_REGS_PARM1_CORE_SYSCALL(regs)), -ret);
	call_ended();
}

static __noinline void handle_accept_exit(long fd)
{
	handle_accept_return(fd, NULL);
}

/* Only what is known to wait for it: an unknown socket may just have been reported and removed. */
static __noinline void handle_accept_exit_again(long fd)
{
	struct sock *sk = sock_of_fd(fd);

	if (sk && is_tcp(sk, true) && conn_of(sk, true))
		handle_accepted(sk, NULL, true);
}

#endif
