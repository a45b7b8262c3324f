/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The wire format: everything that passes between the BPF programs and user space.
 *
 * This is the only definition; the Rust types are generated from the skeleton. Records contain only
 * fixed-width integers. Ports are in host byte order, addresses are 16 bytes in network byte order,
 * and times are CLOCK_BOOTTIME in ns.
 */
#ifndef __NETMON_H__
#define __NETMON_H__

#include "vmlinux.h"
#include "consts.h"

/* First byte of every record in the ring. */
enum netmon_kind {
	NETMON_KIND_CONNECT = 1,     /* handshake of an outgoing connection completed */
	NETMON_KIND_ACCEPT = 2,	     /* accept() returned a connection */
	NETMON_KIND_CLOSE = 3,	     /* connection ended */
	NETMON_KIND_FAIL = 4,	     /* outgoing connection failed */
	NETMON_KIND_REQUEST = 5,     /* connect() was called */
	NETMON_KIND_LISTEN = 6,	     /* socket started listening */
	NETMON_KIND_LISTEN_STOP = 7, /* socket stopped listening */
	NETMON_KIND_STATE = 8,	     /* state transition */
	NETMON_KIND_EXISTING = 9,    /* found at the start; one per process that has it */
	NETMON_KIND_RETRANSMIT = 10, /* segment retransmitted */
	NETMON_KIND_DROP = 11,	     /* handshake completed, but the accept queue was full */
	NETMON_KIND_ASKED = 12,	     /* not an event: the target before a BPF program rewrote it */
	NETMON_KIND_PROCESS = 16,    /* struct netmon_process */
	NETMON_KIND_DNS = 17,	     /* struct netmon_dns */
};

enum netmon_flag {
	NETMON_FLAG_EGRESS = 1,	       /* opened by this host */
	NETMON_FLAG_MPTCP = 2,	       /* Multipath TCP, RFC 8684 */
	NETMON_FLAG_BACKLOG = 4,       /* backlog_len and backlog_max are valid */
	NETMON_FLAG_TIMED = 8,	       /* duration_ns is valid */
	NETMON_FLAG_ABORTED_DATA = 16, /* peer sent data after our close(), so we reset */
	NETMON_FLAG_EXISTING = 32,     /* older than the probes */
	NETMON_FLAG_INGRESS = 64,      /* EXISTING: opened by the peer */
	NETMON_FLAG_UNCOUNTED = 128,   /* CLOSE: the kernel keeps no byte counts */
	NETMON_FLAG_REPAIR = 256,      /* CLOSE: in TCP_REPAIR mode, which sends nothing */
};

/* What was retransmitted. */
enum netmon_segment {
	NETMON_SEGMENT_SYN = 1,
	NETMON_SEGMENT_SYN_ACK = 2,
	NETMON_SEGMENT_DATA = 3,
	NETMON_SEGMENT_FIN = 4,	  /* FIN without data */
	NETMON_SEGMENT_PROBE = 5, /* tail loss probe, RFC 8985 section 7 */
};

/* Both ends of a connection. IPv4 addresses are mapped: ::ffff:a.b.c.d. */
struct flow {
	__be32 saddr[4];
	__be32 daddr[4];
	__u32 netns; /* inode number of the network namespace */
	__u16 sport;
	__u16 dport;
};

