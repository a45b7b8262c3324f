/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The programs. Each is a few lines that decide and call.
 *
 * One tracepoint, sock:inet_sock_set_state, carries the life of a connection. What it cannot
 * know comes from two more places, each in two ways: the accepting process, and the errors of
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
#include "listen.h"
#include "syscall.h"
#include "existing.h"
#include "retransmit.h"
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
const enum netmon_segment segment_layout = 0;
const enum netmon_lost lost_layout = 0;
const enum netmon_want want_layout = 0;
const enum netmon_existing existing_layout = 0;
const enum netmon_limit limit_layout = 0;

/*
 * Which program runs where, and what may interrupt it. The kernel skips a program that is running
 * on the CPU already, so what must not be skipped must not be interrupted by its like.
 *
 *   program           runs                                       interrupted by
 *   on_state          with the socket locked, by the task or     softirqs; tasks (7.0)
 *                     with bottom halves disabled
 *   on_state_second   right after it                             as on_state
 *   on_accept         in the accepting task, which has locked it softirqs, tasks
 *   on_connect_v4/v6  in the connecting task, which has locked it softirqs, tasks
 *   on_request        in the connecting task                     softirqs, tasks
 *   on_sys_exit ...   in the calling task                        softirqs, tasks (6.13)
 *   on_exec, on_fork  in the task itself                         softirqs, tasks (7.0)
 *
 * A softirq that interrupts on_state, and a task that runs while another was preempted inside it,
 * find on_state_second free. That one does what on_state has not: each leaves a mark of the
 * transition it has handled.
 * What is skipped all the same is counted where it shows: an entry whose socket has gone
 * (conn_of(), on_orphan), a close without an entry (count_unopened()), an open connection that was
 * never seen to open (catch_up()), and a state that was never seen to begin (handle_step()).
 */

/* Since 6.16, which brought this function, global functions may be called with it. */
extern int bpf_dynptr_copy(void) __ksym __weak;
extern void bpf_preempt_disable(void) __ksym __weak;
extern void bpf_preempt_enable(void) __ksym __weak;

#define CAN_STAY (bpf_ksym_exists(bpf_preempt_disable) && bpf_ksym_exists(bpf_dynptr_copy))

/* The trampoline set; first, so that a kernel that refuses it says so at once. */

/* Runs once for each accepted connection, in the accepting task, with the child. */
SEC("fentry/security_sock_graft")
int BPF_PROG(on_accept, struct sock *sk)
{
	if (CAN_STAY)
		bpf_preempt_disable();
	if (is_tcp(sk))
		handle_accepted(sk, NULL, bpf_get_socket_cookie(sk));
	if (CAN_STAY)
		bpf_preempt_enable();
	return 0;
}

/* The kernel's own copy of the address; before other security modules have their say. */
SEC("fentry/security_socket_connect")
int BPF_PROG(on_request, struct socket *socket, struct sockaddr *addr, int addr_len)
{
	handle_connect_call(READ(socket, socket, sk), addr, addr_len, false);
	return 0;
}

SEC("fexit/tcp_v4_connect")
int BPF_PROG(on_connect_v4, struct sock *sk, struct sockaddr *addr, int addr_len, int ret)
{
	/* A mapped address comes through here on its way out of tcp_v6_connect(). */
	if (ret < 0 && sk->__sk_common.skc_family == AF_INET && bpf_get_socket_cookie(sk))
		handle_connect_return(sk, addr, addr_len, -ret);
	return 0;
}

SEC("fexit/tcp_v6_connect")
int BPF_PROG(on_connect_v6, struct sock *sk, struct sockaddr *addr, int addr_len, int ret)
{
	/* It makes the cookie, which is read below. */
	if (ret < 0 && bpf_get_socket_cookie(sk))
		handle_connect_return(sk, addr, addr_len, -ret);
	return 0;
}

