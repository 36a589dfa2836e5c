/* SPDX-License-Identifier: GPL-2.0-only */
/* Descriptors of any kind: a table of those a factory made, and ways to look at one. */
#ifndef MK_FD_H
#define MK_FD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Returns rc when it is not negative, and gives up making otherwise. */
long need(const char *what, long rc);

/* Dies for a negative fd. The state is taken by note_fds(), once all is made. */
int remember_fd(const char *what, int fd);
void note_fds(void);
/* Flags, mode and offset are as noted. */
void check_fds(void);

/* Room for descriptors up to @highest. */
void allow_fds(long highest);

/* A new open file description of the file behind @fd. */
int reopen(int fd, int flags);
ino_t inode_of(int fd);

/* Whether both are one open file description; a difference in that is bad. */
bool is_same_file(pid_t pid_a, int a, pid_t pid_b, int b);
void check_same_file(const char *what, int a, int b);
void check_other_file(const char *what, int a, int b);

/* Whether its flags, not only its state, keep it from waiting. */
bool never_waits(int fd);

/* Events that poll() sees at once. */
short ready_events(int fd);

/* Text of an fdinfo file, and the rest of its line that starts with @key, or "". */
void read_fdinfo(pid_t pid, int fd, char *buf, size_t size);
const char *fdinfo_value(pid_t pid, int fd, const char *key);
long position_of(pid_t pid, int fd);

/* The lines that start with @prefix, sorted, each up to @end when it has that. */
void fdinfo_lines(int fd, const char *prefix, const char *end, char *buf, size_t size);

/* A descriptor through a socket; both die if that fails. */
void send_fd(int sock, int fd);
int receive_fd(int sock);

/* Whether a thread of this process sleeps in that system call. */
bool sleeps_in(pid_t tid, long nr);

#endif
