/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Decides whether a connection is reported, and under which rule.
 *
 * User space compiles all filters and rules into terms; a term is an AND of comparisons
 * (src/filter.rs). For each attribute, a table maps a value to the set of terms that the value does
 * not rule out. ANDing the sets of all attributes in use yields the terms that hold. This costs one
 * lookup per attribute in use, however many rules there are and however long their lists.
 *
 * `filter` is constant by the time the verifier runs, so code for attributes that no filter uses is
 * not even loaded.
 */
#ifndef __FILTER_H__
#define __FILTER_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "netmon.h"
#include "flow.h"

/* User space checks its own limits against these. */
enum filter_limit {
	FILTER_WORDS = 4,
	FILTER_GROUPS = 8,
	FILTER_TEXT_MAX = 254, /* longest string compared; a key also has room for a NUL */
	FILTER_LEVELS = 32,    /* cgroup levels searched, from the process up */
};

/* Attributes that have a table. */
enum filter_field {
	FILTER_BINARY_NAME,
	FILTER_BINARY_PATH,
	FILTER_BINARY_PREFIX,
	FILTER_PARENT_NAME,
	FILTER_PARENT_PATH,
	FILTER_PARENT_PREFIX,
	FILTER_UID,
	FILTER_EUID,
	FILTER_GID,
	FILTER_EGID,
	FILTER_AUID,
	FILTER_PID,
	FILTER_PPID,
	FILTER_CONTAINER,
	FILTER_CGROUP,
	FILTER_NETNS,
	FILTER_FAMILY,
	FILTER_DIRECTION,
	FILTER_SADDR,
	FILTER_DADDR,
	FILTER_SPORT,
	FILTER_DPORT,
	FILTER_FIELDS,
};

#define FILTER_PATHS  (1 << FILTER_BINARY_PATH | 1 << FILTER_BINARY_PREFIX)
#define FILTER_PPATHS (1 << FILTER_PARENT_PATH | 1 << FILTER_PARENT_PREFIX)

#define FILTER_PROCESS ((1 << FILTER_NETNS) - 1)

/* One bit per term. */
struct filter_set {
	__u64 word[FILTER_WORDS];
};

/* A boolean field has its two rows here; any other field has its row for unlisted values. */
struct filter_rows {
	struct filter_set row[2];
};

struct filter_config {
	__u32 fields; /* bit mask of the fields in use; 0: everything is reported */
	__u32 words;  /* used in each set */
	__u32 groups; /* one term of each group must hold */
	__u32 cidrs;  /* bit mask of address fields that list networks */
	__u16 alike_first, alike_last; /* the most local ports in a row that have the same terms */
	struct filter_rows fallback[FILTER_FIELDS];
	struct filter_set group[FILTER_GROUPS];
	struct filter_set rules; /* unless empty, one must hold too; the first names the rule */
	__u8 rule_of[FILTER_WORDS * 64];
};

CHOICE struct filter_config filter = {};
const enum filter_field filter_field_layout = 0;
const enum filter_limit filter_limit_layout = 0;

struct filter_number {
	__u32 field;
	__u32 value;
};

/* Key for strings, zero-padded; used by the hash table and the trie. */
struct filter_text {
	__u32 bits; /* trie: prefix length in bits; hash table: 0 */
	__u8 field;
	__u8 text[FILTER_TEXT_MAX + 1];
};

/* IPv4 addresses are mapped to ::ffff:0:0/96. */
struct filter_host {
	__u32 field;
	__be32 addr[4];
};

struct filter_net {
	__u32 bits;
	struct filter_host host;
};

/* User space sets max_entries to what the filter lists. */
#define FILTER_MAP(map_type, key_type, map_name)                                                   \
	struct {                                                                                   \
		__uint(type, map_type);                                                            \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                              \
		__uint(max_entries, 1);                                                            \
		__type(key, key_type);                                                             \
		__type(value, struct filter_set);                                                  \
	} map_name SEC(".maps")

