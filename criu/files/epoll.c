/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * epoll(7). An epoll watches descriptions, each under the number that it had when it was added;
 * the number may be closed or mean another file by now. kcmp(2) tells which description it is.
 *
 * At restore the first task that has the epoll adds the targets, each for a moment under its
 * number, before its descriptors come into place.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/own.h"
#include "files/classes.h"
#include "files/epoll.h"
#include "files/files.h"
#include "proc/text.h"

struct dump_epoll {
	const struct dump_task *task;
	int fd;
	EventpollFileEntry *entry;
	struct dump_epoll *next;
};

static bool epoll_match(const struct fd_probe *p)
{
	return !strcmp(p->link, "anon_inode:[eventpoll]");
}

/* `       5 events:       19 data:                5  pos:0 ino:62ef sdev:0`, mostly hexadecimal. */
static bool parse_target(const char *line, EventpollTfdEntry *t)
{
	uint64_t tfd, events, data, ino = 0, sdev = 0;
	int64_t pos = 0;
	const char *p = text_dec(line, &tfd), *at;

	if (!p || !(at = strstr(p, "events:")) || !text_hex(text_skip_blanks(at + 7), &events) ||
	    !(at = strstr(p, "data:")) || !text_hex(text_skip_blanks(at + 5), &data))
		return false;
	if ((at = strstr(p, "pos:")))
		(void)text_int(at + 4, &pos);
	if ((at = strstr(p, "ino:")))
		(void)text_hex(at + 4, &ino);
	if ((at = strstr(p, "sdev:")))
		(void)text_hex(at + 5, &sdev);
	t->tfd = tfd;
	t->events = events;
	t->data = data;
	t->has_dev = t->has_inode = t->has_pos = true;
	t->dev = sdev;
	t->inode = ino;
	t->pos = pos;
	return true;
}

static int epoll_dump(struct dump *d, struct fd_probe *p, FileEntry *e)
{
	EventpollFileEntry *ep = MESSAGE(&d->arena, EventpollFileEntry, eventpoll_file_entry);
	struct dump_epoll *known = arena_new(&d->arena, struct dump_epoll);

	if (p->task == d->own)
		dump_block(d, "an epoll is in flight in a socket; this cannot be dumped");
	ep->id = e->id;
	ep->flags = probe_flags(p);
	ep->fown = fown_read(d, p);
	for (const char *line = NULL; (line = probe_next(p, "tfd", line));) {
		EventpollTfdEntry *t = MESSAGE(&d->arena, EventpollTfdEntry, eventpoll_tfd_entry);

		if (!parse_target(line, t))
			return refuse(EINVAL, "pid %d fd %d: unknown line of fdinfo: tfd: %s",
				      p->task->process->pid, p->fd, line);
		t->id = e->id;
		*ARENA_PUSH(&d->arena, ep->tfd, ep->n_tfd) = t;
	}
	e->epfd = ep;
	*known = (struct dump_epoll){ p->task, p->fd, ep, d->epolls };
	d->epolls = known;
	return 0;
}

/* Which of the targets under the same number it is. */
static uint32_t number_among_same(const EventpollFileEntry *e, size_t i)
{
	uint32_t n = 0;

	for (size_t k = 0; k < i; k++)
		n += e->tfd[k]->tfd == e->tfd[i]->tfd;
	return n;
}

static bool is_target(const struct dump_epoll *ep, size_t i, uint32_t toff, pid_t pid, int fd)
{
	struct kcmp_epoll_slot slot = { .efd = ep->fd,
					.tfd = ep->entry->tfd[i]->tfd,
					.toff = toff };

	return syscall(SYS_kcmp, pid, ep->task->process->pid, KCMP_EPOLL_TFD, fd, &slot) == 0;
}

static const FdinfoEntry *find_target(const struct dump *d, const struct dump_epoll *ep, size_t i,
				      uint32_t toff)
{
	for (size_t k = 0; k < d->n_tasks; k++) {
		const struct dump_task *t = &d->tasks[k];

		for (size_t j = 0; j < t->n_fds; j++)
			if (files_inode(d, t->fds[j]->id) == ep->entry->tfd[i]->inode &&
			    is_target(ep, i, toff, t->process->pid, t->fds[j]->fd))
				return t->fds[j];
	}
	return NULL;
}

