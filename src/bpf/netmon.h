/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The wire: everything that crosses between the programs and user space.
 *
 * This is its one definition. The skeleton turns it into Rust, so nothing is written
 * twice. Records hold fixed-width integers only; ports are in host order, addresses
 * are 16 bytes in network order, times are CLOCK_BOOTTIME ns.
 */
#ifndef __NETMON_H__
#define __NETMON_H__

#include "vmlinux.h"

/* the first byte of every record in the ring */
enum netmon_kind {
	NETMON_KIND_CONNECT = 1,     /* the handshake of an outgoing connection completed */
	NETMON_KIND_ACCEPT = 2,	     /* accept() returned a connection */
	NETMON_KIND_CLOSE = 3,	     /* the connection ended */
	NETMON_KIND_FAIL = 4,	     /* an outgoing connection did not come up */
	NETMON_KIND_REQUEST = 5,     /* connect() was called */
	NETMON_KIND_LISTEN = 6,	     /* a socket begins to listen */
	NETMON_KIND_LISTEN_STOP = 7, /* a socket stops listening */
	NETMON_KIND_STATE = 8,	     /* a connection goes from one state to another */
	NETMON_KIND_EXISTING =
		9, /* a socket found at the start; once for each process that has it */
	NETMON_KIND_RETRANSMIT = 10, /* a segment was sent again */
	NETMON_KIND_DROP = 11,	     /* a complete connection found its listener's queue full */
	NETMON_KIND_ASKED =
		12, /* no event: where connect() was to go before a program rewrote it */
	NETMON_KIND_PROCESS = 16, /* struct netmon_process */
	NETMON_KIND_DNS = 17,	  /* struct netmon_dns */
};

enum netmon_flag {
	NETMON_FLAG_EGRESS = 1,	       /* this host opened it */
	NETMON_FLAG_MPTCP = 2,	       /* Multipath TCP, RFC 8684 */
	NETMON_FLAG_BACKLOG = 4,       /* backlog_len and backlog_max are known */
	NETMON_FLAG_TIMED = 8,	       /* duration_ns is known */
	NETMON_FLAG_ABORTED_DATA = 16, /* the peer sent data after our close(): we reset it */
	NETMON_FLAG_EXISTING = 32,     /* it was there before the probes */
	NETMON_FLAG_INGRESS = 64,      /* EXISTING: the other host opened it */
	NETMON_FLAG_UNCOUNTED = 128,   /* CLOSE: the kernel does not count its bytes */
	NETMON_FLAG_REPAIR = 256,      /* CLOSE: under TCP_REPAIR, which sends nothing */
};

/* what was sent again */
enum netmon_segment {
	NETMON_SEGMENT_SYN = 1,
	NETMON_SEGMENT_SYN_ACK = 2,
	NETMON_SEGMENT_DATA = 3,
	NETMON_SEGMENT_FIN = 4,	  /* no data but the FIN */
	NETMON_SEGMENT_PROBE = 5, /* a tail loss probe, RFC 8985 section 7 */
};

/* Both ends of a connection: IPv4 addresses as ::ffff:a.b.c.d */
struct flow {
	__be32 saddr[4];
	__be32 daddr[4];
	__u32 netns; /* inode number of the network namespace */
	__u16 sport;
	__u16 dport;
};

/* one thing that happened to one connection */
struct netmon_event {
	__u8 kind;	      /* enum netmon_kind */
	__u8 states;	      /* TCP state left (low half) and reached, where they matter */
	__u16 flags;	      /* enum netmon_flag */
	__u16 rule;	      /* 1 + index of the rule that admitted it, 0: none */
	__u16 error;	      /* errno: sk_err, or the failing call's */
	__u64 time;	      /* when */
	__u64 cookie;	      /* sock_gen_cookie(), or a time where that cannot be had */
	__u64 begun;	      /* when it began for us: tells the connections of one socket apart */
	__u64 image;	      /* netmon_process.id of the owner, 0: its record was lost */
	__u64 closer;	      /* the same of the process that closed it, 0: the owner or none */
	__u64 duration_ns;    /* CONNECT, FAIL: since connect(), or the SYN where that came later;
			       * CLOSE: since ESTABLISHED; STATE: in it
			       */
	__u64 bytes_sent;     /* payload sent at least once */
	__u64 bytes_received; /* payload received in order */
	__u32 pid;	      /* thread group of the owner */
	__u32 tid;	      /* thread that connected or accepted */
	__u32 retransmits;    /* tcp_sock.total_retrans */
	__u32 segment;	      /* RETRANSMIT: enum netmon_segment */
	__u32 seq;	      /* RETRANSMIT: of its first byte, but of a SYN+ACK */
	__u32 seq_len;	      /* RETRANSMIT: sequence numbers it takes */
	__u32 ifindex;	      /* sk_bound_dev_if */
	__u32 drops;	      /* listener: sk_drops */
	__u32 reserved;
	__u32 srtt_us;	   /* smoothed round-trip time */
	__u32 backlog_len; /* listener: sk_ack_backlog */
	__u32 backlog_max; /* listener: sk_max_ack_backlog */
	struct flow flow;
};

