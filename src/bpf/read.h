/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Reading kernel structures.
 *
 * Loading a pointer through a pointer that the verifier trusts makes it search all of BTF by name
 * (since 6.4; a millisecond each), and BPF_CORE_READ() is a helper call. bpf_rdonly_cast() (6.2)
 * avoids both: its result is read with plain loads, and a load that faults yields 0. It also
 * accepts a scalar as a pointer, for example one that was read from a file table.
 */
#ifndef __READ_H__
#define __READ_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define HAS_CAST bpf_ksym_exists(bpf_rdonly_cast)

/* Only valid if HAS_CAST. */
#define CAST(type, ptr)                                                                            \
	((struct type *)bpf_rdonly_cast((const void *)(ptr), bpf_core_type_id_kernel(struct type)))

/* Read a member through any kind of pointer, or an address. */
#define READ(type, ptr, member)                                                                    \
	({                                                                                         \
		struct type *at_ = (struct type *)(ptr);                                           \
                                                                                                   \
		HAS_CAST ? CAST(type, at_)->member : BPF_CORE_READ(at_, member);                   \
	})

/* A bitfield of struct tcp_sock. */
#define TCP_BIT(sk, bit)                                                                           \
	(HAS_CAST ? BPF_CORE_READ_BITFIELD(CAST(tcp_sock, sk), bit)                                \
		  : BPF_CORE_READ_BITFIELD_PROBED((struct tcp_sock *)(sk), bit))

#endif