static void resolve(struct dump *d, const struct dump_epoll *ep, size_t i)
{
	EventpollTfdEntry *t = ep->entry->tfd[i];
	pid_t pid = ep->task->process->pid;

	uint32_t toff = number_among_same(ep->entry, i);

	if (is_target(ep, i, toff, pid, t->tfd))
		return;
	const FdinfoEntry *found = find_target(d, ep, i, toff);
	if (!found) {
		dump_block(
			d,
			"pid %d fd %d: the epoll watches a file, added as descriptor %u, that no "
			"process of the tree has open any more (inode %#lx)",
			pid, ep->fd, t->tfd, (long)t->inode);
		return;
	}
	t->has_file_id = true;
	t->file_id = found->id;
}

int epolls_resolve(struct dump *d)
{
	for (const struct dump_epoll *ep = d->epolls; ep; ep = ep->next)
		for (size_t i = 0; i < ep->entry->n_tfd; i++)
			resolve(d, ep, i);
	return 0;
}

static int epoll_open(struct restore *r, const FileEntry *e)
{
	int fd = epoll_create1(EPOLL_CLOEXEC);

	(void)r;
	if (fd < 0)
		return fail(errno, "epoll %#x: make it", e->id);
	return file_finish(fd, e->epfd->flags, "epoll");
}

static const FdinfoEntry *fd_of(const struct snapshot_task *t, uint32_t fd)
{
	size_t lo = 0, hi = t->n_fds;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (t->fds[mid]->fd == fd)
			return t->fds[mid];
		if (t->fds[mid]->fd < fd)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

/* What remains of the events of a one-shot target that has fired, and may be there besides. */
#define BITS_KEPT (EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE)

static bool has_fired(const EventpollTfdEntry *target)
{
	return target->events & EPOLLONESHOT && !(target->events & ~BITS_KEPT);
}

static uint32_t ready_events(struct program *program, int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT | POLLPRI };

	if (poll(&p, 1, 0) < 0)
		program->error = fail(errno, "look at the state of what an epoll watches");
	return p.revents;
}

static void add_target(struct program *p, int epoll, int file, const EventpollTfdEntry *target,
		       uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.u64 = target->data };
	void *data = program_data(p, &ev, sizeof(ev));

	CALL(p, "give a file the number that an epoll knows", SYS_dup3, file, target->tfd,
	     O_CLOEXEC);
	if (data)
		CALL(p, "let an epoll watch a file", SYS_epoll_ctl, epoll, EPOLL_CTL_ADD,
		     target->tfd, program_raddr(p, data));
}

/* Reports, and so takes, one event. Nothing but fired targets is in the epoll yet. */
static void take_event(struct program *p, int epoll)
{
	void *room = program_room(p, sizeof(struct epoll_event));

	if (room)
		CALL(p, "let a one-shot target fire", SYS_epoll_wait, epoll, program_raddr(p, room),
		     1, 0);
}

static int file_of_target(const struct restore *r, const struct restore_task *t,
			  const EventpollTfdEntry *target)
{
	const FdinfoEntry *fd = fd_of(t->image, target->tfd);

	return files_fd(r, target->has_file_id ? target->file_id : fd ? fd->id : 0);
}

/*
 * A one-shot target that has fired cannot be added as such: it has to fire again, which takes
 * that it is ready for something. If it is not, it is added for errors and hang-ups, which every
 * target is watched for.
 */
static void epoll_in_task(struct restore *r, struct restore_task *t, const FileEntry *entry,
			  struct program *p)
{
	const EventpollFileEntry *e = entry->epfd;
	int epoll = files_fd(r, entry->id);

	for (size_t i = 0; i < e->n_tfd; i++) {
		int file = has_fired(e->tfd[i]) ? file_of_target(r, t, e->tfd[i]) : -1;
		uint32_t ready = file < 0 ? 0 : ready_events(p, file);

		if (file < 0)
			continue;
		add_target(p, epoll, file, e->tfd[i], e->tfd[i]->events | ready);
		if (ready)
			take_event(p, epoll);
	}
	for (size_t i = 0; i < e->n_tfd; i++) {
		int file = file_of_target(r, t, e->tfd[i]);

		if (file < 0)
			warn("epoll %#x: descriptor %u, which it watches, is not in the images; it "
			     "is left out",
			     e->id, e->tfd[i]->tfd);
		else if (!has_fired(e->tfd[i]))
			add_target(p, epoll, file, e->tfd[i], e->tfd[i]->events);
	}
}

FILE_PART(epoll, epfd)

const struct file_class epoll_class = {
	.name = "epoll",
	.type = FD_TYPES__EVENTPOLL,
	.match = epoll_match,
	.dump = epoll_dump,
	.has_part = epoll_has_part,
	.open = epoll_open,
	.in_task = epoll_in_task,
	.fown = epoll_fown,
	.flags = epoll_flags,
};
