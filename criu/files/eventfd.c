/* SPDX-License-Identifier: GPL-2.0-only */
/* Descriptors that stand for an event: eventfd(2), signalfd(2), timerfd_create(2). */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/own.h"
#include "files/classes.h"
#include "files/eventfd.h"
#include "files/probe.h"
#include "proc/text.h"

#define TFD_SET_TICKS _IOW('T', 0, uint64_t) /* linux/timerfd.h: TFD_IOC_SET_TICKS */

static bool is_anon(const struct fd_probe *p, const char *name)
{
	return !strcmp(p->link, name);
}

/* ---- eventfd ---- */

static bool eventfd_match(const struct fd_probe *p)
{
	return is_anon(p, "anon_inode:[eventfd]");
}

/* Before Linux 6.5 only a read would tell a semaphore, and that takes something out of it. */
static int eventfd_dump(struct dump *d, struct fd_probe *p, FileEntry *e)
{
	EventfdFileEntry *efd = MESSAGE(&d->arena, EventfdFileEntry, eventfd_file_entry);

	efd->id = e->id;
	efd->flags = probe_flags(p);
	efd->fown = fown_read(d, p);
	efd->counter = probe_number(p, "eventfd-count", 16, 0);
	efd->semaphore = efd->has_semaphore = probe_number(p, "eventfd-semaphore", 10, 0);
	if (!probe_next(p, "eventfd-semaphore", NULL))
		info("eventfd %#x: if it is a semaphore it will not be one when it is restored "
		     "(before Linux 6.5 that cannot be told)",
		     efd->id);
	e->efd = efd;
	return 0;
}

static int eventfd_open(struct restore *r, const FileEntry *entry)
{
	const EventfdFileEntry *e = entry->efd;
	autoclose int fd =
		eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | (e->semaphore ? EFD_SEMAPHORE : 0));

	(void)r;
	if (fd < 0)
		return fail(errno, "eventfd %#x: make it", e->id);
	if (e->counter && write(fd, &e->counter, sizeof(e->counter)) < 0)
		return fail(errno, "eventfd %#x: set its counter to %#" PRIx64, e->id, e->counter);
	return file_finish(take_fd(&fd), e->flags, "eventfd");
}

FILE_PART(eventfd, efd)

const struct file_class eventfd_class = {
	.name = "eventfd",
	.type = FD_TYPES__EVENTFD,
	.match = eventfd_match,
	.dump = eventfd_dump,
	.has_part = eventfd_has_part,
	.open = eventfd_open,
	.fown = eventfd_fown,
	.flags = eventfd_flags,
};

/* ---- signalfd ---- */

static bool signalfd_match(const struct fd_probe *p)
{
	return is_anon(p, "anon_inode:[signalfd]");
}

static int signalfd_dump(struct dump *d, struct fd_probe *p, FileEntry *e)
{
	e->sgfd = MESSAGE(&d->arena, SignalfdEntry, signalfd_entry);
	e->sgfd->id = e->id;
	e->sgfd->flags = probe_flags(p);
	e->sgfd->fown = fown_read(d, p);
	e->sgfd->sigmask = probe_number(p, "sigmask", 16, 0);
	return 0;
}

static int signalfd_open(struct restore *r, const FileEntry *e)
{
	int fd = syscall(SYS_signalfd4, -1, &e->sgfd->sigmask, sizeof(e->sgfd->sigmask),
			 SFD_CLOEXEC);

	(void)r;
	if (fd < 0)
		return fail(errno, "signalfd %#x: make it", e->id);
	return file_finish(fd, e->sgfd->flags, "signalfd");
}

FILE_PART(signalfd, sgfd)

const struct file_class signalfd_class = {
	.name = "signalfd",
	.type = FD_TYPES__SIGNALFD,
	.match = signalfd_match,
	.dump = signalfd_dump,
	.has_part = signalfd_has_part,
	.open = signalfd_open,
	.fown = signalfd_fown,
	.flags = signalfd_flags,
};

/* ---- timerfd ---- */

static bool timerfd_match(const struct fd_probe *p)
{
	return is_anon(p, "anon_inode:[timerfd]");
}

/* `(5, 10)`: seconds and nanoseconds */
static bool take_time(const struct fd_probe *p, const char *name, uint64_t *sec, uint64_t *nsec)
{
	const char *at = probe_next(p, name, NULL);

	at = at && *at == '(' ? text_dec(at + 1, sec) : NULL;
	return at && *at == ',' && text_dec(text_skip_blanks(at + 1), nsec);
}

/*
 * A periodic timer that expired unread is not armed again before somebody looks: timerfd_gettime
 * does that and counts what was missed. What is left and what was counted are then read together.
 */
static int read_once(struct fd_probe *p, TimerfdEntry *t)
{
	struct itimerspec v;

	if (p->copy < 0 || timerfd_gettime(p->copy, &v) < 0)
		return fail(errno, "pid %d fd %d: read the timer", p->task->process->pid, p->fd);
	int rc = probe_read_info(p);
	if (rc < 0)
		return rc;
	t->ticks = probe_number(p, "ticks", 10, 0);
	if (!take_time(p, "it_value", &t->vsec, &t->vnsec) ||
	    !take_time(p, "it_interval", &t->isec, &t->insec))
		return refuse(EINVAL, "pid %d fd %d: fdinfo does not tell the times of the timer",
			      p->task->process->pid, p->fd);
	return 0;
}