enum netmon_process_flag {
	NETMON_PROCESS_CLONED = 1,	/* forked and never exec'd (PF_FORKNOEXEC) */
	NETMON_PROCESS_KTHREAD = 2,	/* a kernel thread (PF_KTHREAD) */
	NETMON_PROCESS_ARGS_UNREAD = 4, /* the arguments could not be read from here */
	NETMON_PROCESS_ARGS_CUT = 8,	/* there were more than NETMON_ARGS_MAX bytes */
	NETMON_PROCESS_PATH_CUT = 16,	/* the path has more than NETMON_PATH_PARTS parts */
	NETMON_PROCESS_TITLE = 32,	/* setproctitle(): the kernel's own test of it holds */
};

enum netmon_secureexec {
	NETMON_SECUREEXEC_SETUID = 1,
	NETMON_SECUREEXEC_SETGID = 2,
	NETMON_SECUREEXEC_FILE_CAPS = 4,
	NETMON_SECUREEXEC_FILELESS = 8,
};

/* User space compares its own limits with these. */
enum netmon_limit {
	NETMON_CONNECTIONS_MAX = 1 << 20,
	NETMON_PATH_PARTS = 2048,	 /* directories walked: PATH_MAX holds no more */
	NETMON_PATH_PARTS_UNLOOPED = 48, /* the same before Linux 5.17 */
	NETMON_PATH_MAX = 4096,		 /* bytes of path kept, the kernel's PATH_MAX */
	NETMON_ARGS_MAX = 8192,		 /* bytes of argv kept */
	NETMON_CGROUP_PARTS = 16,
	NETMON_CGROUP_MAX = 1024,
	NETMON_NAME_MAX = 256, /* NAME_MAX and the NUL */
	NETMON_DNS_MAX = 4096, /* bytes of a message kept; a power of two */
};

/*
 * One process image: what exec made of a process, with one set of credentials. Sent before
 * the first event that names it. Behind it follow path_len, cgroup_len and args_len bytes:
 * the executable's path and the cgroup's path as NUL-ended names, last name first (cgroup:
 * the cgroup2 path, an empty name, the path in a cgroup v1 hierarchy); then argv as it lies
 * in memory.
 */
struct netmon_process {
	__u8 kind;	 /* NETMON_KIND_PROCESS */
	__u8 flags;	 /* enum netmon_process_flag */
	__u8 secureexec; /* enum netmon_secureexec */
	__u8 reserved;
	__u16 path_len;
	__u16 cgroup_len;
	__u16 args_len;
	__u16 argv_len; /* bytes from arg_start to arg_end, no more than 65535; 0: not known */
	__u32 pid;
	__u64 id;
	__u64 before; /* id of the last record of the same executable in this process, 0: none */
	__u64 parent; /* id of the parent's record, 0: none */
	__u64 start;  /* exec if seen, else clone */
	__u64 cloned; /* when the process was forked; as in /proc/PID/stat */
	__u64 parent_start; /* the parent's start */
	__u64 cap_inheritable;
	__u64 cap_permitted;
	__u64 cap_effective;
	__u32 ppid;
	__u32 uid;
	__u32 gid;
	__u32 euid;
	__u32 egid;
	__u32 auid;
	__u8 comm[16];
};

/*
 * A DNS message with answers that a socket of this host received. Behind it follow `len` bytes
 * of the message and, for the ring reserves constant sizes, bytes without meaning.
 */
struct netmon_dns {
	__u8 kind; /* NETMON_KIND_DNS */
	__u8 reserved;
	__u16 len;
	__u32 netns; /* inode number of the receiving socket's network namespace */
	__u64 time;  /* when it came */
};

/* why something is missing; each counts in `lost` */
enum netmon_lost {
	NETMON_LOST_RING,    /* events: the ring was full */
	NETMON_LOST_TABLE,   /* connections: the connection table was full */
	NETMON_LOST_PROCESS, /* process records: the ring was full, or no memory */
	NETMON_LOST_FOLLOW,  /* processes of the command: no memory to mark them */
	NETMON_LOST_DNS,     /* DNS answers: the ring was more than half full */
	NETMON_LOST_SKIPPED, /* events: the kernel skipped the program, it was running already */
	NETMON_LOST_CAUSES,
};

/* which events to send; one bit each */
enum netmon_want {
	NETMON_WANT_CONNECT = 1,
	NETMON_WANT_ACCEPT = 2,
	NETMON_WANT_CLOSE = 4,
	NETMON_WANT_FAIL = 8,
	NETMON_WANT_REQUEST = 16,
	NETMON_WANT_LISTEN = 32,
	NETMON_WANT_STATE = 64,
	NETMON_WANT_RETRANSMIT = 128,
	NETMON_WANT_DROP = 256,
};

/* written once, before load */
struct netmon_config {
	__u32 want;	   /* enum netmon_want */
	__u32 wake_mask;   /* wake the reader where the ring's position has none of these bits */
	__u32 tracepoints; /* 1: the tracepoint probe set is in use */
	__u32 follow;	   /* 1: only what descends from tcptrace itself */
	__u32 existing;	   /* enum netmon_existing */
	__u32 reserved;
	__u64 start; /* when tracing began: what exists then has begun then */
};

/* what to do with the sockets that exist at the start; one bit each */
enum netmon_existing {
	NETMON_EXISTING_TRACK = 1,  /* trace them from here on */
	NETMON_EXISTING_REPORT = 2, /* send their EXISTING records */
};

_Static_assert(sizeof(struct netmon_event) == 160, "netmon_event has no padding");
_Static_assert(sizeof(struct netmon_process) == 128, "netmon_process has no padding");
_Static_assert(sizeof(struct netmon_dns) == 16, "netmon_dns has no padding");
_Static_assert(sizeof(struct netmon_config) == 32, "netmon_config has no padding");

#endif
