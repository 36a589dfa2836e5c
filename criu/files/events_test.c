/* SPDX-License-Identifier: GPL-2.0-only */
/* Eventfds, signalfds and timerfds, dumped and made again (files/eventfd.c). */
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include "base/own.h"
#include "files/again_test.h"

static const struct {
	unsigned value;
	int flags;
} eventfds[] = {
	{ 0, 0 },
	{ 7, EFD_NONBLOCK },
	{ 3, EFD_SEMAPHORE | EFD_NONBLOCK },
	{ ~0u, 0 },
};

TEST(eventfd, has_its_counter_again_and_is_a_semaphore_or_none)
{
	struct again a;
	int fds[ARRAY_SIZE(eventfds)];

	again_begin(&a);
	for (size_t i = 0; i < ARRAY_SIZE(eventfds); i++) {
		fds[i] = eventfd(eventfds[i].value, eventfds[i].flags);
		again_add(&a, fds[i]);
	}
	again_cycle(&a);
	for (size_t i = 0; i < ARRAY_SIZE(eventfds); i++) {
		int fd = again_fd(&a, fds[i]);
		eventfd_t value;

		ASSERT_EQ(again_entry(&a, fds[i])->efd->counter, eventfds[i].value);
		ASSERT_EQ(fcntl(fd, F_GETFL) & O_NONBLOCK, eventfds[i].flags & EFD_NONBLOCK);
		if (!eventfds[i].value)
			continue;
		ASSERT_OK(eventfd_read(fd, &value));
		ASSERT_EQ(value, eventfds[i].flags & EFD_SEMAPHORE ? 1 : eventfds[i].value);
	}
	again_end(&a);
}

TEST(eventfd, one_description_behind_two_descriptors_stays_one)
{
	struct again a;
	int fd = eventfd(5, 0), twin = dup(fd);

	again_begin(&a);
	again_add(&a, fd);
	again_add(&a, twin);
	again_add(&a, eventfd(5, 0));
	again_cycle(&a);
	ASSERT_EQ(again_fd(&a, fd), again_fd(&a, twin));
	ASSERT(again_fd(&a, fd) != again_fd(&a, a.fds[2]));
	again_end(&a);
}

TEST(signalfd, is_for_the_same_signals)
{
	struct again a;
	sigset_t set;
	struct signalfd_siginfo got;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMAX);
	int fd = signalfd(-1, &set, SFD_NONBLOCK);
	again_begin(&a);
	again_add(&a, fd);
	again_cycle(&a);
	ASSERT_EQ(again_entry(&a, fd)->sgfd->sigmask, 1ull << (SIGUSR1 - 1) | 1ull << 63);
	ASSERT_OK(sigprocmask(SIG_BLOCK, &set, NULL));
	ASSERT_OK(raise(SIGUSR1));
	ASSERT_EQ(read(again_fd(&a, fd), &got, sizeof(got)), sizeof(got));
	ASSERT_EQ(got.ssi_signo, SIGUSR1);
	ASSERT(fcntl(again_fd(&a, fd), F_GETFL) & O_NONBLOCK);
	again_end(&a);
}

#define FAR 100000 /* seconds: nothing expires during the test */

static const struct {
	int clock, flags;
	struct itimerspec time;
	uint64_t ticks;
} timerfds[] = {
	{ CLOCK_MONOTONIC, 0, { { 0, 0 }, { FAR, 5 } }, 0 },
	{ CLOCK_REALTIME, 0, { { 3, 7 }, { FAR, 0 } }, 0 },
	{ CLOCK_BOOTTIME, 0, { { 0, 0 }, { 0, 0 } }, 0 },
	{ CLOCK_MONOTONIC, TFD_TIMER_ABSTIME, { { 0, 0 }, { 1ull << 30, 0 } }, 0 },
	{ CLOCK_MONOTONIC, 0, { { 0, 0 }, { FAR, 0 } }, 77 },
};

