/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The programs. Each is a few lines that decide and call.
 *
 * One tracepoint, sock:inet_sock_set_state, carries the life of a connection. What it cannot
 * tell comes from two more places, each in two ways: the accepting process, and the errors of
 * connect() that come before any SYN. The `trampoline` set hooks kernel functions; the
 * `tracepoint` set hooks system calls and io_uring, for kernels that refuse trampolines.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include "consts.h"
#include "netmon.h"
#include "ring.h"
#include "process.h"
#include "follow.h"
#include "file.h"
#include "attempt.h"
#include "socket.h"
#include "returns.h"
#include "state.h"
#include "existing.h"
#include "dns.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Anchors: they make the skeleton carry these types. */
const struct netmon_event event_layout = {};
const struct netmon_process process_layout = {};
const struct netmon_dns dns_layout = {};
const enum netmon_kind kind_layout = 0;
const enum netmon_flag flag_layout = 0;
const enum netmon_process_flag process_flag_layout = 0;
const enum netmon_secureexec secureexec_layout = 0;
const enum netmon_lost lost_layout = 0;
const enum netmon_want want_layout = 0;
const enum netmon_existing existing_layout = 0;
const enum netmon_limit limit_layout = 0;

/* The trampoline set; first, so that a kernel that refuses it says so at once. */

/* Runs once for each accepted connection, in the accepting task, with the child. */
SEC("fentry/security_sock_graft")
int BPF_PROG(on_accept, struct sock *sk)
{
	if (is_tcp(sk, false))
		handle_accepted(sk, NULL, false);
	return 0;
}

/* The kernel's own copy of the address; before other security modules have their say. */
SEC("fentry/security_socket_connect")
int BPF_PROG(on_request, struct socket *socket, struct sockaddr *addr, int addr_len)
{
	handle_connect_call(BPF_CORE_READ(socket, sk), addr, addr_len, false);
	return 0;
}

SEC("fexit/tcp_v4_connect")
int BPF_PROG(on_connect_v4, struct sock *sk, struct sockaddr *addr, int addr_len, int ret)
{
	/* A mapped address comes through here on its way out of tcp_v6_connect(). */
	if (ret < 0 && sk->__sk_common.skc_family == AF_INET)
		handle_connect_return(sk, addr, addr_len, -ret);
	return 0;
}

SEC("fexit/tcp_v6_connect")
int BPF_PROG(on_connect_v6, struct sock *sk, struct sockaddr *addr, int addr_len, int ret)
{
	if (ret < 0)
		handle_connect_return(sk, addr, addr_len, -ret);
	return 0;
}

/* Both sets. */

/* The longest work, in the connecting process; apart, for it must not hide a softirq's event. */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_connect, struct sock *sk, int oldstate, int newstate)
{
	if (newstate == TCP_SYN_SENT && is_tcp(sk, false)) {
		handle_connect(sk);
		report_state(sk, oldstate, newstate);
	}
	return 0;
}

static __always_inline void handle_state_change(struct sock *sk, int oldstate, int newstate,
						bool again)
{
	bool reported;

	if (oldstate == TCP_LISTEN || newstate == TCP_LISTEN || newstate == TCP_SYN_SENT ||
	    !is_tcp(sk, false))
		return;
	reported = again || report_state(sk, oldstate, newstate);
	if (newstate == TCP_ESTABLISHED) {
		handle_established(sk, oldstate);
		/* what was not known of before: the child of a listener */
		if (!reported)
			report_state(sk, oldstate, newstate);
	}
	if (newstate == TCP_FIN_WAIT1 || newstate == TCP_LAST_ACK)
		handle_closing(sk, oldstate);
	else if (newstate == TCP_CLOSE)
		handle_closed(sk, oldstate);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state, struct sock *sk, int oldstate, int newstate)
{
	handle_state_change(sk, oldstate, newstate, false);
	return 0;
}

/* A child leaves LISTEN too when it is made, for SYN_RECV. */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_listen, struct sock *sk, int oldstate, int newstate)
{
	if (newstate == TCP_LISTEN && is_tcp(sk, false))
		handle_listen(sk);
	else if (oldstate == TCP_LISTEN && newstate == TCP_CLOSE && is_tcp(sk, false))
		handle_listen_stop(sk);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task)
{
	handle_exec(task);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	if (config.follow)
		follow_fork(parent, child);
	/* threads come here too */
	if (child->pid == child->tgid)
		handle_fork(parent, child);
	return 0;
}

/* Every packet that a socket of the host receives; none is held back. */
SEC("cgroup_skb/ingress")
int on_dns(struct __sk_buff *skb)
{
	handle_packet(skb);
	return 1;
}

/* The tracepoint set. */

