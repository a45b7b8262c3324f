/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The BPF programs. Each is only a few lines; the logic is in the headers.
 *
 * The tracepoint sock:inet_sock_set_state covers the lifetime of a connection, except for two
 * things: the accepting process, and connect() errors that occur before a SYN is sent. Two probe
 * sets cover those. The `trampoline` set hooks kernel functions; the `tracepoint` set hooks system
 * calls and io_uring, for kernels that refuse trampolines.
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

/* Never read: they put these types into the skeleton. */
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
const enum netmon_states states_layout = 0;
const enum netmon_existing existing_layout = 0;
const enum netmon_limit limit_layout = 0;

/*
 * Where each program runs, and what may interrupt it. The kernel's recursion check skips a program
 * that is already running on the same CPU, so a program that must not be skipped must not be
 * interrupted by another run of itself. Kernel versions in parentheses are the first ones affected.
 *
 *   program           runs                                       interrupted by
 *   on_state_bh       for a socket locked with BH disabled       nothing
 *   on_state          for a socket locked by a task              softirqs
 *   on_state_first    for a socket locked in either way          softirqs, tasks
 *   on_state_second   the same                                   softirqs, tasks
 *   on_accept         in the accepting task, socket locked       softirqs, tasks
 *   on_connect_v4/v6  in the connecting task, socket locked      softirqs, tasks
 *   on_request        in the connecting task                     softirqs, tasks
 *   on_sys_exit ...   in the calling task                        tasks (7.0)
 *   on_destroy        in a task or with BH disabled              softirqs, tasks (7.0)
 *   on_exec, on_fork  in the task itself                         softirqs, tasks (7.0)
 *   on_uring          in any context                             softirqs, tasks (7.0)
 *
 * A transition takes place with the socket locked either by a task, or by the spinlock alone. A
 * softirq can interrupt the first, but not the second, so on_state handles the one and on_state_bh
 * the other. Both run for both. A softirq that interrupts on_state_bh, which runs first and has
 * nothing to do for a task, finds only on_state, which therefore also handles what on_state_bh has
 * left no mark of.
 *
 * That is exact until 7.0, where a task may be preempted inside a program and the kernel skips it
 * for the next task. There on_state_first handles all transitions, and on_state_second those that
 * have no mark. In the same way on_sys_exit_second stands in for on_sys_exit.
 * Since 6.16, programs that tasks can interrupt switch preemption off while they work (STAYING()).
 * That leaves their first and last instructions: where there are two programs, two tasks must be
 * interrupted there on one CPU before a run is lost.
 *
 * Runs that are skipped anyway are counted where they show: an entry whose socket is gone
 * (conn_of(), on_orphans), a close without an entry (count_unopened()), an open connection whose
 * opening was missed (catch_up()), and a transition from a state that we never saw entered
 * (handle_step()).
 */

/*
 * Global functions may be called with preemption disabled since 6.16. bpf_dynptr_copy(), which is
 * never called, is new in 6.16 as well and tells whether we have that.
 */
extern int bpf_dynptr_copy(void) __ksym __weak;
extern void bpf_preempt_disable(void) __ksym __weak;
extern void bpf_preempt_enable(void) __ksym __weak;
extern void bpf_local_irq_save(unsigned long *flags) __ksym __weak;
extern void bpf_local_irq_restore(unsigned long *flags) __ksym __weak;

#define CAN_STAY (bpf_ksym_exists(bpf_preempt_disable) && bpf_ksym_exists(bpf_dynptr_copy))

/*
 * Allows preemption again at the end of a program. If the task's time is up, bpf_preempt_enable()
 * would switch to another one at once, inside the program, unless interrupts are disabled. They are
 * for this moment only, so that the switch is left to whatever the kernel does next.
 */
static __always_inline void preempt_after_program(void)
{
	unsigned long flags;

	bpf_local_irq_save(&flags);
	bpf_preempt_enable();
	bpf_local_irq_restore(&flags);
}

/* In a program that tasks can interrupt: do not let them, where that is possible. */
#define STAYING(statement)                                                                         \
	({                                                                                         \
		if (CAN_STAY)                                                                      \
			bpf_preempt_disable();                                                     \
		statement;                                                                         \
		if (CAN_STAY)                                                                      \
			preempt_after_program();                                                   \
	})

/* The trampoline set. It comes first, so that a kernel that refuses trampolines fails early. */

/* Runs once per accepted connection, in the accepting task; `sk` is the child. */
SEC("fentry/security_sock_graft")
int BPF_PROG(on_accept, struct sock *sk)
{
	if (is_tcp(sk))
		STAYING(handle_accepted(sk, NULL));
	return 0;
}

