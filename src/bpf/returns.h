/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What connect() and accept() return, in each probe set.
 */
#ifndef __RETURNS_H__
#define __RETURNS_H__

#define EINTR		  4
#define EAFNOSUPPORT	  97
#define EISCONN		  106
#define EALREADY	  114
#define EINPROGRESS	  115
#define ERESTARTSYS	  512
#define IORING_OP_ACCEPT  13
#define IORING_OP_CONNECT 16

/* The numbers of the system calls (asm/unistd.h), and where a task keeps them. */
#if defined(__TARGET_ARCH_x86)
#define SYS_CONNECT	 42
#define SYS_ACCEPT	 43
#define SYS_ACCEPT4	 288
#define SYSCALL_NR(regs) ((long)(regs)->orig_ax)
#define TS_COMPAT	 2
#elif defined(__TARGET_ARCH_arm64)
#define SYS_CONNECT	 203
#define SYS_ACCEPT	 202
#define SYS_ACCEPT4	 242
#define SYSCALL_NR(regs) ((long)(regs)->syscallno)
#define TIF_32BIT	 22
#endif

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

/* The trampoline set: the kernel's own copy of the address is at hand. */
static __always_inline void connect_returned(struct sock *sk, struct sockaddr *addr, int addr_len,
					     int error)
{
	struct sockaddr_in6 *in6 = (void *)addr;
	struct sockaddr_in *in = (void *)addr;
	struct target to = {};

	/* An address of another kind: no connection was attempted. */
	if (error == EAFNOSUPPORT || addr_len < 16 || !is_tcp(sk, false))
		return;
	to.family = BPF_CORE_READ(addr, sa_family);
	to.port = BPF_CORE_READ(in, sin_port);
	if (to.family == AF_INET6 && addr_len >= 24)
		bpf_core_read(to.addr, sizeof(to.addr), &in6->sin6_addr);
	else
		to.addr[0] = BPF_CORE_READ(in, sin_addr.s_addr);
	connect_refused(sk, &to, error, false);
}

/*
 * The tracepoint set: the call failed. Once a SYN is sent it is for the connection's state to
 * say, whatever the call returns.
 */
static __always_inline void attempt_failed(struct sock *sk, int error)
{
	__u64 key = (__u64)sk;
	struct target *noted;
	struct conn *conn;

	if (!sk || error == EINPROGRESS || error == EALREADY || error == EISCONN ||
	    error == EINTR || error >= ERESTARTSYS)
		return;
	conn = conn_of(sk);
	noted = bpf_map_lookup_elem(&attempts, &key);
	if (!noted || (conn && conn->phase != PHASE_FAILED))
		return;
	connect_refused(sk, noted, error, true);
	bpf_map_delete_elem(&attempts, &key);
}

static __always_inline void accept_returned(long fd, struct sock *listener)
{
	struct sock *sk = fd < 0 ? NULL : sock_of_fd(fd);

	if (sk && is_tcp(sk, true))
		accepted(sk, listener, true);
}

#endif
