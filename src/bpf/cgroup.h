/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The cgroup path of a process.
 */
#ifndef __CGROUP_H__
#define __CGROUP_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "netmon.h"
#include "scratch.h"

struct cgroup_walk {
	struct scratch *s;
	struct cgroup *cgroup;
};

/* One level up. Returns 1 at the root, which has no name, or when out of space. */
static __noinline long cgroup_up(__u32 i, struct cgroup_walk *w)
{
	struct cgroup *cgroup = w->cgroup;
	struct cgroup_subsys_state *up = BPF_CORE_READ(cgroup, self.parent);

	if (!up || !append_name(w->s, BPF_CORE_READ(cgroup, kn, name), CGROUP_END))
		return 1;
	w->cgroup = BPF_CORE_READ(up, cgroup);
	return 0;
}

/*
 * Append the names of a cgroup and its ancestors, last name first. See append_path() for why this
 * uses bpf_loop().
 */
static __always_inline void append_cgroup(struct scratch *s, struct cgroup *cgroup)
{
	struct cgroup_walk w = {.s = s, .cgroup = cgroup};
	int i;

	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_loop)) {
		bpf_loop(NETMON_CGROUP_PARTS, cgroup_up, &w, 0);
	} else {
		for (i = 0; i < NETMON_CGROUP_PARTS; i++)
			if (cgroup_up(i, &w))
				break;
	}
}

/* The cgroup in a v1 controller's hierarchy; NULL if the kernel lacks the controller. */
#define v1_cgroup(css_set, id)                                                                     \
	(bpf_core_enum_value_exists(enum cgroup_subsys_id, id)                                     \
		 ? cgroup_of_subsys(css_set, bpf_core_enum_value(enum cgroup_subsys_id, id))       \
		 : NULL)

static __always_inline struct cgroup *cgroup_of_subsys(struct css_set *set, __u32 id)
{
	struct cgroup_subsys_state *css = NULL;

	bpf_core_read(&css, sizeof(css), &set->subsys[id]);
	return css ? BPF_CORE_READ(css, cgroup) : NULL;
}

/*
 * The cgroup2 path, and the v1 path if it is another one. `address` is that of the css_set. A
 * global function.
 */
__noinline int append_cgroups(struct scratch *s, __u64 address)
{
	struct css_set *set = (struct css_set *)address;
	struct cgroup *v2 = BPF_CORE_READ(set, dfl_cgrp);
	struct cgroup *v1 = v1_cgroup(set, pids_cgrp_id);
	__u32 used;

	if (!s)
		return 0;
	append_cgroup(s, v2);
	if (!v1)
		v1 = v1_cgroup(set, memory_cgrp_id);
	used = s->used;
	if (!v1 || v1 == v2 || used >= CGROUP_END)
		return 0;
	s->data[used] = 0;
	s->used = used + 1;
	append_cgroup(s, v1);
	return 0;
}

#endif
