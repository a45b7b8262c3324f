/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Applies the filter to processes. Each image is evaluated once, and keeps the remaining terms.
 */
#ifndef __FILTER_PROCESS_H__
#define __FILTER_PROCESS_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "consts.h"
#include "netmon.h"
#include "ring.h"
#include "scratch.h"
#include "read.h"
#include "identity.h"
#include "path.h"
#include "cgroup.h"
#include "filter.h"
#include "process.h"

#define CONTAINER_ID 64 /* hex digits */

enum evaluation {
	NOT_EVALUATED,
	IMAGE_POSSIBLE,
	IMAGE_REJECTED, /* no connection can match */
};

/* Input of an evaluation, and the terms that remain; too large for the stack. */
struct filter_scratch {
	__u32 busy;
	__u32 supervised; /* the child cgroup just visited is called "supervisor" */
	__u32 from, to;	  /* read and write position of fill_machine() */
	struct identity identity;
	struct filter_set left;
	struct filter_flow flow;
	struct filter_who who;
	__u32 at; /* start of the path, which is built backwards */
	__u8 path[NETMON_PATH_MAX + 2 * NETMON_NAME_MAX];
	__u8 name[2 * NETMON_NAME_MAX];
	__u64 id[CONTAINER_ID / 8];
};

/* Several slots per CPU, as for process records (scratch.h). */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCH_SLOTS);
	__type(key, __u32);
	__type(value, struct filter_scratch);
} filter_scratches SEC(".maps");

static __always_inline struct file *exe_of(struct task_struct *task)
{
	struct mm_struct *mm = READ(task_struct, task, mm);

	return mm ? READ(mm_struct, mm, exe_file) : NULL;
}

/* The base name of the executable; for a kernel thread its comm. */
static __always_inline __u32 fill_binary_name(struct filter_text *into, struct task_struct *leader,
					      struct file *exe)
{
	struct dentry *dentry;

	__builtin_memset(into->text, 0, sizeof(into->text));
	if (!exe) {
		bpf_core_read(into->text, sizeof(leader->comm), &leader->comm);
		return 0;
	}
	dentry = BPF_CORE_READ(exe, f_path.dentry);
	bpf_probe_read_kernel_str(into->text, sizeof(into->text),
				  BPF_CORE_READ(dentry, d_name.name));
	return BPF_CORE_READ(dentry, d_name.len);
}

/*
 * Bound an offset into a name. The compiler can prove the mask redundant and would drop it; the
 * verifier needs it.
 */
static __always_inline __u32 in_name(__u32 at)
{
	barrier_var(at);
	return at & (NETMON_NAME_MAX - 1);
}

/* Returns 1 at the end, or when out of space. */
static __noinline long prepend_up(__u32 i, struct walk *w)
{
	struct dentry *named = climb(w);
	struct filter_scratch *s = w->filter;
	__u32 len, at = s->at;

	if (!named)
		return w->ended;
	len = BPF_CORE_READ(named, d_name.len);
	if (len >= NETMON_NAME_MAX || at > NETMON_PATH_MAX || at < len + 1) {
		w->ended = false;
		return 1;
	}
	at -= len + 1;
	/* The compiler can prove this bound and would drop the check; the verifier needs it. */
	barrier_var(at);
	if (at > NETMON_PATH_MAX)
		return 1;
	s->path[at] = '/';
	bpf_probe_read_kernel(&s->path[at + 1], in_name(len), BPF_CORE_READ(named, d_name.name));
	s->at = at;
	return w->ended;
}

/* The start of the path, built as in append_path(); empty if the path is too long to be walked. */
static __noinline __u32 fill_binary_path(struct filter_scratch *s, struct filter_text *into,
					 struct task_struct *leader, struct file *exe)
{
	struct walk w = {.filter = s};
	struct fs_struct *fs = READ(task_struct, leader, fs);
	__u32 i, at;

