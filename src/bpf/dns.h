/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * DNS answers, copied as sockets receive them.
 *
 * The program sees every packet that a socket on this host receives, so for nearly all of them it
 * only checks the source port. Messages are not parsed here: dns/message.rs does that, and treats
 * them as hostile. No packet is ever dropped.
 *
 * Not seen: answers over TLS or HTTPS. Over TCP: messages that start in the middle of a segment,
 * unless they directly follow another one, and whatever continues past the segment in which a
 * message starts.
 */
#ifndef __DNS_H__
#define __DNS_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include "consts.h"
#include "netmon.h"
#include "ring.h"

#define DNS_PORT	  53
#define DNS_PORT_MDNS	  5353
#define DNS_TCP_MESSAGES  4    /* messages read per segment */
#define DNS_SMALL_MAX	  512  /* nearly all fit; a power of two */
#define DNS_FLAG_RESPONSE 0x80 /* QR */
#define DNS_MASK_OPCODE	  0x78
#define DNS_MASK_RCODE	  0x0f

#define DNS_IP_PLAIN   0x45 /* first byte: version 4, a header without options */
#define DNS_IP_HEADER  20
#define DNS_IP6_HEADER 40
#define DNS_UDP_HEADER 8

struct dns_header {
	__u16 id;
	__u8 flags; /* QR, opcode, AA, TC, RD */
	__u8 rcode; /* RA, Z, AD, CD, RCODE */
	__be16 questions;
	__be16 answers;
	__be16 authorities;
	__be16 additionals;
};

struct dns_segment {
	__u32 at; /* offset of the transport header from the network header */
	__u8 is_tcp;
};

static __always_inline bool is_dns_port(__be16 port)
{
	return port == bpf_htons(DNS_PORT) || port == bpf_htons(DNS_PORT_MDNS);
}

/*
 * Is the source port a DNS port, or hard to find? Nearly all packets stop here, so this must be
 * simple enough to save no registers.
 */
static __always_inline bool may_be_dns(struct __sk_buff *skb)
{
	__u8 *data = (__u8 *)(long)skb->data, *end = (__u8 *)(long)skb->data_end;

	if (data + DNS_IP_HEADER + sizeof(__be16) > end)
		return false;
	if (data[0] == DNS_IP_PLAIN)
		return is_dns_port(*(__be16 *)(data + DNS_IP_HEADER));
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		data += (data[0] & 0x0f) * 4;
	} else {
		if (data + DNS_IP6_HEADER > end)
			return false;
		if (data[6] != IPPROTO_TCP && data[6] != IPPROTO_UDP)
			return true;
		data += DNS_IP6_HEADER;
	}
	return data + sizeof(__be16) <= end && is_dns_port(*(__be16 *)data);
}

/*
 * Find the transport header of a message from a DNS port.
 *
 * The kernel pulls the headers, up to and including the transport header, into the linear area
 * before it looks up the socket, so they can be read in place. With IPv6 extension headers,
 * transport_header is right because the kernel has already parsed them.
 */
static __always_inline bool dns_port(struct __sk_buff *skb, struct dns_segment *segment)
{
	__u8 *data = (__u8 *)(long)skb->data, *end = (__u8 *)(long)skb->data_end;
	struct sk_buff *packet = (struct sk_buff *)skb;
	__u32 at;
	__u8 protocol;
	__be16 port;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (data + DNS_IP_HEADER > end)
			return false;
		at = (data[0] & 0x0f) * 4;
		protocol = data[9];
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (data + DNS_IP6_HEADER > end)
			return false;
		at = DNS_IP6_HEADER;
		protocol = data[6];
		if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) {
			at = BPF_CORE_READ(packet, transport_header) -
			     BPF_CORE_READ(packet, network_header);
			protocol = BPF_CORE_READ(packet, sk, sk_protocol);
			if (at > 1024)
				return false;
		}
	} else {
		return false;
	}
	if (data + at + DNS_UDP_HEADER > end)
		return false;
	port = *(__be16 *)(data + at);
	segment->at = at;
	segment->is_tcp = protocol == IPPROTO_TCP;
	return is_dns_port(port) && (segment->is_tcp || protocol == IPPROTO_UDP);
}