/* An event of one connection. */
struct netmon_event {
	__u8 kind;    /* enum netmon_kind */
	__u8 states;  /* old (low half) and new TCP state, where they matter */
	__u16 flags;  /* enum netmon_flag */
	__u16 rule;   /* 1 + index of the rule that admitted it; 0: none */
	__u16 error;  /* errno: sk_err, or of the failed call */
	__u64 time;   /* of the event */
	__u64 cookie; /* sock_gen_cookie(), or a time if not available */
	__u64 begun;  /* start as we saw it: tells connections of the same socket apart */
	__u64 image;  /* netmon_process.id of the owner; 0: its record was lost */
	__u32 pid;    /* tgid of the owner */
	__u32 tid;    /* thread that connected or accepted */
	struct flow flow;
	__u32 ifindex; /* sk_bound_dev_if */
	/* From here on 0 unless set for this kind of event. */
	__u32 drops;	      /* listener: sk_drops */
	__u64 closer;	      /* same of the closing process; 0: the owner, or none */
	__u64 duration_ns;    /* CONNECT, FAIL: since connect(), or the SYN if that was later;
			       * CLOSE: since ESTABLISHED; STATE: time in the old state
			       */
	__u64 bytes_sent;     /* payload sent at least once */
	__u64 bytes_received; /* payload received in order */
	__u32 retransmits;    /* tcp_sock.total_retrans */
	__u32 segment;	      /* RETRANSMIT: enum netmon_segment */
	__u32 seq;	      /* RETRANSMIT: of the first byte; not set for a SYN+ACK */
	__u32 seq_len;	      /* RETRANSMIT: length in sequence space */
	__u32 srtt_us;	      /* smoothed round-trip time */
	__u32 backlog_len;    /* listener: sk_ack_backlog */
	__u32 backlog_max;    /* listener: sk_max_ack_backlog */
	__u32 reserved;
};

enum netmon_process_flag {
	NETMON_PROCESS_CLONED = 1,	/* forked and never exec'd (PF_FORKNOEXEC) */
	NETMON_PROCESS_KTHREAD = 2,	/* a kernel thread (PF_KTHREAD) */
	NETMON_PROCESS_ARGS_UNREAD = 4, /* not readable by the BPF program */
	NETMON_PROCESS_ARGS_CUT = 8,	/* cut to NETMON_ARGS_MAX bytes */
	NETMON_PROCESS_PATH_CUT = 16,	/* the path has more than NETMON_PATH_PARTS components */
	NETMON_PROCESS_TITLE = 32,	/* setproctitle() was used, by the kernel's own test */
};

enum netmon_secureexec {
	NETMON_SECUREEXEC_SETUID = 1,
	NETMON_SECUREEXEC_SETGID = 2,
	NETMON_SECUREEXEC_FILE_CAPS = 4,
	NETMON_SECUREEXEC_FILELESS = 8,
};

/* User space checks its own limits against these. */
enum netmon_limit {
	NETMON_CONNECTIONS_MAX = 1 << 20,
	NETMON_PATH_PARTS = 2048,	 /* path components; PATH_MAX allows no more */
	NETMON_PATH_PARTS_UNLOOPED = 48, /* same before Linux 5.17 */
	NETMON_PATH_MAX = 4096,		 /* bytes of path kept; the kernel's PATH_MAX */
	NETMON_ARGS_MAX = 8192,		 /* bytes of argv kept */
	NETMON_CGROUP_PARTS = 16,
	NETMON_CGROUP_MAX = 1024,
	NETMON_NAME_MAX = 256, /* NAME_MAX and a NUL */
	NETMON_DNS_MAX = 4096, /* bytes of a message kept; a power of two */
};

/*
 * A process image: a process after one exec, with one set of credentials. Sent before the first
 * event that refers to it. It is followed by path_len, cgroup_len and args_len bytes: the
 * executable's path and the cgroup's path as NUL-terminated names, last name first (cgroup: the
 * cgroup2 path, an empty name, the path in a v1 hierarchy), then argv as it is in memory.
 */