/* `addr` is the kernel's copy. Runs before any security module decides. */
SEC("fentry/security_socket_connect")
int BPF_PROG(on_request, struct socket *socket, struct sockaddr *addr, int addr_len)
{
	STAYING(handle_connect_call(READ(socket, socket, sk), addr, addr_len, false));
	return 0;
}

SEC("fexit/tcp_v4_connect")
int BPF_PROG(on_connect_v4, struct sock *sk, struct sockaddr *addr, int addr_len, int ret)
{
	/* tcp_v6_connect() calls this for a mapped address; on_connect_v6 handles it then. */
	if (ret < 0 && sk->__sk_common.skc_family == AF_INET && bpf_get_socket_cookie(sk))
		STAYING(handle_connect_return(sk, addr, addr_len, -ret));
	return 0;
}

SEC("fexit/tcp_v6_connect")
int BPF_PROG(on_connect_v6, struct sock *sk, struct sockaddr *addr, int addr_len, int ret)
{
	/* Generates the cookie, which cookie_now() reads later. */
	if (ret < 0 && bpf_get_socket_cookie(sk))
		STAYING(handle_connect_return(sk, addr, addr_len, -ret));
	return 0;
}

/* Refusals: by a security module here, by a cgroup program in the next two. */
SEC("fexit/security_socket_connect")
int BPF_PROG(on_refused, struct socket *socket, struct sockaddr *addr, int addr_len, int ret)
{
	struct sock *sk;

	if (ret < 0) {
		sk = READ(socket, socket, sk);
		STAYING(handle_connect_return(sk, addr, addr_len, -ret));
	}
	return 0;
}

SEC("fexit/tcp_v4_pre_connect")
int BPF_PROG(on_refused_v4, struct sock *sk, struct sockaddr *addr, int addr_len, int ret)
{
	/* Generates the cookie, which cookie_now() reads later. */
	if (ret < 0 && bpf_get_socket_cookie(sk))
		STAYING(handle_connect_return(sk, addr, addr_len, -ret));
	return 0;
}

SEC("fexit/tcp_v6_pre_connect")
int BPF_PROG(on_refused_v6, struct sock *sk, struct sockaddr *addr, int addr_len, int ret)
{
	/* Generates the cookie, which cookie_now() reads later. */
	if (ret < 0 && bpf_get_socket_cookie(sk))
		STAYING(handle_connect_return(sk, addr, addr_len, -ret));
	return 0;
}

/* Programs of both sets. */

/* Does this transition start a connection, or a listener that is to be traced? */
static __always_inline bool begins(struct sock *sk, int oldstate, int newstate, bool second)
{
	if (!is_tcp(sk))
		return false;
	if (newstate == TCP_SYN_SENT)
		return wants(NETMON_WANT_OUTGOING) && !(second && conn_of(sk));
	/* MPTCP enters LISTEN twice, and has its accept queue only the second time. */
	return wants(NETMON_WANT_LISTENERS) && is_mptcp(sk) == (oldstate == TCP_LISTEN) &&
	       !conn_of(sk);
}

/* Nothing happens at other transitions, of which there are several in a connection. */
static __always_inline bool is_handled(int newstate)
{
	return config.states >> newstate & 1;
}

/* `owned`: a task has locked the socket, as connect() and listen() do. */
static __always_inline void handle_state(struct sock *sk, int oldstate, int newstate, bool owned,
					 bool second)
{
	if (newstate == TCP_SYN_SENT || newstate == TCP_LISTEN) {
		if (owned && begins(sk, oldstate, newstate, second))
			handle_opening(sk, newstate);
		return;
	}
	if (oldstate == TCP_LISTEN) {
		/* An MPTCP child being created: generate its cookie while we can. */
		if (newstate != TCP_CLOSE) {
			if (config.tracepoints)
				bpf_get_socket_cookie(sk);
			return;
		}
		if (wants(NETMON_WANT_STATE))
			handle_step(sk, oldstate, newstate, second);
		if (wants(NETMON_WANT_LISTENERS))
			handle_listen_stop(sk);
		return;
	}
	if (wants(NETMON_WANT_STATE))
		handle_step(sk, oldstate, newstate, second);
	if (newstate == TCP_ESTABLISHED)
		handle_established(sk, oldstate);
	else if (newstate == TCP_FIN_WAIT1 || newstate == TCP_LAST_ACK)
		handle_closing(sk, oldstate, owned);
	else if (newstate == TCP_CLOSE)
		handle_closed(sk, oldstate, owned, second);
}

/*
 * The last transition that the first of the two programs handled on each CPU, kept separately for
 * tasks and softirqs: a softirq may run between a task's two programs. 7.0: if the task is
 * preempted between them, it may find another task's mark. The second program then runs for
 * nothing, but reports nothing twice.
 */