/* Does a response with answers start here? */
static __always_inline bool dns_answers(struct __sk_buff *skb, __u32 at)
{
	struct dns_header header;

	if (bpf_skb_load_bytes(skb, at, &header, sizeof(header)))
		return false;
	return (header.flags & (DNS_FLAG_RESPONSE | DNS_MASK_OPCODE)) == DNS_FLAG_RESPONSE &&
	       !(header.rcode & DNS_MASK_RCODE) && header.answers;
}

/* `max` must be a constant, as bpf_ringbuf_reserve() requires. `len` is at least 1. */
static __always_inline void dns_copy(struct __sk_buff *skb, __u32 at, __u32 len, const __u32 max)
{
	/* while the program runs, skb->sk is the receiving socket */
	struct sk_buff *packet = (struct sk_buff *)skb;
	struct netmon_dns *dns;

	dns = bpf_ringbuf_reserve(&ring, sizeof(*dns) + max, 0);
	if (!dns) {
		count_lost(NETMON_LOST_DNS);
		return;
	}
	/* clamps to 1..max in a form that every verifier understands */
	len = ((len - 1) & (max - 1)) + 1;
	dns->kind = NETMON_KIND_DNS;
	dns->reserved = 0;
	dns->len = len;
	dns->netns = BPF_CORE_READ(packet, sk, __sk_common.skc_net.net, ns.inum);
	dns->time = bpf_ktime_get_boot_ns();
	if (bpf_skb_load_bytes(skb, at, dns + 1, len))
		bpf_ringbuf_discard(dns, BPF_RB_NO_WAKEUP);
	else
		bpf_ringbuf_submit(dns, BPF_RB_NO_WAKEUP);
}

/* Copy `len` bytes, or as many as fit. A global function. */
__noinline int dns_send(struct __sk_buff *skb, __u32 at, __u32 len)
{
	/* DNS is best effort: once the ring is half full, drop answers to leave room for events. */
	if (bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) >
	    bpf_ringbuf_query(&ring, BPF_RB_RING_SIZE) / 2)
		count_lost(NETMON_LOST_DNS);
	else if (len <= DNS_SMALL_MAX)
		dns_copy(skb, at, len, DNS_SMALL_MAX);
	else
		dns_copy(skb, at, len < NETMON_DNS_MAX ? len : NETMON_DNS_MAX, NETMON_DNS_MAX);
	return 0;
}

static __always_inline void dns_datagram(struct __sk_buff *skb, __u32 at)
{
	if (dns_answers(skb, at))
		dns_send(skb, at, skb->len - at);
}

/* Over TCP every message has a two-byte length prefix. */
static __always_inline void dns_stream(struct __sk_buff *skb, __u32 at)
{
	__u32 rest, len;
	__be16 prefix;
	int i;

	for (i = 0; i < DNS_TCP_MESSAGES; i++) {
		if (bpf_skb_load_bytes(skb, at, &prefix, sizeof(prefix)))
			return;
		len = bpf_ntohs(prefix);
		if (!dns_answers(skb, at + sizeof(prefix))) {
			/* the prefix may have come in a segment of its own */
			if (i == 0)
				dns_datagram(skb, at);
			return;
		}
		at += sizeof(prefix);
		rest = skb->len - at;
		dns_send(skb, at, len && len < rest ? len : rest);
		at += len;
	}
}

static __noinline void handle_packet(struct __sk_buff *skb)
{
	struct dns_segment segment;
	__u8 words;

	if (!dns_port(skb, &segment))
		return;
	if (!segment.is_tcp)
		dns_datagram(skb, segment.at + DNS_UDP_HEADER);
	else if (!bpf_skb_load_bytes(skb, segment.at + 12, &words, sizeof(words)))
		dns_stream(skb, segment.at + (words >> 4) * 4);
}

#endif
