/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Reading kernel structures.
 *
 * Loading a pointer through a pointer that the verifier trusts makes it search all of BTF by name
 * (since 6.4; a millisecond each), and BPF_CORE_READ() is a helper call. bpf_rdonly_cast() (6.2)
 * avoids both: its result is read with plain loads, and a load that faults yields 0. It also
 * accepts a scalar as a pointer, for example one that was read from a file table.
 *
 * A global function (`__noinline` without `static`) is verified once in each program, not on every
 * path to it. It may not be given a socket or a task, only an address, so that everything in it is
 * read through READ() or sock_at(), and it cannot call helpers that need the real thing.
 */
#ifndef __READ_H__
#define __READ_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

/*
 * "Likely" moves the other code to the end of each function. The verifier removes it in one piece
 * there, which would otherwise take as long as a third of the verification.
 */
#define HAS_CAST __builtin_expect(bpf_ksym_exists(bpf_rdonly_cast), 1)

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

/*
 * Read a scalar member through a pointer that has its type: an argument of a program, or the result
 * of READ(). Through a trusted pointer this is one instruction, where READ() has eight, because a
 * load that may fault checks its address first.
 */
#define FIELD(ptr, member) (HAS_CAST ? (ptr)->member : BPF_CORE_READ(ptr, member))

/* A bitfield of struct tcp_sock, all of which are declared as u8. */
#define TCP_BIT(sk, bit)                                                                           \
	({                                                                                         \
		const struct tcp_sock *tcp_ = (const struct tcp_sock *)(sk);                       \
		const int at_ = __CORE_RELO(tcp_, bit, BYTE_OFFSET);                               \
		__u64 bits_;                                                                       \
                                                                                                   \
		if (HAS_CAST)                                                                      \
			bits_ = *((const __u8 *)CAST(tcp_sock, tcp_) + at_);                       \
		else                                                                               \
			bits_ = probe_byte((const void *)tcp_ + at_);                              \
		bits_ << __CORE_RELO(tcp_, bit, LSHIFT_U64) >> __CORE_RELO(tcp_, bit, RSHIFT_U64); \
	})

static __always_inline __u8 probe_byte(const void *address)
{
	__u8 byte = 0;

	bpf_probe_read_kernel(&byte, sizeof(byte), address);
	return byte;
}

#endif