#define MARKS 256
struct mark {
	__u64 sk;
	__u32 states;
	__u32 reserved;
};
struct marks {
	struct mark of[2]; /* [1]: the socket is locked by a task */
	__u64 line[4];	   /* pads to a cache line */
} marks[MARKS] = {};

static __always_inline struct mark *mark_of(bool owned)
{
	return &marks[bpf_get_smp_processor_id() & (MARKS - 1)].of[owned];
}

static __always_inline void leave_mark(struct sock *sk, __u32 oldstate, __u32 newstate, bool owned)
{
	struct mark *mark = mark_of(owned);

	mark->sk = (__u64)sk;
	mark->states = oldstate << 4 | newstate;
}

/* A mark is used once: another socket at this address may go through the same transition. */
static __always_inline bool take_mark(struct sock *sk, __u32 oldstate, __u32 newstate, bool owned)
{
	struct mark *mark = mark_of(owned);

	if (mark->sk != (__u64)sk || mark->states != (oldstate << 4 | newstate))
		return false;
	mark->sk = 0;
	return true;
}

static __always_inline void handle_first(struct sock *sk, int oldstate, int newstate, bool owned)
{
	handle_state(sk, oldstate, newstate, owned, false);
	leave_mark(sk, oldstate, newstate, owned);
}

/*
 * Not inlined, nor is state_second(): most runs of these two programs end before it, and without
 * calls in them they save no registers.
 */
static __noinline void state_bh(struct sock *sk, int oldstate, int newstate)
{
	handle_first(sk, oldstate, newstate, false);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state_bh, struct sock *sk, int oldstate, int newstate)
{
	if (!sk->sk_lock.owned && is_handled(newstate))
		state_bh(sk, oldstate, newstate);
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state, struct sock *sk, int oldstate, int newstate)
{
	bool owned = sk->sk_lock.owned;

	if (is_handled(newstate) && (owned || !take_mark(sk, oldstate, newstate, false)))
		handle_state(sk, oldstate, newstate, owned, !owned);
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state_first, struct sock *sk, int oldstate, int newstate)
{
	bool owned = sk->sk_lock.owned;

	if (is_handled(newstate))
		STAYING(handle_first(sk, oldstate, newstate, owned));
	return 0;
}

static __noinline void state_second(struct sock *sk, int oldstate, int newstate, bool owned)
{
	STAYING(handle_state(sk, oldstate, newstate, owned, true));
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state_second, struct sock *sk, int oldstate, int newstate)
{
	bool owned = sk->sk_lock.owned;

	if (is_handled(newstate) && !take_mark(sk, oldstate, newstate, owned))
		state_second(sk, oldstate, newstate, owned);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task)
{
	STAYING(handle_exec(task));
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	if (follow)
		STAYING(follow_fork(parent, child));
	/* also runs for threads */
	if (child->pid == child->tgid)
		STAYING(handle_fork(parent, child));
	return 0;
}

SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(on_retransmit, struct sock *sk, struct sk_buff *skb)
{
	STAYING(handle_retransmit(sk, skb));
	return 0;
}

SEC("tp_btf/tcp_retransmit_synack")
int BPF_PROG(on_retransmit_synack, struct sock *sk, struct request_sock *req)
{
	STAYING(handle_retransmit_synack(req));
	return 0;
}

/*
 * Runs for every packet that the kernel drops. Kernels with this drop reason all have the fourth
 * argument, the receiving socket.
 */
SEC("tp_btf/kfree_skb")
int on_drop(__u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];

	if (!bpf_core_enum_value_exists(enum skb_drop_reason, SKB_DROP_REASON_TCP_LISTEN_OVERFLOW))
		return 0;
	if ((__u32)ctx[2] == bpf_core_enum_value(enum skb_drop_reason,
						 SKB_DROP_REASON_TCP_LISTEN_OVERFLOW) &&
	    ctx[3])
		STAYING(handle_drop((struct sock *)ctx[3], skb));
	return 0;
}

/* Runs for every packet that a socket on the host receives; never drops one. */
SEC("cgroup_skb/ingress")
int on_dns(struct __sk_buff *skb)
{
	if (may_be_dns(skb))
		handle_packet(skb);
	return 1;
}

/* Programs of the tracepoint set. */

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
 * The raw tracepoints run for every system call. Those of connect() and accept() alone would cost
 * other calls a little less, but need tracefs, which is for root only and unavailable under
 * lockdown.
 */
SEC("tp_btf/sys_enter")
int BPF_PROG(on_connect_enter, struct pt_regs *regs, long nr)
{
	if (nr != SYS_CONNECT || is_compat())
		return 0;
	call_begins();
	STAYING(handle_connect_call(sock_of_fd(READ_SYSCALL_ARG(regs, 1)),
				    (void *)READ_SYSCALL_ARG(regs, 2), READ_SYSCALL_ARG(regs, 3),
				    true));
	return 0;
}