SEC("cgroup/connect4")
int on_attempt_v4(struct bpf_sock_addr *ctx)
{
	struct target to = {.family = AF_INET, .port = ctx->user_port};

	to.addr[0] = ctx->user_ip4;
	if (ctx->protocol == IPPROTO_TCP)
		attempt_begins(ctx, &to);
	return 1;
}

SEC("cgroup/connect6")
int on_attempt_v6(struct bpf_sock_addr *ctx)
{
	struct target to = {.family = AF_INET6, .port = ctx->user_port};

	to.addr[0] = ctx->user_ip6[0];
	to.addr[1] = ctx->user_ip6[1];
	to.addr[2] = ctx->user_ip6[2];
	to.addr[3] = ctx->user_ip6[3];
	if (ctx->protocol == IPPROTO_TCP)
		attempt_begins(ctx, &to);
	return 1;
}

/*
 * The raw tracepoints of all system calls: those of connect() and accept() alone would cost the
 * others a little less, but need tracefs, which is for root only and not there under lockdown.
 */
SEC("tp_btf/sys_enter")
int BPF_PROG(on_connect_enter, struct pt_regs *regs, long nr)
{
	if (nr != SYS_CONNECT || is_compat())
		return 0;
	call_begins();
	handle_connect_call(sock_of_fd(PT_REGS_PARM1_CORE_SYSCALL(regs)),
			    (void *)PT_REGS_PARM2_CORE_SYSCALL(regs),
			    PT_REGS_PARM3_CORE_SYSCALL(regs), true);
	return 0;
}

static __always_inline void handle_sys_exit(struct pt_regs *regs, long ret, bool again)
{
	long nr = SYSCALL_NR(regs);

	if ((nr != SYS_CONNECT && nr != SYS_ACCEPT && nr != SYS_ACCEPT4) || is_compat())
		return;
	if (nr == SYS_CONNECT)
		handle_connect_exit(regs, ret);
	else if (ret >= 0 && again)
		handle_accept_exit_again(ret);
	else if (ret >= 0)
		handle_accept_exit(ret);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_sys_exit, struct pt_regs *regs, long ret)
{
	handle_sys_exit(regs, ret, false);
	return 0;
}

/* Only the request is read: what follows it among the arguments changes between kernels. */
SEC("tp_btf/io_uring_complete")
int on_uring(__u64 *ctx)
{
	struct io_kiocb *req = (struct io_kiocb *)ctx[1];
	int res;

	/* Before 5.19 it is none, or of another shape. */
	if (!bpf_core_field_exists(req->cqe) || !req)
		return 0;
	res = BPF_CORE_READ(req, cqe.res);
	if (BPF_CORE_READ(req, opcode) == IORING_OP_ACCEPT)
		handle_accept_return(res, sock_of_file(BPF_CORE_READ(req, file)));
	else if (BPF_CORE_READ(req, opcode) == IORING_OP_CONNECT && res < 0)
		handle_attempt_failed(sock_of_file(BPF_CORE_READ(req, file)), -res);
	return 0;
}

/*
 * Once more, where the kernel skips a program that another task on the same CPU was preempted in
 * (skipped() in probes.rs). Each of these comes right after its namesake and finds done what that
 * has done; both are seldom skipped at once.
 */

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_connect_again, struct sock *sk, int oldstate, int newstate)
{
	if (newstate == TCP_SYN_SENT && is_tcp(sk, false) && !conn_of(sk, false))
		handle_connect(sk);
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state_again, struct sock *sk, int oldstate, int newstate)
{
	handle_state_change(sk, oldstate, newstate, true);
	return 0;
}

SEC("fentry/security_sock_graft")
int BPF_PROG(on_accept_again, struct sock *sk, struct socket *parent)
{
	if (is_tcp(sk, false) && conn_of(sk, false))
		handle_accepted(sk, NULL, false);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_sys_exit_again, struct pt_regs *regs, long ret)
{
	handle_sys_exit(regs, ret, true);
	return 0;
}

/* What exists at the start. */

SEC("iter/tcp")
int on_existing_tcp(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct tcp_sock *tp;

	if (!skc)
		return 0;
	tp = bpf_skc_to_tcp_sock(skc);
	if (!tp)
		handle_request_or_timewait(ctx->meta->seq, skc);
	else if (is_tcp((struct sock *)tp, false))
		handle_existing_socket(ctx->meta->seq, (struct sock *)tp, NULL);
	return 0;
}

SEC("iter/task_file")
int on_existing_file(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct socket *socket;
	struct sock *sk;

	if (!task || !file)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (sk && sk->sk_type == SOCK_STREAM &&
	    (sk->__sk_common.skc_family == AF_INET || sk->__sk_common.skc_family == AF_INET6) &&
	    is_tcp(sk, false))
		handle_existing_socket(ctx->meta->seq, sk, task);
	return 0;
}

#ifdef TEST_PROGRAMS
#include "test_programs.h"
#endif