FILTER_MAP(BPF_MAP_TYPE_HASH, struct filter_number, filter_numbers);
FILTER_MAP(BPF_MAP_TYPE_HASH, struct filter_text, filter_texts);
FILTER_MAP(BPF_MAP_TYPE_LPM_TRIE, struct filter_text, filter_prefixes);
FILTER_MAP(BPF_MAP_TYPE_HASH, struct filter_host, filter_hosts);
FILTER_MAP(BPF_MAP_TYPE_LPM_TRIE, struct filter_net, filter_nets);
/* IDs of the cgroups given with --cgroup. */
FILTER_MAP(BPF_MAP_TYPE_HASH, __u64, filter_cgroups);
/* Remaining terms of connections whose local port is not known yet; keyed by socket address. */
FILTER_MAP(BPF_MAP_TYPE_HASH, __u64, filter_pending);

/* Local ports, followed by remote ports. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct filter_set);
} filter_ports SEC(".maps");

/* Attributes of a process. Strings are filled in only if a filter uses them. */
struct filter_who {
	__u32 uid;
	__u32 euid;
	__u32 gid;
	__u32 egid;
	__u32 auid;
	__u32 pid;
	__u32 ppid;
	__u32 in_cgroup;
	__u32 name_len;
	__u32 path_len;
	__u32 parent_name_len;
	__u32 parent_path_len;
	struct filter_text name;
	struct filter_text path;
	struct filter_text parent_name;
	struct filter_text parent_path;
	struct filter_text container;
};

/* Attributes of a connection. */
struct filter_flow {
	struct flow ends;
	__u32 ingress;
	__u32 port_pending; /* ends.sport will be evaluated later */
};

static __always_inline bool filter_uses(enum filter_field field)
{
	return filter.fields & 1U << field;
}

static __always_inline void filter_all(struct filter_set *left)
{
	__builtin_memset(left, 0xff, sizeof(*left));
}

static __always_inline void filter_keep(struct filter_set *left,
					const volatile struct filter_set *row)
{
	int i;

#pragma unroll
	for (i = 0; i < FILTER_WORDS; i++)
		if (i < filter.words)
			left->word[i] &= row->word[i];
}

/* Apply the row that was found, or the one for unlisted values. */
static __always_inline void filter_look(struct filter_set *left, enum filter_field field,
					const volatile struct filter_set *row)
{
	filter_keep(left, row ?: &filter.fallback[field].row[0]);
}

static __always_inline void filter_flag(struct filter_set *left, enum filter_field field,
					bool value)
{
	if (!filter_uses(field))
		return;
	filter_keep(left, value ? &filter.fallback[field].row[1] : &filter.fallback[field].row[0]);
}

static __always_inline void filter_number(struct filter_set *left, enum filter_field field,
					  __u32 value)
{
	struct filter_number key = {.field = field, .value = value};

	if (filter_uses(field))
		filter_look(left, field, bpf_map_lookup_elem(&filter_numbers, &key));
}

static __always_inline void filter_text(struct filter_set *left, enum filter_field field,
					struct filter_text *key, __u32 len)
{
	if (!filter_uses(field))
		return;
	key->bits = 0;
	key->field = field;
	/* A truncated string matches nothing. */
	filter_look(left, field,
		    len > FILTER_TEXT_MAX ? NULL : bpf_map_lookup_elem(&filter_texts, key));
}

static __always_inline void filter_prefix(struct filter_set *left, enum filter_field field,
					  struct filter_text *key)
{
	if (!filter_uses(field))
		return;
	key->bits = 8 * (1 + FILTER_TEXT_MAX);
	key->field = field;
	filter_look(left, field, bpf_map_lookup_elem(&filter_prefixes, key));
}

static __always_inline void filter_addr(struct filter_set *left, enum filter_field field,
					const __be32 *addr)
{
	struct filter_net key = {.bits = 8 * sizeof(struct filter_host), .host.field = field};
	struct filter_set *row;

	if (!filter_uses(field))
		return;
	__builtin_memcpy(key.host.addr, addr, sizeof(key.host.addr));
	row = bpf_map_lookup_elem(&filter_hosts, &key.host);
	if (!row && filter.cidrs & 1U << field)
		row = bpf_map_lookup_elem(&filter_nets, &key);
	filter_look(left, field, row);
}