static __always_inline bool is_traced_call(long nr, long ret)
{
	if (nr == SYS_ACCEPT || nr == SYS_ACCEPT4)
		return wants(NETMON_WANT_ACCEPTED) && ret >= 0;
	/* and the few calls between these numbers */
	return wants(NETMON_WANT_ATTEMPTS) && nr >= SYS_CONNECT && nr <= SYS_SENDMSG &&
	       (ret < 0 || wants(NETMON_WANT_REQUEST));
}

static __always_inline void handle_call(struct pt_regs *regs, long nr, long ret)
{
	if (nr == SYS_ACCEPT || nr == SYS_ACCEPT4)
		handle_accept_exit(ret);
	else
		handle_connect_exit(regs, nr, ret);
}

/*
 * The last call that on_sys_exit handled for each thread. Two threads that share an index may cause
 * the second program to run for nothing. Two complete programs: a tail call would need a map of
 * programs, of which the kernel leaks one if it is closed while somebody lists all maps (6.18).
 */
#define CALLS 4096
__u64 handled_calls[CALLS] = {};

SEC("tp_btf/sys_exit")
int BPF_PROG(on_sys_exit, struct pt_regs *regs, long ret)
{
	long nr = SYSCALL_NR(regs);
	__u64 thread;

	if (!is_traced_call(nr, ret))
		return 0;
	STAYING(handle_call(regs, nr, ret));
	if (config.call_twice) {
		thread = bpf_get_current_pid_tgid();
		handled_calls[thread & (CALLS - 1)] = thread;
	}
	return 0;
}

/* Only loaded if config.call_twice: for the calls that on_sys_exit was skipped for. */
SEC("tp_btf/sys_exit")
int BPF_PROG(on_sys_exit_second, struct pt_regs *regs, long ret)
{
	long nr = SYSCALL_NR(regs);
	__u64 thread, *handled;

	if (!is_traced_call(nr, ret))
		return 0;
	thread = bpf_get_current_pid_tgid();
	handled = &handled_calls[thread & (CALLS - 1)];
	if (*handled == thread)
		*handled = 0;
	else
		STAYING(handle_call(regs, nr, ret));
	return 0;
}

SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(on_destroy, struct sock *sk)
{
	STAYING(handle_destroyed(sk));
	return 0;
}

/* Only ctx[1], the request, is used: the arguments after it differ between kernels. */
SEC("tp_btf/io_uring_complete")
int on_uring(__u64 *ctx)
{
	struct io_kiocb *req = (struct io_kiocb *)ctx[1];
	int res;

	/* Before 5.19 it is not a request, or one with a different layout. */
	if (!bpf_core_field_exists(req->cqe) || !req)
		return 0;
	res = BPF_CORE_READ(req, cqe.res);
	if (BPF_CORE_READ(req, opcode) == IORING_OP_ACCEPT)
		STAYING(handle_accept_return(res, sock_of_file(BPF_CORE_READ(req, file))));
	else if (wants(NETMON_WANT_ATTEMPTS) && BPF_CORE_READ(req, opcode) == IORING_OP_CONNECT &&
		 res < 0)
		STAYING(handle_attempt_failed(sock_of_file(BPF_CORE_READ(req, file)), -res, NULL,
					      0));
	return 0;
}

/* Sockets that exist when tracing starts. */

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

/* Entries whose socket was closed without our seeing it. */
static __always_inline void count_if_orphan(struct sock *sk, const struct conn *conn)
{
	__u64 cookie = cookie_now(sk);

	if (conn->phase != PHASE_FAILED && ((conn->cookie && conn->cookie != cookie) ||
					    FIELD(sk, __sk_common.skc_state) == TCP_CLOSE))
		count_lost(NETMON_LOST_SKIPPED);
}

static long count_hashed_orphan(struct bpf_map *map, __u64 *key, struct conn *conn, void *unused)
{
	count_if_orphan(sock_at(*key), conn);
	return 0;
}

static long count_slot_orphan(struct bpf_map *map, __u32 *index, struct slot *slot, void *unused)
{
	if (slot->cookie && slot->cookie != TAKEN)
		count_if_orphan(sock_at(slot->conn.sk), &slot->conn);
	return 0;
}

/*
 * Run once, at exit: for the first task of the iterator. The iterator over the elements of a map
 * would do, but not every kernel allows it, because it may also change them.
 */
SEC("iter/task")
int on_orphans(struct bpf_iter__task *ctx)
{
	if (ctx->meta->seq_num == 0) {
		bpf_for_each_map_elem(&conns, count_hashed_orphan, NULL, 0);
		bpf_for_each_map_elem(&slots, count_slot_orphan, NULL, 0);
	}
	return 0;
}

#ifdef TEST_PROGRAMS
#include "test_programs.h"
#endif
