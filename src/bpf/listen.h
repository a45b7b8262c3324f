/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * -e listen: sockets that start or stop listening, reported in the task that does it.
 */
#ifndef __LISTEN_H__
#define __LISTEN_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "consts.h"
#include "netmon.h"
#include "ring.h"
#include "filter_conn.h"
#include "conn.h"
#include "socket.h"

/* LISTEN -> CLOSE. Not inlined, to keep its locals off the caller's stack. */
static __noinline void handle_listen_stop(struct sock *sk)
{
	struct conn copy;

	announce_close(sk, TCP_LISTEN);
	if (conn_of(sk) && conn_claim(sk, &copy))
		send_listen(sk, &copy, NETMON_KIND_LISTEN_STOP);
}

#endif
