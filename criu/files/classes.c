/* SPDX-License-Identifier: GPL-2.0-only */
/* The kinds of open file description, in the order in which they are asked. */
#include "base/own.h"
#include "files/classes.h"
#include "files/files.h"

const struct file_class *const file_classes[] = {
	&memfd_class,	&tty_class,	 &regular_class, &pipe_class,	&fifo_class,
	&eventfd_class, &signalfd_class, &timerfd_class, &epoll_class,	&pidfd_class,
	&inotify_class, &fanotify_class, &unix_class,	 &bpfmap_class, &tun_class,
};

const size_t n_file_classes = ARRAY_SIZE(file_classes);

const struct file_class *file_class_of(FdTypes type)
{
	for (size_t i = 0; i < n_file_classes; i++)
		if (file_classes[i]->type == type)
			return file_classes[i];
	return NULL;
}
