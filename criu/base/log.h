/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The log and the first error. This is the only writable global state of the program.
 *
 * Errors are reported once, by the function that knows the cause: it returns
 * fail(errno, "pid %d fd %d: open", ...), callers return the code and stay silent. The text of
 * the first error of a run is kept: it is what the user gets on stderr and over RPC.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>

enum log_level {
	LOG_LEVEL_MSG = 0, /* to stdout, always */
	LOG_LEVEL_ERROR = 1,
	LOG_LEVEL_WARN = 2,
	LOG_LEVEL_INFO = 3,
	LOG_LEVEL_DEBUG = 4,
};

#ifndef __FILE_NAME__
#define __FILE_NAME__ __FILE__
#endif

/*
 * Opens the log: a file (truncated, mode 0600), "-" for stdout, NULL for stderr; lines logged
 * before are kept and written now if their level is wanted. Returns 0 or -errno.
 */
int log_init(const char *path, int level);

/* Forgets the log without writing what is still buffered (for tests and forked helpers). */
void log_done(void);

/* Writes lines that are still buffered because log_init was never reached. */
void log_flush_early(void);

/*
 * What follows is about that task (0: about none): its lines begin with the pid, or go to
 * FILE.PID after log_split. Lines of a file for a task that cannot be opened go to the log.
 */
void log_set_task(int pid);

/* From now on lines about tasks go to files of their own beside path. */
void log_split(const char *path);

int log_get_level(void);

/* True if the log goes to stderr, so that the user has seen its errors already. */
bool log_is_stderr(void);

/* The first error's text without position and time, or "" if there was none. */
const char *log_first_error(void);
int log_first_errno(void); /* its code; 0 if there was none */
void log_clear_first_error(void);

void log_line(enum log_level level, const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Logs "object: what was attempted: why" and returns -err; err 0 stands for EINVAL. */
int log_fail(int err, bool with_cause, const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));

#define debug(...)   log_line(LOG_LEVEL_DEBUG, __FILE_NAME__, __LINE__, __VA_ARGS__)
#define info(...)    log_line(LOG_LEVEL_INFO, __FILE_NAME__, __LINE__, __VA_ARGS__)
#define warn(...)    log_line(LOG_LEVEL_WARN, __FILE_NAME__, __LINE__, __VA_ARGS__)
#define error(...)   log_line(LOG_LEVEL_ERROR, __FILE_NAME__, __LINE__, __VA_ARGS__)
#define message(...) log_line(LOG_LEVEL_MSG, __FILE_NAME__, __LINE__, __VA_ARGS__)

/* fail: a system call failed with err. refuse: the text says all, err is only the code. */
#define fail(err, ...)	 log_fail(err, true, __FILE_NAME__, __LINE__, __VA_ARGS__)
#define refuse(err, ...) log_fail(err, false, __FILE_NAME__, __LINE__, __VA_ARGS__)

#endif
