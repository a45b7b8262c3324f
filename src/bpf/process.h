/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Process records: who did it, read in the context of the process itself.
 *
 * An image is a process after one exec, with one identity. Its record is sent before the first
 * event that refers to it, and only sent again if user space has dropped it or it was lost.
 *
 * Cost on a busy 6.18 machine, where an empty program takes 70 ns: looking up a known image adds 50
 * to 100 ns to an event. Sending a record (128 bytes, path, cgroups, argv) takes 0.7 to 1.1 us,
 * once. An exec takes 2 us; a fork 0.7 us, but the first one of a process 2 us.
 */
#ifndef __PROCESS_H__
#define __PROCESS_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "consts.h"
#include "netmon.h"
#include "ring.h"
#include "filter.h"
#include "identity.h"
#include "recent.h"
#include "scratch.h"
#include "path.h"
#include "cgroup.h"
#include "args.h"

__u64 last_image = 0;

/* State of a process image. Freed with the task. */
struct image {
	__u64 id;	 /* 0: no record sent */
	__u64 start;	 /* as in the record */
	__u64 exec_time; /* 0: we did not see the exec */
	__u64 before;	 /* a thread's own image: id of the leader's */
	struct identity identity;
	__u32 epoch;
	__u32 execs; /* task_struct.self_exec_id; if it has changed, the rest is stale */
	__u8 secureexec;
	__u8 complete;	/* the record lacks nothing that could be read later */
	__u8 evaluated; /* enum evaluation */
	__u8 reserved;
	__u32 reserved2;
	struct filter_set left; /* remaining terms, once evaluated */
};

/*
 * The thread group leader holds the image of the process. Another thread has its own while its
 * credentials differ from the leader's, as in servers that take on the identity of their clients.
 */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct image);
} images SEC(".maps");

