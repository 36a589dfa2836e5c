/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef FILES_CLASSES_H
#define FILES_CLASSES_H

struct file_class;

extern const struct file_class regular_class, pipe_class, fifo_class, eventfd_class, signalfd_class,
	timerfd_class, epoll_class, pidfd_class, memfd_class, inotify_class, fanotify_class,
	tty_class, unix_class, bpfmap_class, tun_class;

#endif
