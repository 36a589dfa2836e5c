/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * /proc/PID/timers, four lines for each timer:
 *   ID: 3
 *   signal: 34/00007ffe1c0a5d60        number/value in hexadecimal
 *   notify: signal/tid.4711            signal, none or thread / pid or tid . number
 *   ClockID: 1                         negative: a CPU clock
 */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/own.h"
#include "proc/text.h"
#include "proc/timers.h"

enum { HAS_SIGNAL = 1, HAS_NOTIFY = 2, HAS_CLOCK = 4, HAS_ALL = 7 };

static bool parse_signal(const char *p, struct proc_timer *t)
{
	int64_t n;

	p = text_int(p, &n);
	if (!p || *p != '/' || n < INT_MIN || n > INT_MAX)
		return false;
	t->signal = n;
	p = text_hex(p + 1, &t->value);
	return p && !*p;
}

static bool parse_notify(const char *p, struct proc_timer *t)
{
	static const struct {
		const char *text;
		int notify;
	} kinds[] = {
		{ "signal/pid.", TIMER_SIGNAL },
		{ "none/pid.", TIMER_NONE },
		{ "thread/pid.", TIMER_THREAD },
		{ "signal/tid.", TIMER_THREAD_ID },
	};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		size_t len = strlen(kinds[i].text);
		uint64_t n;

		if (strncmp(p, kinds[i].text, len))
			continue;
		p = text_dec(p + len, &n);
		t->notify = kinds[i].notify;
		t->target = n;
		return p && !*p && n <= INT_MAX;
	}
	return false;
}

static bool parse_clock(const char *p, struct proc_timer *t)
{
	int64_t n;

	p = text_int(p, &n);
	t->clock = n;
	return p && !*p && n >= INT_MIN && n <= INT_MAX;
}

/* Returns what the line told of the timer; 0: nothing; -EINVAL. */
static int parse_line(const char *line, struct proc_timer *t)
{
	static const struct {
		const char *name;
		bool (*parse)(const char *p, struct proc_timer *t);
		int what;
	} fields[] = {
		{ "signal", parse_signal, HAS_SIGNAL },
		{ "notify", parse_notify, HAS_NOTIFY },
		{ "ClockID", parse_clock, HAS_CLOCK },
	};

	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		const char *value = text_field(line, fields[i].name);

		if (value)
			return fields[i].parse(value, t) ? fields[i].what : -EINVAL;
	}
	return 0;
}

int proc_timers_parse(char *text, struct arena *a, struct proc_timer **ret, size_t *ret_n)
{
	struct proc_timer *list = NULL, *t = NULL;
	size_t n = 0;
	int seen = HAS_ALL;

	for (char *line = text, *next; line; line = next) {
		const char *id;

		next = text_cut_line(line);
		id = text_field(line, "ID");
		if (id) {
			uint64_t number;

			if (seen != HAS_ALL || !text_dec(id, &number) || number > INT_MAX)
				return -EINVAL;
			t = ARENA_PUSH(a, list, n);
			*t = (struct proc_timer){ .id = number };
			seen = 0;
		} else if (t) {
			int what = parse_line(line, t);

			if (what < 0)
				return what;
			seen |= what;
		}
	}
	if (seen != HAS_ALL)
		return -EINVAL;
	*ret = list;
	*ret_n = n;
	return 0;
}

int proc_timers_read(int proc_fd, struct arena *a, struct proc_timer **ret, size_t *ret_n)
{
	autofree char *text = NULL;
	char small[16];
	ssize_t len = read_small_at(proc_fd, "timers", small, sizeof(small));

	if (len <= 0) {
		*ret_n = 0;
		/* Without CONFIG_CHECKPOINT_RESTORE there is no such file. */
		return len;
	}
	len = read_file_at(proc_fd, "timers", &text);
	return len < 0 ? (int)len : proc_timers_parse(text, a, ret, ret_n);
}
