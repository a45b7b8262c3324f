/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Reading kernel structures.
 *
 * A load of a pointer through a pointer that the verifier trusts makes it search all of BTF by
 * name (6.4 and later: a millisecond each), and BPF_CORE_READ() is a helper call. Both are spared
 * by bpf_rdonly_cast() (6.2): what it returns is read by plain loads, of which those that fault
 * give 0. It takes a number for a pointer as well, one from a file table for instance.
 */
#ifndef __READ_H__
#define __READ_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define HAS_CAST bpf_ksym_exists(bpf_rdonly_cast)

/* Only where HAS_CAST. */
#define CAST(type, ptr)                                                                            \
	((struct type *)bpf_rdonly_cast((const void *)(ptr), bpf_core_type_id_kernel(struct type)))

/* The member of a structure at an address, whatever kind of pointer that is. */
#define READ(type, ptr, member)                                                                    \
	({                                                                                         \
		struct type *at_ = (struct type *)(ptr);                                           \
                                                                                                   \
		HAS_CAST ? CAST(type, at_)->member : BPF_CORE_READ(at_, member);                   \
	})

/* A bit of the socket's struct tcp_sock. */
#define TCP_BIT(sk, bit)                                                                           \
	(HAS_CAST ? BPF_CORE_READ_BITFIELD(CAST(tcp_sock, sk), bit)                                \
		  : BPF_CORE_READ_BITFIELD_PROBED((struct tcp_sock *)(sk), bit))

#endif