	__builtin_memset(into->text, 0, sizeof(into->text));
	if (!exe)
		return 0;
	w.dentry = BPF_CORE_READ(exe, f_path.dentry);
	w.mount = mount_of(BPF_CORE_READ(exe, f_path.mnt));
	if (fs) {
		w.root = BPF_CORE_READ(fs, root.dentry);
		w.root_mount = mount_of(BPF_CORE_READ(fs, root.mnt));
	}
	s->at = NETMON_PATH_MAX;
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_loop)) {
		bpf_loop(NETMON_PATH_PARTS, prepend_up, &w, 0);
	} else {
		for (i = 0; i < NETMON_PATH_PARTS_UNLOOPED; i++)
			if (prepend_up(i, &w))
				break;
	}
	at = s->at;
	if (!w.ended || at > NETMON_PATH_MAX)
		return 0;
	/* Everything past the path is zero. */
	bpf_probe_read_kernel(into->text, sizeof(into->text), &s->path[at]);
	return NETMON_PATH_MAX - at;
}

/* Does `string`, of at most eight bytes, start at `from`? */
#define LIES_AT(from, string)                                                                      \
	({                                                                                         \
		__u64 there = 0, wanted = 0;                                                       \
                                                                                                   \
		_Static_assert(sizeof(string) <= 9, "too long to be compared at once");            \
		bpf_probe_read_kernel(&there, sizeof(string) - 1, from);                           \
		__builtin_memcpy(&wanted, string, sizeof(string) - 1);                             \
		there == wanted;                                                                   \
	})

/* Are all eight bytes in 0-9a-f? Each sum sets bit 7 of the bytes that reach a bound. */
static __always_inline bool is_hex(__u64 bytes)
{
	const __u64 ones = 0x0101010101010101, tops = ones << 7;
	__u64 digit = (bytes + (0x80 - '0') * ones) & ~(bytes + (0x80 - '9' - 1) * ones);
	__u64 letter = (bytes + (0x80 - 'a') * ones) & ~(bytes + (0x80 - 'f' - 1) * ones);

	return !(bytes & tops) && ((digit | letter) & tops) == tops;
}

struct unescape {
	struct filter_scratch *s;
	__u32 end; /* end of the name */
};

/* Unescape one character. Returns 1 at the end. */
static __noinline long unescape_one(__u32 i, struct unescape *u)
{
	struct filter_scratch *s = u->s;
	__u32 from = s->from, to = s->to;
	__u8 c;

	if (from >= u->end || from >= NETMON_NAME_MAX || to >= FILTER_TEXT_MAX)
		return 1;
	if (LIES_AT(&s->name[in_name(from)], "\\x2d")) {
		c = '-';
		s->from = from + 4;
	} else {
		c = s->name[in_name(from)];
		s->from = from + 1;
	}
	barrier_var(to);
	if (to >= FILTER_TEXT_MAX)
		return 1;
	s->who.container.text[to] = c;
	s->to = to + 1;
	return 0;
}

/*
 * A machine's name is part of its unit's name, in which systemd escapes a dash as \x2d. QEMU
 * machines are not containers.
 */
static __always_inline bool fill_machine(struct filter_scratch *s, __u32 from, __u32 end)
{
	struct unescape u = {.s = s, .end = end};
	__u32 i;

	s->from = from;
	s->to = 0;
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_loop)) {
		bpf_loop(NETMON_NAME_MAX, unescape_one, &u, 0);
	} else {
		for (i = 0; i < NETMON_NAME_MAX; i++)
			if (unescape_one(i, &u))
				break;
	}
	if (!LIES_AT(s->who.container.text, "qemu-"))
		return true;
	__builtin_memset(s->who.container.text, 0, sizeof(s->who.container.text));
	return false;
}

/*
 * If `cgroup` is the name of a container's cgroup, by the rules of src/process/container.rs, store
 * the container's name or ID and return true. Call it from the innermost cgroup outwards, with
 * `supervised` 0 at first: the "supervisor" cgroup of a machine is not part of the container. A
 * global function.
 */
