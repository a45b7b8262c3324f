/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The socket behind a file descriptor of the current task.
 */
#ifndef __FILE_H__
#define __FILE_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "consts.h"
#include "read.h"

static __always_inline struct sock *sock_of_file(struct file *file)
{
	struct socket *socket;

	if (!file)
		return NULL;
	file = AT(file, file);
	if ((READ(inode, FIELD(file, f_inode), i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	socket = FIELD(file, private_data);
	return READ(socket, socket, sk);
}

static __always_inline struct sock *sock_of_fd(__u64 fd)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct files_struct *files = READ(task_struct, task, files);
	struct fdtable *table = AT(fdtable, READ(files_struct, files, fdt));
	void *element;

	if (fd >= FIELD(table, max_fds))
		return NULL;
	/* READ() needs a structure: take the array's element for the member `fd` of a table. */
	element = FIELD(table, fd) + fd;
	element -= bpf_core_field_offset(struct fdtable, fd);
	return sock_of_file((struct file *)READ(fdtable, element, fd));
}

#endif