/* The same with a verdict: a security module, and then a cgroup program, may refuse. */
SEC("fexit/security_socket_connect")
int BPF_PROG(on_refused, struct socket *socket, struct sockaddr *addr, int addr_len, int ret)
{
	struct sock *sk;

	if (ret < 0) {
		sk = READ(socket, socket, sk);
		handle_connect_return(sk, addr, addr_len, -ret);
	}
	return 0;
}

SEC("fexit/tcp_v4_pre_connect")
int BPF_PROG(on_refused_v4, struct sock *sk, struct sockaddr *addr, int addr_len, int ret)
{
	/* It makes the cookie, which is read below. */
	if (ret < 0 && bpf_get_socket_cookie(sk))
		handle_connect_return(sk, addr, addr_len, -ret);
	return 0;
}

SEC("fexit/tcp_v6_pre_connect")
int BPF_PROG(on_refused_v6, struct sock *sk, struct sockaddr *addr, int addr_len, int ret)
{
	/* It makes the cookie, which is read below. */
	if (ret < 0 && bpf_get_socket_cookie(sk))
		handle_connect_return(sk, addr, addr_len, -ret);
	return 0;
}

/* Both sets. */

/*
 * The last transition that on_state has handled on a CPU, in a task and in a softirq: one of these
 * may come between the task's two programs. A task that is preempted between them may find another
 * mark than its own; then on_state_second does nothing twice, it only looks in vain.
 */
#define MARKS 256
struct mark {
	__u64 sk;
	__u64 states;
};
struct marks {
	struct mark of[2]; /* by whether a task has locked the socket */
	__u64 line[4];	   /* of the cache */
} marks[MARKS] = {};

static __always_inline struct mark *mark_of(struct sock *sk)
{
	struct marks *both = &marks[bpf_get_smp_processor_id() & (MARKS - 1)];

	return sk->sk_lock.owned ? &both->of[1] : &both->of[0];
}

/* Does a connection begin, or a listener that is asked for? */
static __always_inline bool begins(struct sock *sk, int oldstate, int newstate, bool second)
{
	if (!is_tcp(sk))
		return false;
	if (newstate == TCP_SYN_SENT)
		return !(second && conn_of(sk));
	/* MPTCP says it twice, and has a queue the second time. */
	return config.want & WANT_LISTENERS && is_mptcp(sk) == (oldstate == TCP_LISTEN) &&
	       !conn_of(sk);
}