__noinline int fill_container_of(struct filter_scratch *s, __u64 cgroup)
{
	__u32 i, start, len, end, supervised;
	__u8 *name, *into;
	long n;

	if (!s)
		return false;
	name = s->name;
	into = s->who.container.text;
	supervised = s->supervised;
	s->supervised = 0;
	n = bpf_probe_read_kernel_str(name, NETMON_NAME_MAX, (const void *)cgroup);
	if (n <= 1 || n > NETMON_NAME_MAX)
		return false;
	len = n - 1;
	end = len;
	s->supervised = len == 10 && LIES_AT(name, "supervis") && LIES_AT(&name[8], "or");
	if (len > 6 && LIES_AT(&name[in_name(len - 6)], ".scope"))
		end -= 6;
	if (LIES_AT(name, "machine-")) {
		if (supervised)
			return false;
		if (end < len)
			return end > 8 && fill_machine(s, 8, end);
	}
	if (len > 23 && LIES_AT(name, "systemd-") && LIES_AT(&name[7], "-nspawn@") &&
	    LIES_AT(&name[in_name(len - 8)], ".service"))
		return !supervised && fill_machine(s, 15, len - 8);
	if (end < CONTAINER_ID)
		return false;
	start = in_name(end - CONTAINER_ID);
	if (start && !LIES_AT(&name[in_name(start - 1)], "-") &&
	    !LIES_AT(&name[in_name(start - 1)], ":"))
		return false;
	if (start >= 7 && LIES_AT(&name[in_name(start - 7)], "conmon-"))
		return false;
	bpf_probe_read_kernel(s->id, sizeof(s->id), &name[start]);
	for (i = 0; i < CONTAINER_ID / 8; i++)
		if (!is_hex(s->id[i]))
			return false;
	bpf_probe_read_kernel(into, sizeof(s->id), s->id);
	return true;
}

static __noinline bool fill_container_in(struct filter_scratch *s, struct cgroup *cgroup)
{
	struct cgroup_subsys_state *up;
	int i;

	s->supervised = 0;
	for (i = 0; i < NETMON_CGROUP_PARTS && cgroup; i++) {
		up = BPF_CORE_READ(cgroup, self.parent);
		if (!up)
			break;
		if (fill_container_of(s, (__u64)BPF_CORE_READ(cgroup, kn, name)))
			return true;
		cgroup = BPF_CORE_READ(up, cgroup);
	}
	return false;
}

/* The innermost container wins; cgroup2 is searched before v1. */
static __always_inline void fill_container(struct filter_scratch *s, struct task_struct *leader)
{
	struct css_set *set = READ(task_struct, leader, cgroups);
	struct cgroup *v2 = BPF_CORE_READ(set, dfl_cgrp);
	struct cgroup *v1 = v1_cgroup(set, pids_cgrp_id);

	__builtin_memset(s->who.container.text, 0, sizeof(s->who.container.text));
	if (!v1)
		v1 = v1_cgroup(set, memory_cgrp_id);
	if (!fill_container_in(s, v2) && v1 && v1 != v2)
		fill_container_in(s, v1);
}

static __noinline bool is_in_cgroup(struct cgroup *cgroup)
{
	struct cgroup_subsys_state *up;
	__u64 id;
	int i;

	for (i = 0; i < FILTER_LEVELS && cgroup; i++) {
		id = BPF_CORE_READ(cgroup, kn, id);
		if (bpf_map_lookup_elem(&filter_cgroups, &id))
			return true;
		up = BPF_CORE_READ(cgroup, self.parent);
		cgroup = up ? BPF_CORE_READ(up, cgroup) : NULL;
	}
	return false;
}

/* Only what the filter uses; the verifier drops the rest as dead code. */
static __always_inline void fill_who(struct filter_scratch *s, struct task_struct *leader,
				     struct identity *identity)
{
	struct task_struct *parent =
		READ(task_struct, READ(task_struct, leader, real_parent), group_leader);
	struct filter_who *who = &s->who;