static __always_inline struct image *image_of(struct task_struct *task)
{
	struct image *image;

	image = bpf_task_storage_get(&images, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	/* An exec is missed if another one was preempted inside on_exec() on this CPU. */
	if (image && image->execs != (__u32)task->self_exec_id) {
		__builtin_memset(image, 0, sizeof(*image));
		image->execs = task->self_exec_id;
	}
	return image;
}

/* `task` is a thread group leader. Not inlined: the callers' stack is nearly used up. */
static __noinline bool has_identity(struct task_struct *task, struct identity *who)
{
	struct identity its;

	identity_of(task, task, &its);
	return same_identity(&its, who);
}

/* The image that `task` acts as: the leader's, or its own. */
static __always_inline struct image *acting_image(struct task_struct *task,
						  struct task_struct *leader, struct identity *who)
{
	struct image *image = image_of(leader), *own;

	if (!image || task == leader || same_identity(&image->identity, who))
		return image;
	if (has_identity(leader, who))
		return image;
	own = image_of(task);
	if (!own)
		return image;
	own->exec_time = image->exec_time;
	own->secureexec = image->secureexec;
	own->before = image->id;
	return own;
}

static __always_inline __u64 start_of(struct task_struct *leader, struct image *image)
{
	if (image && image->exec_time)
		return image->exec_time;
	return READ(task_struct, leader, start_boottime);
}

/* The parent's part of the header. If the parent execs meanwhile, this was true a moment ago. */
static __always_inline void fill_parent(struct scratch *s, struct task_struct *parent)
{
	struct image *image;

	s->head.parent = 0;
	s->head.parent_start = 0;
	s->head.ppid = parent->tgid;
	if (!s->head.ppid)
		return;
	image = bpf_task_storage_get(&images, parent, 0, 0);
	s->head.parent_start = start_of(parent, image);
	if (!image)
		return;
	s->head.parent = image->id;
	if (image->id)
		s->head.parent_start = image->start;
}

static __always_inline void set_subject(struct subject *subject, struct task_struct *task,
					struct task_struct *leader, bool current)
{
	subject->task = (__u64)task;
	subject->leader = (__u64)leader;
	subject->current = current;
}

/*
 * The following global functions build and send the record of an image of `of`, whose parent is in
 * the header already.
 */

/* Everything of a fixed size. */
__noinline int fill_head(struct scratch *s, const struct subject *of, const struct image *image)
{
	struct task_struct *leader;
	__u32 flags;

	if (!s || !of || !image)
		return 0;
	leader = (struct task_struct *)of->leader;
	s->used = 0;
	s->head.kind = NETMON_KIND_PROCESS;
	s->head.flags = 0;
	s->head.reserved = 0;
	s->head.secureexec = image->secureexec;
	s->head.pid = READ(task_struct, leader, tgid);
	s->head.before = image->id ? image->id : image->before;
	s->head.cloned = READ(task_struct, leader, start_boottime);
	s->head.start = image->exec_time ? image->exec_time : s->head.cloned;
	s->head.cap_inheritable = of->who.cap_inheritable;
	s->head.cap_permitted = of->who.cap_permitted;
	s->head.cap_effective = of->who.cap_effective;
	s->head.uid = of->who.uid;
	s->head.gid = of->who.gid;
	s->head.euid = of->who.euid;
	s->head.egid = of->who.egid;
	s->head.auid = of->who.auid;
	bpf_core_read(&s->head.comm, sizeof(s->head.comm), &leader->comm);
	flags = READ(task_struct, leader, flags);
	if (flags & PF_FORKNOEXEC)
		s->head.flags |= NETMON_PROCESS_CLONED;
	if (flags & PF_KTHREAD)
		s->head.flags |= NETMON_PROCESS_KTHREAD;
	return 0;
}

/* The path of the executable, and the privileges from it unless they are known from its exec. */
__noinline int append_exe(struct scratch *s, const struct subject *of, __u64 mm, bool exec_seen)
{
	struct task_struct *task;
	struct file *exe;

	if (!s || !of)
		return 0;
	task = (struct task_struct *)of->task;
	exe = BPF_CORE_READ((struct mm_struct *)mm, exe_file); /* a scalar, unlike READ() */
	if (!exe)
		return 0;
	if (!exec_seen)
		s->head.secureexec |= secureexec_of(exe, READ(task_struct, task, real_cred), false);
	append_path(s, (__u64)exe, (__u64)BPF_CORE_READ(task, fs));
	return 0;
}

static __always_inline void append_all(struct scratch *s, const struct subject *of,
				       struct kept_args *kept, bool exec_seen)
{
	struct task_struct *task = (struct task_struct *)of->task;
	struct task_struct *leader = (struct task_struct *)of->leader;
	__u64 mm = 0;
	__u32 used;

	/* A kernel thread may be using the mm of a process. */
	if (!(s->head.flags & NETMON_PROCESS_KTHREAD))
		mm = (__u64)BPF_CORE_READ(task, mm);
	s->head.argv_len = mm ? argv_len_of((struct mm_struct *)mm) : 0;
	if (mm)
		append_exe(s, of, mm, exec_seen);
	s->head.path_len = s->used;
	append_cgroups(s, (__u64)BPF_CORE_READ(leader, cgroups));
	used = s->used;
	s->head.cgroup_len = used - s->head.path_len;
	if (mm && of->current)
		append_args(s, mm);
	else
		append_kept_args(s, kept, READ(task_struct, leader, self_exec_id));
	s->head.args_len = s->used - used;
}

/* Returns its id, or 0 if there is no room in the ring. */
__noinline __u64 send_image(struct scratch *s, struct subject *of, struct image *image,
			    struct kept_args *kept)
{
	struct task_struct *leader;
	__u32 sent_epoch = epoch;
	__u64 id, exec_time;
	__u32 execs, used;
	bool known;

	if (!s || !of || !image)
		return 0;
	leader = (struct task_struct *)of->leader;
	id = image->id;
	exec_time = image->exec_time;
	execs = image->execs;
	fill_head(s, of, image);
	append_all(s, of, kept, exec_time);

	known = same_identity(&image->identity, &of->who);
	if (!id || !known)
		id = __sync_fetch_and_add(&last_image, 1) + 1;
	s->head.id = id;
	used = s->used;
	if (used > SCRATCH_DATA ||
	    bpf_ringbuf_output(&ring, &s->head, sizeof(s->head) + used, BPF_RB_NO_WAKEUP)) {
		count_lost(NETMON_LOST_PROCESS);
		return 0;
	}
	/* Not before the record is in the ring: another thread may be about to refer to it. */
	if (!known)
		image->evaluated = 0;
	image->identity = of->who;
	image->start = s->head.start;
	image->epoch = sent_epoch;
	image->complete =
		(s->head.parent || !s->head.ppid) &&
		(of->current || s->head.flags & NETMON_PROCESS_KTHREAD ||
		 !(s->head.flags & (NETMON_PROCESS_ARGS_UNREAD | NETMON_PROCESS_ARGS_CUT)));
	barrier();
	image->id = id;
	barrier();
	/* If the process (a parent) exec'd meanwhile, the record is stale: send it again. */
	if (image->exec_time != exec_time ||
	    (__u32)READ(task_struct, leader, self_exec_id) != execs)
		image->id = 0;
	return id;
}

static __always_inline bool is_known(struct image *image, struct identity *who)
{
	return image->id && image->epoch == epoch && same_identity(&image->identity, who);
}

/* The parent's record goes before the child's. `thread` is the one that forked. */
static __always_inline void send_parent(struct scratch *s, struct task_struct *thread,
					struct task_struct *parent, struct task_struct *grandparent)
{
	struct image *image;

	if (!parent->tgid)
		return;
	image = image_of(parent);
	if (!image)
		return;
	identity_of(parent, parent, &s->parent.who);
	if (is_known(image, &s->parent.who))
		return;
	set_subject(&s->parent, thread, parent, false);
	fill_parent(s, grandparent);
	send_image(s, &s->parent, image, bpf_task_storage_get(&kept_args, parent, 0, 0));
}

/*
 * The id of the record that user space already has of the image that `task` acts as, or 0. Not
 * inlined: the stack space of its locals would otherwise be in use during send_image().
 */
static __noinline __u64 sent_record(struct task_struct *task, struct task_struct *leader,
				    bool current)
{
	__u32 sent_epoch = epoch;
	struct identity who;
	struct image *image;
	__u64 id;

	identity_of(task, leader, &who);
	image = acting_image(task, leader, &who);
	if (!image || !is_known(image, &who) || (current && !image->complete))
		return 0;
	/* may have become 0 */
	id = image->id;
	if (current && id)
		remember(leader, &who, id, sent_epoch);
	return id;
}

/*
 * Same, but sends the record first if user space does not have it. 0: failed, which is counted.
 * Each pointer is loaded only once, because of what the verifier does (read.h).
 */
static __always_inline __u64 record_of(struct task_struct *task, struct task_struct *leader,
				       bool current)
{
	struct task_struct *thread, *parent, *grandparent;
	struct image *image;
	struct scratch *s;
	__u64 id = sent_record(task, leader, current);

	if (id)
		return id;
	s = claim_scratch();
	if (!s) {
		count_lost(NETMON_LOST_PROCESS);
		return 0;
	}
	/* May be the idle task (pid 0): the parent of pid 1, of kthreadd, and of itself. */
	thread = leader->real_parent;
	parent = thread->group_leader;
	grandparent = parent->real_parent->group_leader;
	identity_of(task, leader, &s->own.who);
	image = acting_image(task, leader, &s->own.who);
	if (image) {
		send_parent(s, thread, parent, grandparent);
		set_subject(&s->own, task, leader, current);
		fill_parent(s, parent);
		id = send_image(s, &s->own, image, bpf_task_storage_get(&kept_args, leader, 0, 0));
	} else {
		count_lost(NETMON_LOST_PROCESS);
	}
	release_scratch(s);
	return id;
}

/* Same for the current process; must run in its context. A global function. */
__noinline __u64 current_image(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 answer = recall();

	return answer && answer != REJECTED ? answer : record_of(task, task->group_leader, true);
}

/* exec: the previous image is gone, including its credentials. */
static __always_inline void handle_exec(struct task_struct *task)
{
	struct image *image = image_of(task);

	if (image) {
		image->id = 0;
		image->evaluated = 0;
		image->exec_time = bpf_ktime_get_boot_ns();
		image->secureexec =
			secureexec_of(READ(mm_struct, READ(task_struct, task, mm), exe_file),
				      cred_of(task), true);
	}
	renew_kept_args(task);
}

/* fork: the child runs the same executable and has the privileges gained from it. */
static __always_inline void handle_fork(struct task_struct *task, struct task_struct *child)
{
	struct task_struct *leader = task->group_leader;
	struct image *image, *childs;

	keep_args(task, leader);
	image = bpf_task_storage_get(&images, leader, 0, 0);
	if (!image || !image->secureexec || image->execs != (__u32)leader->self_exec_id)
		return;
	childs = image_of(child);
	if (childs)
		childs->secureexec = image->secureexec;
}

#endif
