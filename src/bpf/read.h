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
 * The object for newer kernels is compiled with HAS_CAST=1 (build.rs): without code for both cases
 * it is verified in less time, and events cost less. In the object for all kernels, "likely" moves
 * the other code to the end of each function, where the verifier removes it in one piece.
 */
#ifndef HAS_CAST
#define HAS_CAST __builtin_expect(bpf_ksym_exists(bpf_rdonly_cast), 1)
#endif

/* Only valid if HAS_CAST. */
#define CAST(type, ptr)                                                                            \
	((struct type *)bpf_rdonly_cast((const void *)(ptr), bpf_core_type_id_kernel(struct type)))

/* Any kind of pointer, or an address, as a typed pointer for FIELD(). */
#define AT(type, ptr) (HAS_CAST ? CAST(type, ptr) : (struct type *)(ptr))

/*
 * Read a scalar member through a pointer that has its type: an argument of a program, or the result
 * of AT(). Through a trusted pointer this is one instruction, where it has eight otherwise, because
 * a load that may fault checks its address first. So the verifier does not accept one load for both
 * kinds, and the compiler must not merge them: that is what the barrier is for.
 */
#define FIELD(ptr, member)                                                                         \
	({                                                                                         \
		__auto_type value_ = HAS_CAST ? (ptr)->member : BPF_CORE_READ(ptr, member);        \
                                                                                                   \
		barrier_var(value_);                                                               \
		value_;                                                                            \
	})

/* Read one member through any kind of pointer, or an address. */
#define READ(type, ptr, member)                                                                    \
	({                                                                                         \
		struct type *at_ = (struct type *)(ptr);                                           \
                                                                                                   \
		FIELD(AT(type, at_), member);                                                      \
	})

/* A bitfield of struct tcp_sock, all of which are declared as u8. `tcp` is from AT(). */
#define TCP_BIT(tcp, bit)                                                                          \
	({                                                                                         \
		const struct tcp_sock *tcp_ = (tcp);                                               \
		const int at_ = __CORE_RELO(tcp_, bit, BYTE_OFFSET);                               \
		__u64 bits_;                                                                       \
                                                                                                   \
		if (HAS_CAST)                                                                      \
			bits_ = *((const __u8 *)tcp_ + at_);                                       \
		else                                                                               \
			bits_ = probe_byte((const void *)tcp_ + at_);                              \
		bits_ << __CORE_RELO(tcp_, bit, LSHIFT_U64) >> __CORE_RELO(tcp_, bit, RSHIFT_U64); \
	})

/* A load that comes after all others. Only x86 keeps their order by itself. */
static __always_inline __u64 load_last(__u64 *word)
{
#if defined(__TARGET_ARCH_x86)
	barrier();
	return *(volatile __u64 *)word;
#else
	return __sync_fetch_and_add(word, 0);
#endif
}

static __always_inline __u8 probe_byte(const void *address)
{
	__u8 byte = 0;

	bpf_probe_read_kernel(&byte, sizeof(byte), address);
	return byte;
}

#endif