struct netmon_process {
	__u8 kind;	 /* NETMON_KIND_PROCESS */
	__u8 flags;	 /* enum netmon_process_flag */
	__u8 secureexec; /* enum netmon_secureexec */
	__u8 reserved;
	__u16 path_len;
	__u16 cgroup_len;
	__u16 args_len;
	__u16 argv_len; /* arg_end - arg_start, at most 65535; 0: unknown */
	__u32 pid;
	__u64 id;
	__u64 before; /* id of this process's previous record for the same executable; 0: none */
	__u64 parent; /* id of the parent's record; 0: none */
	__u64 start;  /* time of the exec if we saw it, otherwise of the clone */
	__u64 cloned; /* when the process was forked, as in /proc/PID/stat */
	__u64 parent_start; /* `start` of the parent */
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
 * A DNS response with answers, as received by a socket on this host. It is followed by `len` bytes
 * of the message and by padding, because the ring only reserves constant sizes.
 */
struct netmon_dns {
	__u8 kind; /* NETMON_KIND_DNS */
	__u8 reserved;
	__u16 len;
	__u32 netns; /* inode number of the receiving socket's network namespace */
	__u64 time;  /* when it was received */
};

/* Why something is missing; indexes `lost`. */
enum netmon_lost {
	NETMON_LOST_RING,    /* events: the ring was full */
	NETMON_LOST_TABLE,   /* connections: a table was full */
	NETMON_LOST_PROCESS, /* process records: the ring was full, or out of memory */
	NETMON_LOST_FOLLOW,  /* processes of the command: out of memory to mark them */
	NETMON_LOST_DNS,     /* DNS answers: the ring was more than half full */
	NETMON_LOST_SKIPPED, /* events: the kernel's recursion check skipped the program */
	NETMON_LOST_CAUSES,
};

/* Which events to send; one bit each, and groups that need the same. */
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
	NETMON_WANT_DEFAULT =
		NETMON_WANT_CONNECT | NETMON_WANT_ACCEPT | NETMON_WANT_CLOSE | NETMON_WANT_FAIL,
	/* attempts matter even if no SYN is sent */
	NETMON_WANT_ATTEMPTS = NETMON_WANT_FAIL | NETMON_WANT_REQUEST,
	/* an entry is kept once the connection is up */
	NETMON_WANT_LASTING = NETMON_WANT_CLOSE | NETMON_WANT_STATE | NETMON_WANT_RETRANSMIT,
	NETMON_WANT_OUTGOING = NETMON_WANT_CONNECT | NETMON_WANT_ATTEMPTS | NETMON_WANT_LASTING,
	NETMON_WANT_ACCEPTED = NETMON_WANT_ACCEPT | NETMON_WANT_LASTING,
	NETMON_WANT_LISTENERS = NETMON_WANT_LISTEN | NETMON_WANT_STATE | NETMON_WANT_DROP,
};

/* States at whose entry something happens, by what is traced; one bit each. */
enum netmon_states {
	NETMON_STATES_OUTGOING = 1 << TCP_SYN_SENT | 1 << TCP_ESTABLISHED | 1 << TCP_CLOSE,
	/* in the tracepoint set, which generates the cookie there */
	NETMON_STATES_ACCEPTED = 1 << TCP_SYN_RECV | 1 << TCP_ESTABLISHED,
	NETMON_STATES_CLOSE = 1 << TCP_FIN_WAIT1 | 1 << TCP_LAST_ACK | 1 << TCP_CLOSE,
	NETMON_STATES_LISTENERS = 1 << TCP_LISTEN | 1 << TCP_CLOSE,
	NETMON_STATES_ALL = 0xffff, /* -e state */
};

/* Written once, before load. */
struct netmon_config {
	__u32 wake_mask;   /* wake the reader when a record's address has none of these bits set */
	__u32 tracepoints; /* 1: the tracepoint probe set is in use */
	__u32 existing;	   /* enum netmon_existing */
	__u32 call_twice;  /* 1: on_sys_exit_second is loaded */
	__u32 states;	   /* enum netmon_states */
	__u32 reserved;
	__u64 start; /* when tracing started; existing sockets begin at this time */
};

/* What to do with sockets that exist at the start; one bit each. */
enum netmon_existing {
	NETMON_EXISTING_TRACK = 1,  /* trace them from now on */
	NETMON_EXISTING_REPORT = 2, /* send EXISTING events for them */
};

_Static_assert(sizeof(struct netmon_event) == 160, "netmon_event has no padding");
_Static_assert(sizeof(struct netmon_process) == 128, "netmon_process has no padding");
_Static_assert(sizeof(struct netmon_dns) == 16, "netmon_dns has no padding");
_Static_assert(sizeof(struct netmon_config) == 32, "netmon_config has no padding");

#endif