	who->uid = identity->uid;
	who->euid = identity->euid;
	who->gid = identity->gid;
	who->egid = identity->egid;
	who->auid = identity->auid;
	who->pid = leader->tgid;
	who->ppid = READ(task_struct, parent, tgid);
	if (filter_uses(FILTER_CGROUP))
		who->in_cgroup = is_in_cgroup(BPF_CORE_READ(leader, cgroups, dfl_cgrp));
	if (filter_uses(FILTER_CONTAINER))
		fill_container(s, leader);
	if (filter_uses(FILTER_BINARY_NAME))
		who->name_len = fill_binary_name(&who->name, leader, exe_of(leader));
	if (filter.fields & FILTER_PATHS)
		who->path_len = fill_binary_path(s, &who->path, leader, exe_of(leader));
	if (filter_uses(FILTER_PARENT_NAME))
		who->parent_name_len = fill_binary_name(&who->parent_name, parent, exe_of(parent));
	if (filter.fields & FILTER_PPATHS)
		who->parent_path_len =
			fill_binary_path(s, &who->parent_path, parent, exe_of(parent));
}

static __noinline void evaluate_who(struct filter_set *left, struct filter_who *who)
{
	filter_evaluate_who(left, who);
}

/* The image that `task` acts as. Its evaluation is discarded if the identity has changed since. */
static __noinline struct image *
image_to_evaluate(struct filter_scratch *s, struct task_struct *task, struct task_struct *leader)
{
	struct image *image;

	identity_of(task, leader, &s->identity);
	image = acting_image(task, leader, &s->identity);
	if (image && !same_identity(&image->identity, &s->identity)) {
		/* A new identity makes a new image, which needs its own record. */
		image->identity = s->identity;
		image->id = 0;
		image->evaluated = NOT_EVALUATED;
	}
	return image;
}

/* Leave the terms that match the process in s->left; false if no connection can match. */
static __always_inline bool evaluate_task(struct filter_scratch *s, struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;
	struct image *image = image_to_evaluate(s, task, leader);

	if (!image) {
		count_lost(NETMON_LOST_TABLE);
		return false;
	}
	if (!image->evaluated) {
		filter_all(&image->left);
		fill_who(s, leader, &s->identity);
		evaluate_who(&image->left, &s->who);
		image->evaluated = filter_verdict(&image->left) == FILTER_REJECTED ? IMAGE_REJECTED
										   : IMAGE_POSSIBLE;
	}
	s->left = image->left;
	if (image->evaluated == IMAGE_POSSIBLE)
		return true;
	remember(leader, &s->identity, REJECTED, epoch);
	return false;
}

/* Like claim_slot(). If no slot is free a connection is lost, which is counted. */
__noinline int claim_filter_slot(void)
{
	__u32 index = SCRATCH_SLOTS;

	if (filter.fields)
		index = CLAIM(filter_scratch, &filter_scratches);
	if (index == SCRATCH_SLOTS)
		count_lost(NETMON_LOST_TABLE);
	return index;
}

/* Evaluate the current process in a claimed scratch slot. A global function. */
__noinline int evaluate_current(__u32 slot)
{
	struct filter_scratch *s;

	/* Without a filter the map does not exist, but the verifier still checks this function. */
	if (!filter.fields)
		return true;
	s = bpf_map_lookup_elem(&filter_scratches, &slot);
	return s && evaluate_task(s, bpf_get_current_task_btf());
}

/* Apply the connection's attributes and return the verdict. A global function. */
__noinline int evaluate_flow(__u32 slot)
{
	struct filter_scratch *s;

	if (!filter.fields)
		return FILTER_UNNAMED;
	s = bpf_map_lookup_elem(&filter_scratches, &slot);
	if (!s)
		return FILTER_REJECTED;
	filter_evaluate_flow(&s->left, &s->flow);
	if (!s->flow.port_pending)
		filter_port(&s->left, FILTER_SPORT, s->flow.ends.sport);
	return filter_verdict(&s->left);
}

#endif
