/* SPDX-License-Identifier: GPL-2.0-only */
#include <signal.h>
#include <fcntl.h>
#include <time.h>

#include "base/own.h"
#include "base/test.h"
#include "proc/timers.h"

static int parse(const char *text, struct proc_timer **ret, size_t *ret_n)
{
	static struct arena a;
	char copy[1024];

	snprintf(copy, sizeof(copy), "%s", text);
	return proc_timers_parse(copy, &a, ret, ret_n);
}

TEST(timers, all_kinds_are_read)
{
	struct proc_timer *t;
	size_t n;

	ASSERT_OK(parse("ID: 1001\nsignal: 10/0000000000001234\nnotify: signal/tid.378\n"
			"ClockID: 1\n"
			"ID: 8\nsignal: 0/ffffffffffffffff\nnotify: none/pid.377\nClockID: -6\n"
			"ID: 0\nsignal: 64/0000000000000000\nnotify: thread/pid.377\nClockID: 11\n"
			"ID: 2147483647\nsignal: 34/7\nnotify: signal/pid.1\nClockID: 0\n",
			&t, &n));
	ASSERT_EQ(n, 4);
	ASSERT_EQ(t[0].id, 1001);
	ASSERT_EQ(t[0].signal, 10);
	ASSERT_EQ(t[0].value, 0x1234);
	ASSERT_EQ(t[0].notify, TIMER_THREAD_ID);
	ASSERT_EQ(t[0].target, 378);
	ASSERT_EQ(t[1].clock, -6);
	ASSERT_EQ(t[1].notify, TIMER_NONE);
	ASSERT_EQ(t[1].value, ~0ull);
	ASSERT_EQ(t[2].notify, TIMER_THREAD);
	ASSERT_EQ(t[3].id, 2147483647);
	ASSERT_EQ(t[3].notify, TIMER_SIGNAL);
}

TEST(timers, no_timers)
{
	struct proc_timer *t;
	size_t n = 7;

	ASSERT_OK(parse("", &t, &n));
	ASSERT_EQ(n, 0);
}

TEST(timers, nonsense_is_refused)
{
	static const char *const bad[] = {
		"ID: 1\n",
		"ID: 1\nsignal: 10/0\nnotify: signal/pid.3\n",
		"ID: x\nsignal: 10/0\nnotify: signal/pid.3\nClockID: 1\n",
		"ID: 99999999999\nsignal: 10/0\nnotify: signal/pid.3\nClockID: 1\n",
		"ID: 1\nsignal: 10\nnotify: signal/pid.3\nClockID: 1\n",
		"ID: 1\nsignal: 10/g\nnotify: signal/pid.3\nClockID: 1\n",
		"ID: 1\nsignal: 10/0\nnotify: siren/pid.3\nClockID: 1\n",
		"ID: 1\nsignal: 10/0\nnotify: signal/pid.\nClockID: 1\n",
		"ID: 1\nsignal: 10/0\nnotify: signal/pid.99999999999\nClockID: 1\n",
		"ID: 1\nsignal: 10/0\nnotify: signal/pid.3\nClockID: 99999999999\n",
		"ID: 1\nID: 2\nsignal: 10/0\nnotify: signal/pid.3\nClockID: 1\n",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct proc_timer *t;
		size_t n;

		if (parse(bad[i], &t, &n) != -EINVAL)
			test_fail(__FILE__, __LINE__, "accepted: %s", bad[i]);
	}
}

TEST(timers, the_kernel_writes_what_is_parsed)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL,
				  .sigev_signo = SIGRTMIN + 3,
				  .sigev_value.sival_ptr = (void *)0xabcdef };
	autoclose int self = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct arena a = { 0 };
	struct proc_timer *t;
	timer_t id;
	size_t n;

	ASSERT_OK(timer_create(CLOCK_PROCESS_CPUTIME_ID, &event, &id));
	int rc = proc_timers_read(self, &a, &t, &n);
	if (rc == -ENOENT)
		test_skip("no /proc/PID/timers (CONFIG_CHECKPOINT_RESTORE)");
	ASSERT_OK(rc);
	ASSERT_EQ(n, 1);
	ASSERT_EQ(t->signal, SIGRTMIN + 3);
	ASSERT_EQ(t->value, 0xabcdef);
	ASSERT_EQ(t->clock, -6);
	ASSERT_EQ(t->target, getpid());
	ASSERT_EQ(t->notify, TIMER_SIGNAL);
}