static __always_inline void filter_port(struct filter_set *left, enum filter_field field,
					__u16 port)
{
	__u32 key = (field == FILTER_DPORT) << 16 | port;

	if (filter_uses(field))
		filter_look(left, field, bpf_map_lookup_elem(&filter_ports, &key));
}

static __always_inline void filter_evaluate_who(struct filter_set *left, struct filter_who *who)
{
	filter_number(left, FILTER_UID, who->uid);
	filter_number(left, FILTER_EUID, who->euid);
	filter_number(left, FILTER_GID, who->gid);
	filter_number(left, FILTER_EGID, who->egid);
	filter_number(left, FILTER_AUID, who->auid);
	filter_number(left, FILTER_PID, who->pid);
	filter_number(left, FILTER_PPID, who->ppid);
	filter_flag(left, FILTER_CGROUP, who->in_cgroup);
	filter_text(left, FILTER_BINARY_NAME, &who->name, who->name_len);
	filter_text(left, FILTER_BINARY_PATH, &who->path, who->path_len);
	filter_prefix(left, FILTER_BINARY_PREFIX, &who->path);
	filter_text(left, FILTER_PARENT_NAME, &who->parent_name, who->parent_name_len);
	filter_text(left, FILTER_PARENT_PATH, &who->parent_path, who->parent_path_len);
	filter_prefix(left, FILTER_PARENT_PREFIX, &who->parent_path);
	filter_prefix(left, FILTER_CONTAINER, &who->container);
}

/* Everything except the local port, which may not be known yet. */
static __always_inline void filter_evaluate_flow(struct filter_set *left,
						 const struct filter_flow *flow)
{
	filter_flag(left, FILTER_FAMILY, !is_ipv4(&flow->ends));
	filter_flag(left, FILTER_DIRECTION, flow->ingress);
	filter_number(left, FILTER_NETNS, flow->ends.netns);
	filter_port(left, FILTER_DPORT, flow->ends.dport);
	filter_addr(left, FILTER_DADDR, flow->ends.daddr);
	filter_addr(left, FILTER_SADDR, flow->ends.saddr);
}

static __always_inline __u64 filter_common(const struct filter_set *left,
					   const volatile struct filter_set *wanted)
{
	__u64 common = 0;
	int i;

#pragma unroll
	for (i = 0; i < FILTER_WORDS; i++)
		if (i < filter.words)
			common |= left->word[i] & wanted->word[i];
	return common;
}

/* Index of the lowest set bit; BPF has no instruction for it. */
static __always_inline __u32 filter_lowest(__u64 bits)
{
	__u32 n = 0, step;

#pragma unroll
	for (step = 32; step; step >>= 1) {
		__u32 shift = (bits & ((1ULL << step) - 1)) ? 0 : step;

		bits >>= shift;
		n += shift;
	}
	return n;
}

enum {
	FILTER_REJECTED = -1,
	FILTER_UNNAMED = 0, /* admitted, but not by a rule; otherwise 1 + index of the rule */
};

/* The verdict for the remaining terms. FILTER_REJECTED is final even if attributes are missing. */
static __always_inline int filter_verdict(const struct filter_set *left)
{
	int i;

#pragma unroll
	for (i = 0; i < FILTER_GROUPS; i++)
		if (i < filter.groups && !filter_common(left, &filter.group[i]))
			return FILTER_REJECTED;
	if (!(filter.rules.word[0] | filter.rules.word[1] | filter.rules.word[2] |
	      filter.rules.word[3]))
		return FILTER_UNNAMED;
#pragma unroll
	for (i = 0; i < FILTER_WORDS; i++) {
		__u64 bits = i < filter.words ? left->word[i] & filter.rules.word[i] : 0;

		if (bits)
			return 1 + filter.rule_of[(i * 64 + filter_lowest(bits)) & 255];
	}
	return FILTER_REJECTED;
}

_Static_assert(sizeof(struct filter_text) == 260, "filter_text has no padding");
_Static_assert(sizeof(struct filter_net) == 24, "filter_net has no padding");
_Static_assert(sizeof(struct filter_who) == 12 * 4 + 5 * 260, "filter_who has no padding");
_Static_assert(sizeof(struct filter_flow) == 48, "filter_flow has no padding");

#endif