TEST(timerfd, has_its_remaining_time_and_ticks_again)
{
	struct itimerspec before[ARRAY_SIZE(timerfds)];
	int fds[ARRAY_SIZE(timerfds)];
	struct again a;

	again_begin(&a);
	for (size_t i = 0; i < ARRAY_SIZE(timerfds); i++) {
		fds[i] = timerfd_create(timerfds[i].clock, TFD_NONBLOCK);
		ASSERT_OK(timerfd_settime(fds[i], timerfds[i].flags, &timerfds[i].time, NULL));
		if (timerfds[i].ticks)
			ASSERT_OK(ioctl(fds[i], _IOW('T', 0, uint64_t), &timerfds[i].ticks));
		ASSERT_OK(timerfd_gettime(fds[i], &before[i]));
		again_add(&a, fds[i]);
	}
	again_cycle(&a);
	for (size_t i = 0; i < ARRAY_SIZE(timerfds); i++) {
		const TimerfdEntry *e = again_entry(&a, fds[i])->tfd;
		struct itimerspec now;
		uint64_t ticks;

		ASSERT_EQ(e->clockid, timerfds[i].clock);
		ASSERT_EQ(e->settime_flags, timerfds[i].flags);
		ASSERT_OK(timerfd_gettime(again_fd(&a, fds[i]), &now));
		ASSERT_EQ(now.it_interval.tv_sec, timerfds[i].time.it_interval.tv_sec);
		ASSERT_EQ(now.it_interval.tv_nsec, timerfds[i].time.it_interval.tv_nsec);
		/* Time goes by, but not for a timer that stands. */
		ASSERT(now.it_value.tv_sec <= before[i].it_value.tv_sec);
		ASSERT(now.it_value.tv_sec >= before[i].it_value.tv_sec - 60);
		ASSERT_EQ(!now.it_value.tv_sec, !before[i].it_value.tv_sec);
		if (timerfds[i].ticks) {
			ASSERT_EQ(read(again_fd(&a, fds[i]), &ticks, sizeof(ticks)), 8);
			ASSERT_EQ(ticks, timerfds[i].ticks);
		} else {
			ASSERT(read(again_fd(&a, fds[i]), &ticks, sizeof(ticks)) < 0);
		}
	}
	again_end(&a);
}

/* ---- epoll ---- */

/* What it watches is told by the number under which that was added, or by its file. */
TEST(epoll, targets_are_known_even_if_their_number_means_another_file_now)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET, .data.u64 = 0x123456789abcdef };
	int epoll = epoll_create1(EPOLL_CLOEXEC), kept = eventfd(0, 0), moved = eventfd(1, 0);
	struct again a;

	again_begin(&a);
	ASSERT_OK(epoll_ctl(epoll, EPOLL_CTL_ADD, kept, &ev));
	ASSERT_OK(epoll_ctl(epoll, EPOLL_CTL_ADD, moved, &ev));
	int twin = dup(moved);
	ASSERT_OK(dup2(kept, moved));
	again_add(&a, epoll);
	again_add(&a, kept);
	again_add(&a, moved);
	again_add(&a, twin);
	again_cycle(&a);
	const EventpollFileEntry *e = again_entry(&a, epoll)->epfd;
	ASSERT_EQ(e->n_tfd, 2);
	for (size_t i = 0; i < 2; i++) {
		const EventpollTfdEntry *t = e->tfd[i];

		ASSERT_EQ(t->events & ~(EPOLLERR | EPOLLHUP), EPOLLIN | EPOLLET);
		ASSERT_EQ(t->data, 0x123456789abcdef);
		ASSERT_EQ(t->has_file_id, t->tfd == (uint32_t)moved);
		if (t->has_file_id)
			ASSERT_EQ(t->file_id, again_entry(&a, twin)->id);
		else
			ASSERT_EQ(t->tfd, kept);
	}
	again_end(&a);
}

TEST(epoll, a_target_that_nobody_has_open_prevents_the_dump)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int epoll = epoll_create1(0), fd = eventfd(0, 0);
	struct again a;

	again_begin(&a);
	ASSERT_OK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev));
	again_add(&a, epoll);
	again_collect(&a);
	ASSERT_EQ(a.dump.n_blockers, 1);
	ASSERT(strstr(a.dump.blockers[0], "that no process of the tree has open any more"));
	again_end(&a);
}