static __always_inline void handle_state(struct sock *sk, int oldstate, int newstate, bool second)
{
	if (newstate == TCP_SYN_SENT || newstate == TCP_LISTEN) {
		if (begins(sk, oldstate, newstate, second))
			handle_opening(sk, newstate);
		return;
	}
	if (oldstate == TCP_LISTEN) {
		/* or an MPTCP child that is being made: the time to give it a cookie */
		if (newstate != TCP_CLOSE) {
			if (config.tracepoints)
				bpf_get_socket_cookie(sk);
			return;
		}
		if (config.want & NETMON_WANT_STATE)
			handle_step(sk, oldstate, newstate, second);
		if (config.want & WANT_LISTENERS)
			handle_listen_stop(sk);
		return;
	}
	if (config.want & NETMON_WANT_STATE)
		handle_step(sk, oldstate, newstate, second);
	if (newstate == TCP_ESTABLISHED)
		handle_established(sk, oldstate);
	else if (newstate == TCP_FIN_WAIT1 || newstate == TCP_LAST_ACK)
		handle_closing(sk, oldstate);
	else if (newstate == TCP_CLOSE)
		handle_closed(sk, oldstate, second);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state, struct sock *sk, int oldstate, int newstate)
{
	struct mark *mark;

	if (CAN_STAY)
		bpf_preempt_disable();
	handle_state(sk, oldstate, newstate, false);
	mark = mark_of(sk);
	mark->sk = (__u64)sk;
	mark->states = oldstate << 4 | newstate;
	if (CAN_STAY)
		bpf_preempt_enable();
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state_second, struct sock *sk, int oldstate, int newstate)
{
	struct mark *mark = mark_of(sk);

	if (mark->sk == (__u64)sk && mark->states == (oldstate << 4 | newstate)) {
		mark->sk = 0;
		return 0;
	}
	if (CAN_STAY)
		bpf_preempt_disable();
	handle_state(sk, oldstate, newstate, true);
	if (CAN_STAY)
		bpf_preempt_enable();
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

SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(on_retransmit, struct sock *sk, struct sk_buff *skb)
{
	handle_retransmit(sk, skb);
	return 0;
}

SEC("tp_btf/tcp_retransmit_synack")
int BPF_PROG(on_retransmit_synack, struct sock *sk, struct request_sock *req)
{
	handle_retransmit_synack(req);
	return 0;
}

/* Every packet that the kernel drops. The fourth argument is older than the reason. */
SEC("tp_btf/kfree_skb")
int on_drop(__u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];

	if (!bpf_core_enum_value_exists(enum skb_drop_reason, SKB_DROP_REASON_TCP_LISTEN_OVERFLOW))
		return 0;
	if ((__u32)ctx[2] == bpf_core_enum_value(enum skb_drop_reason,
						 SKB_DROP_REASON_TCP_LISTEN_OVERFLOW) &&
	    ctx[3])
		handle_drop((struct sock *)ctx[3], skb);
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
	if (ctx->protocol == IPPROTO_TCP && ctx->user_family == AF_INET)
		note_attempt(ctx, &to);
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
	if (ctx->protocol == IPPROTO_TCP && ctx->user_family == AF_INET6)
		note_attempt(ctx, &to);
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

SEC("tp_btf/sys_exit")
int BPF_PROG(on_sys_exit, struct pt_regs *regs, long ret)
{
	long nr = SYSCALL_NR(regs);
	bool accepts = nr == SYS_ACCEPT || nr == SYS_ACCEPT4;
	bool connects = nr == SYS_CONNECT || ((nr == SYS_SENDTO || nr == SYS_SENDMSG) && ret < 0);

	if ((!accepts && !connects) || is_compat())
		return 0;
	if (CAN_STAY)
		bpf_preempt_disable();
	if (connects)
		handle_connect_exit(regs, nr, ret);
	else if (ret >= 0)
		handle_accept_exit(ret);
	if (CAN_STAY)
		bpf_preempt_enable();
	return 0;
}

SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(on_destroy, struct sock *sk)
{
	handle_destroyed(sk);
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
		handle_attempt_failed(sock_of_file(BPF_CORE_READ(req, file)), -res, NULL, 0);
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
	else if (is_tcp((struct sock *)tp))
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
	    is_tcp(sk))
		handle_existing_socket(ctx->meta->seq, sk, task);
	return 0;
}

/* What was open and is closed, without our having seen it: run over both tables at the end. */
static __always_inline void count_orphan(struct sock *sk, const struct conn *conn)
{
	__u64 cookie = cookie_now(sk);

	if (conn->phase != PHASE_FAILED && ((conn->cookie && conn->cookie != cookie) ||
					    READ(sock, sk, __sk_common.skc_state) == TCP_CLOSE))
		count_lost(NETMON_LOST_SKIPPED);
}

SEC("iter/bpf_map_elem")
int on_orphan(struct bpf_iter__bpf_map_elem *ctx)
{
	__u64 *key = ctx->key;
	struct conn *conn = ctx->value;

	if (key && conn)
		count_orphan((struct sock *)*key, conn);
	return 0;
}

SEC("iter/bpf_map_elem")
int on_orphan_slot(struct bpf_iter__bpf_map_elem *ctx)
{
	struct slot *slot = ctx->value;

	if (slot && slot->cookie && slot->cookie != TAKEN)
		count_orphan((struct sock *)slot->sk, &slot->conn);
	return 0;
}

#ifdef TEST_PROGRAMS
#include "test_programs.h"
#endif
