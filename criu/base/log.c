/* SPDX-License-Identifier: GPL-2.0-only */
/* Log lines, their levels and prefixes, and the first error of a run. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/own.h"

#define EARLY_MAX 1024 /* bytes of lines kept before log_init */
#define LINE_MAX_ 4096
#define HIGH_FD	  100 /* the log stays clear of the low numbers that users pass in */

static struct {
	bool open;
	int fd;
	int level;
	struct timespec start;
	int task;		/* the task that lines are about; 0: none */
	int task_fd;		/* its own file, or -1 */
	const char *split_path; /* of the files for tasks; NULL: there are none */
	char early[EARLY_MAX];	/* one byte of level, a text that ends in a newline, NUL */
	size_t early_len;
	char first_error[1024];
	int first_errno;
} log_state = { .fd = STDERR_FILENO, .level = LOG_LEVEL_WARN, .task_fd = -1 };

static void write_out(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t n = write(fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* there is nowhere to report that the log cannot be written */
		text += n;
		len -= n;
	}
}

/* "(SS.uuuuuu) " is 12 bytes; from 100 s on the last digit gives way. */
static int put_time(char *out, const struct timespec *since)
{
	struct timespec now;
	char text[32];

	clock_gettime(CLOCK_MONOTONIC, &now);
	long us = (now.tv_sec - since->tv_sec) * 1000000 + (now.tv_nsec - since->tv_nsec) / 1000;

	snprintf(text, sizeof(text), "(%02ld.%06ld", us / 1000000, us % 1000000);
	memcpy(out, text, 10);
	memcpy(out + 10, ") ", 2);
	return 12;
}

static void write_early(int fd, int level)
{
	char *p = log_state.early, *end = p + log_state.early_len;

	while (p < end) {
		size_t len = strnlen(p, end - p);

		if (*p <= level) {
			if (level >= LOG_LEVEL_INFO)
				write_out(fd, "(00.000000) ", 12);
			write_out(fd, p + 1, len - 1);
		}
		p += len + 1;
	}
	log_state.early_len = 0;
}

static int open_log(const char *path)
{
	if (!path)
		return STDERR_FILENO;
	if (!strcmp(path, "-"))
		return STDOUT_FILENO;

	autoclose int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	int high = fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FD);
	return high >= 0 ? high : take_fd(&fd);
}

int log_init(const char *path, int level)
{
	int fd = open_log(path);

	if (fd < 0)
		return fd;
	log_state.fd = fd;
	log_state.level = level;
	log_state.open = true;
	clock_gettime(CLOCK_MONOTONIC, &log_state.start);
	write_early(fd, level);
	return 0;
}

void log_done(void)
{
	if (log_state.open && log_state.fd > STDERR_FILENO)
		(void)close(log_state.fd);
	log_state.open = false;
	log_state.fd = STDERR_FILENO;
	log_state.early_len = 0;
}

void log_flush_early(void)
{
	if (!log_state.open)
		write_early(STDERR_FILENO, LOG_LEVEL_WARN);
}

void log_split(const char *path)
{
	log_state.split_path = path;
}

void log_set_task(int pid)
{
	char name[PATH_MAX];

	own_close(&log_state.task_fd);
	log_state.task_fd = -1;
	log_state.task = pid;
	if (!pid || !log_state.split_path)
		return;
	snprintf(name, sizeof(name), "%s.%d", log_state.split_path, pid);
	log_state.task_fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

int log_get_level(void)
{
	return log_state.level;
}

bool log_is_stderr(void)
{
	return !log_state.open || log_state.fd == STDERR_FILENO;
}

const char *log_first_error(void)
{
	return log_state.first_error;
}

int log_first_errno(void)
{
	return log_state.first_error[0] ? log_state.first_errno : 0;
}

void log_clear_first_error(void)
{
	log_state.first_error[0] = '\0';
}

static int put_prefix(char *out, size_t size, enum log_level level, const char *file, int line)
{
	int len = 0;

	if (log_state.open && log_state.level >= LOG_LEVEL_INFO)
		len = put_time(out, &log_state.start);
	if (log_state.task && log_state.task_fd < 0)
		len += snprintf(out + len, size - len, "%6d: ", log_state.task);
	if (level == LOG_LEVEL_ERROR)
		len += snprintf(out + len, size - len, "Error (%s:%d): ", file, line);
	else if (level == LOG_LEVEL_WARN)
		len += snprintf(out + len, size - len, "Warn  (%s:%d): ", file, line);
	return len;
}

static void emit(enum log_level level, const char *file, int line, const char *text)
{
	char out[LINE_MAX_];
	int len = level == LOG_LEVEL_MSG ? 0 : put_prefix(out, sizeof(out), level, file, line);

	len += snprintf(out + len, sizeof(out) - len - 1, "%s", text);
	len = min(len, (int)sizeof(out) - 2);
	if (!len || out[len - 1] != '\n')
		out[len++] = '\n';

	if (level == LOG_LEVEL_MSG) {
		write_out(STDOUT_FILENO, out, len);
	} else if (log_state.open) {
		write_out(log_state.task_fd >= 0 ? log_state.task_fd : log_state.fd, out, len);
	} else if (log_state.early_len + len + 2 <= EARLY_MAX) {
		log_state.early[log_state.early_len++] = level;
		memcpy(log_state.early + log_state.early_len, out, len);
		log_state.early_len += len;
		log_state.early[log_state.early_len++] = '\0';
	}
}

void log_line(enum log_level level, const char *file, int line, const char *fmt, ...)
{
	char text[LINE_MAX_];
	va_list args;

	/* Before log_init the wanted level is not known yet. */
	if (log_state.open && (int)level > log_state.level)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	emit(level, file, line, text);
}

/* Names come from files and images: what they hold may not steer the terminal or fake a line. */
static void make_printable(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			*text = '?';
}

int log_fail(int err, bool with_cause, const char *file, int line, const char *fmt, ...)
{
	char text[LINE_MAX_];
	va_list args;

	va_start(args, fmt);
	int len = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	len = min(len, (int)sizeof(text) - 1);
	if (with_cause && err)
		snprintf(text + len, sizeof(text) - len, ": %s", strerror(err));
	make_printable(text);

	if (!log_state.first_error[0]) {
		snprintf(log_state.first_error, sizeof(log_state.first_error), "%.1000s", text);
		log_state.first_errno = err;
	}
	if (!log_state.open || log_state.level >= LOG_LEVEL_ERROR)
		emit(LOG_LEVEL_ERROR, file, line, text);
	return err ? -err : -EINVAL;
}