static bool has_time_left(const TimerfdEntry *t)
{
	return t->vsec || t->vnsec;
}

/* Between the two, if only for a moment, it may have expired: that would be in both. */
static int read_timer(struct fd_probe *p, TimerfdEntry *t)
{
	int rc = read_once(p, t);

	if (rc == 0 && t->ticks && has_time_left(t))
		rc = read_once(p, t);
	/* It goes on though it is due just now. */
	if (rc == 0 && t->ticks && (t->isec || t->insec) && !has_time_left(t))
		t->vnsec = 1;
	return rc;
}

/* No time is left, and nothing was counted. */
static bool is_off(const TimerfdEntry *t)
{
	return !has_time_left(t) && !t->ticks;
}

static int timerfd_dump(struct dump *d, struct fd_probe *p, FileEntry *e)
{
	TimerfdEntry *t = MESSAGE(&d->arena, TimerfdEntry, timerfd_entry);
	int rc = read_timer(p, t);

	if (rc < 0)
		return rc;
	t->id = e->id;
	t->flags = probe_flags(p);
	t->fown = fown_read(d, p);
	t->clockid = probe_number(p, "clockid", 10, 0);
	t->settime_flags = probe_number(p, "settime flags", 8, 0);
	e->tfd = t;
	if (is_off(t))
		*ARENA_PUSH(&d->arena, d->timers_off, d->n_timers_off) =
			(struct dump_timer){ p->task, p->fd, t };
	return 0;
}

static int look_again(struct dump *d, const struct dump_timer *t)
{
	const struct process *process = t->task->process;
	autoprobe struct fd_probe p = { .task = t->task, .fd = t->fd, .copy = -1 };
	autoclose int infos =
		openat(process->proc_fd, "fdinfo", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (infos < 0)
		return fail(errno, "pid %d: look at its descriptors", process->pid);
	p.info_dir = infos;
	p.copy = files_dump_fd(d, process->pid, t->fd);
	errno = p.copy < 0 ? -p.copy : 0;
	return read_timer(&p, t->entry);
}

/*
 * From the moment at which it expires until the interrupt has been taken, which on a virtual CPU
 * may take long, a timer looks as if it was off: these are looked at once more, as late as
 * possible.
 */
int timerfds_resolve(struct dump *d)
{
	int rc = 0;

	for (size_t i = 0; i < d->n_timers_off && rc == 0; i++)
		rc = look_again(d, &d->timers_off[i]);
	return rc;
}

static int timerfd_check(const struct restore *r, const FileEntry *e)
{
	(void)r;
	if (e->tfd->vnsec >= 1000000000 || e->tfd->insec >= 1000000000 ||
	    e->tfd->vsec > INT32_MAX || e->tfd->isec > INT32_MAX)
		return refuse(EINVAL, "image files.img: timerfd %#x: its times make no sense",
			      e->id);
	return 0;
}

/* The remaining time is as at dump; an absolute timer is set to the time that this gives. */
static int arm(int fd, const TimerfdEntry *e)
{
	struct itimerspec v = { { e->isec, e->insec }, { e->vsec, e->vnsec } };

	if (e->settime_flags & TFD_TIMER_ABSTIME && (e->vsec || e->vnsec)) {
		struct timespec now;

		(void)clock_gettime(e->clockid, &now);
		v.it_value.tv_sec += now.tv_sec;
		v.it_value.tv_nsec += now.tv_nsec;
		if (v.it_value.tv_nsec >= 1000000000) {
			v.it_value.tv_nsec -= 1000000000;
			v.it_value.tv_sec++;
		}
	}
	return timerfd_settime(fd, e->settime_flags, &v, NULL) < 0 ? -errno : 0;
}

static int timerfd_open(struct restore *r, const FileEntry *entry)
{
	const TimerfdEntry *e = entry->tfd;
	autoclose int fd = timerfd_create(e->clockid, TFD_CLOEXEC);

	(void)r;
	if (fd < 0)
		return fail(errno, "timerfd %#x: make it on clock %u", e->id, e->clockid);
	int rc = e->vsec || e->vnsec || e->isec || e->insec ? arm(fd, e) : 0;
	if (rc < 0)
		return fail(-rc, "timerfd %#x: arm it", e->id);
	if (e->ticks && ioctl(fd, TFD_SET_TICKS, &e->ticks) < 0)
		return fail(errno, "timerfd %#x: set its expirations", e->id);
	return file_finish(take_fd(&fd), e->flags, "timerfd");
}

FILE_PART(timerfd, tfd)

const struct file_class timerfd_class = {
	.name = "timerfd",
	.type = FD_TYPES__TIMERFD,
	.match = timerfd_match,
	.dump = timerfd_dump,
	.has_part = timerfd_has_part,
	.check = timerfd_check,
	.open = timerfd_open,
	.fown = timerfd_fown,
	.flags = timerfd_flags,
};
