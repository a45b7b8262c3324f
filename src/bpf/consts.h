/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Constants of the kernel's ABI and internals that BTF does not carry.
 */
#ifndef __CONSTS_H__
#define __CONSTS_H__

/* addresses and protocols */
#define AF_INET	      2
#define AF_INET6      10
#define SOCK_STREAM   1
#define IPPROTO_TCP   6
#define IPPROTO_UDP   17
#define IPPROTO_MPTCP 262
#define ETH_P_IP      0x0800
#define ETH_P_IPV6    0x86dd

#define MSG_FASTOPEN 0x20000000

#define SOCKADDR_IN_LEN	 16
#define SOCKADDR_IN6_LEN 24 /* SIN6_LEN_RFC2133: without sin6_scope_id */

/* include/net/tcp_states.h */
enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT,
	TCP_SYN_RECV,
	TCP_FIN_WAIT1,
	TCP_FIN_WAIT2,
	TCP_TIME_WAIT,
	TCP_CLOSE,
	TCP_CLOSE_WAIT,
	TCP_LAST_ACK,
	TCP_LISTEN,
	TCP_CLOSING,
	TCP_NEW_SYN_RECV,
};

/* enum sock_flags: bits of sock_common.skc_flags */
#define SOCK_DEAD 0 /* the last descriptor was closed */
#define SOCK_DONE 1 /* set by tcp_fin() only */

/* include/net/tcp.h: tcp_skb_cb.tcp_flags */
#define TCPHDR_FIN 0x01
#define TCPHDR_SYN 0x02

#define TCP_CA_RECOVERY	     3 /* enum tcp_ca_state */
#define ICSK_TIME_LOSS_PROBE 5 /* inet_connection_sock.icsk_pending */

#define SHUTDOWN_MASK 3 /* sock.sk_shutdown */

/* errno */
#define EPERM	     1
#define EINTR	     4
#define EACCES	     13
#define EEXIST	     17
#define EINVAL	     22
#define EPIPE	     32
#define EOPNOTSUPP   95
#define ECONNABORTED 103
#define ECONNRESET   104
#define EISCONN	     106
#define ETIMEDOUT    110
#define EALREADY     114
#define EINPROGRESS  115
#define ERESTARTSYS  512

/* files */
#define S_IFMT	 0170000
#define S_IFSOCK 0140000
#define S_ISUID	 0004000
#define S_ISGID	 0002000
#define S_IXGRP	 0000010

/* task_struct.flags */
#define PF_FORKNOEXEC 0x00000040
#define PF_KTHREAD    0x00200000

#define UID_GID_MAP_MAX_BASE_EXTENTS 5
#define ID_UNSET		     0xffffffff /* invalid uid or gid, unset loginuid */

/* io_uring */
#define IORING_OP_ACCEPT  13
#define IORING_OP_CONNECT 16

/*
 * System call numbers (asm/unistd.h), the pt_regs members that hold them and the arguments, and the
 * flag of a 32-bit task.
 */
#if defined(__TARGET_ARCH_x86)
#define SYS_CONNECT	  42
#define SYS_ACCEPT	  43
#define SYS_SENDTO	  44
#define SYS_SENDMSG	  46
#define SYS_ACCEPT4	  288
#define SYSCALL_NR(regs)  ((long)(regs)->SYSCALL_NR_MEMBER)
#define SYSCALL_NR_MEMBER orig_ax
#define SYSCALL_ARG1	  di
#define SYSCALL_ARG2	  si
#define SYSCALL_ARG3	  dx
#define SYSCALL_ARG4	  r10
#define SYSCALL_ARG5	  r8
#define SYSCALL_ARG6	  r9
#define TS_COMPAT	  2
#elif defined(__TARGET_ARCH_arm64)
#define SYS_CONNECT	  203
#define SYS_ACCEPT	  202
#define SYS_SENDTO	  206
#define SYS_SENDMSG	  211
#define SYS_ACCEPT4	  242
#define SYSCALL_NR(regs)  ((long)(regs)->SYSCALL_NR_MEMBER)
#define SYSCALL_NR_MEMBER syscallno
#define SYSCALL_ARG1	  orig_x0
#define SYSCALL_ARG2	  user_regs.regs[1]
#define SYSCALL_ARG3	  user_regs.regs[2]
#define SYSCALL_ARG4	  user_regs.regs[3]
#define SYSCALL_ARG5	  user_regs.regs[4]
#define SYSCALL_ARG6	  user_regs.regs[5]
#define TIF_32BIT	  22
#else
#error "this architecture's system call numbers are missing"
#endif

#endif
