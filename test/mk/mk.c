/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mk FACTORY [name=value ...]: makes objects, writes "ready PID" to status=FILE
 * and waits. SIGUSR1: checks the objects and appends "check N ok" or
 * "check N bad: what, expected, got". SIGTERM: exits.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mk.h"

#define EXIT_SKIP	77
#define PATIENCE_SEC	20

static struct factory *const factories[] = {
	&idle_factory, &regs_factory, &threads_factory, &mem_factory, &files_factory,
	&signals_factory, &creds_factory, &tree_factory, &rseq_factory, &vdso_factory,
	&churn_factory,
	&ghost_factory, &remap_factory, &locks_factory, &fown_factory, &tty_factory,
	&pipes_factory, &fifos_factory, &events_factory, &epolls_factory, &inotifies_factory,
	&fanotifies_factory, &tables_factory, &shares_factory, &random_factory, &shm_factory,
	&kinds_factory, &randmem_factory, &randtree_factory, &thp_factory, &forks_factory, &snap_factory, &aio_factory, &bpfmaps_factory, &ldt_factory, &deadfiles_factory, &pkeys_factory, &moves_factory,
	&timers_factory, &seccomp_factory, &modes_factory, &tcreds_factory,
	&holds_factory,
	&ipcshm_factory, &ipcsem_factory, &ipcmsg_factory, &ipcbad_factory,
	&unixsk_factory, &unixscm_factory, &unixnames_factory, &tuns_factory,
};

static struct param common_params[] = {
	{ "status", NULL, "file for the ready and check lines" },
	{ 0 },
};

static struct factory *running;
static int status_fd = -1;
static char findings[1024];
static int nr_findings;
static int nr_checks;

/* ---- parameters ---- */

static struct param *find_param(struct param *p, const char *name, size_t len)
{
	for (; p->name; p++)
		if (strlen(p->name) == len && !memcmp(p->name, name, len))
			return p;
	return NULL;
}

const char *param_str(const char *name)
{
	struct param *p = find_param(running->params, name, strlen(name));

	if (!p)
		die("factory %s has no parameter %s", running->name, name);
	if (!p->value)
		die("parameter %s is needed: %s", name, p->about);
	return p->value;
}

long param_long(const char *name)
{
	const char *text = param_str(name);
	char *end;
	long value;

	errno = 0;
	value = strtol(text, &end, 0);
	if (errno || end == text || *end)
		die("%s=%s is not a number", name, text);
	return value;
}

static void set_param(const char *arg)
{
	const char *eq = strchr(arg, '=');
	size_t len = eq ? (size_t)(eq - arg) : strlen(arg);
	struct param *p = find_param(common_params, arg, len);

	if (!p)
		p = find_param(running->params, arg, len);
	if (!eq || !p)
		die("factory %s has no parameter '%s'", running->name, arg);
	p->value = eq + 1;
}

const char *dir_path(const char *name)
{
	static char ring[8][512];
	static unsigned int next;
	char *buf = ring[next++ % ARRAY_SIZE(ring)];

	if (snprintf(buf, sizeof(ring[0]), "%s/%s", param_str("dir"), name) >= (int)sizeof(ring[0]))
		die("dir= is too long");
	return buf;
}

/* ---- reports ---- */

void status_line(const char *fmt, ...)
{
	char line[1200];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	/* one write: a reader never sees half a line */
	if (status_fd >= 0 && write(status_fd, line, n) != n)
		_exit(1);
}

static void give_up(int code, const char *word, const char *fmt, va_list ap)
{
	char text[512];

	vsnprintf(text, sizeof(text), fmt, ap);
	status_line("%s: %s", word, text);
	fprintf(stderr, "mk: %s: %s\n", word, text);
	_exit(code);
}

void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	give_up(1, "error", fmt, ap);
	va_end(ap);
	_exit(1);
}

void skip(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	give_up(EXIT_SKIP, "skip", fmt, ap);
	va_end(ap);
	_exit(EXIT_SKIP);
}

void bad(const char *fmt, ...)
{
	size_t used = strlen(findings);
	va_list ap;

	/* the first differences tell most, the rest is only counted */
	if (nr_findings++ >= 4)
		return;
	used += snprintf(findings + used, sizeof(findings) - used, "%s", used ? "; " : "");
	if (used >= sizeof(findings))
		return;
	va_start(ap, fmt);
	vsnprintf(findings + used, sizeof(findings) - used, fmt, ap);
	va_end(ap);
}

void bad_errno(const char *what)
{
	bad("%s: %s", what, strerror(errno));
}

bool same_long(const char *what, long expected, long got)
{
	if (expected != got)
		bad("%s, expected %#lx, got %#lx", what, expected, got);
	return expected == got;
}

bool same_str(const char *what, const char *expected, const char *got)
{
	if (strcmp(expected, got))
		bad("%s, expected '%s', got '%s'", what, expected, got);
	return !strcmp(expected, got);
}

/* ---- patterns, waiting ---- */

uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

/* The eight bytes of the pattern that start at position 8 * word. */
static uint64_t pattern(uint64_t seed, size_t word)
{
	return mix(seed * 0x1000001 + word);
}

void fill(void *buf, size_t len, uint64_t seed)
{
	unsigned char *p = buf;
	size_t i;

	for (i = 0; i < len; i += sizeof(uint64_t)) {
		uint64_t bytes = pattern(seed, i / 8);

		memcpy(p + i, &bytes, len - i < 8 ? len - i : 8);
	}
}

ssize_t verify(const void *buf, size_t len, uint64_t seed)
{
	const unsigned char *p = buf;
	size_t i, at;

	for (i = 0; i < len; i += sizeof(uint64_t)) {
		uint64_t bytes = pattern(seed, i / 8);
		size_t n = len - i < 8 ? len - i : 8;

		if (!memcmp(p + i, &bytes, n))
			continue;
		for (at = 0; p[i + at] == ((unsigned char *)&bytes)[at]; at++)
			;
		return i + at;
	}
	return -1;
}

void same_fill(const char *what, const void *buf, size_t len, uint64_t seed)
{
	ssize_t at = verify(buf, len, seed);

	if (at >= 0)
		bad("%s differs at byte %zd", what, at);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	/* not by way of the vDSO, which a factory may have moved */
	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

bool wait_until(bool (*ready)(void *arg), void *arg)
{
	const struct timespec pause = { 0, 500000 };
	int64_t deadline = now_ms() + PATIENCE_SEC * 1000;

	while (!ready(arg)) {
		if (now_ms() > deadline)
			return false;
		nanosleep(&pause, NULL);
	}
	return true;
}

void end_child(pid_t child, int expected)
{
	int status = 0;

	kill(child, SIGTERM);
	if (waitpid(child, &status, 0) != child)
		bad_errno("waitpid");
	else if (!WIFEXITED(status) || WEXITSTATUS(status) != expected)
		bad("exit status of the child, expected %d, got %#x", expected, status);
}

void fd_name(int fd, char *name, size_t size)
{
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, name, size - 1);
	name[n > 0 ? n : 0] = '\0';
}

void smaps_line(const void *p, const char *key, char *ret_line, size_t size)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long start, end;
	bool here = false;
	char line[512];

	ret_line[0] = '\0';
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
			here = (unsigned long)p >= start && (unsigned long)p < end;
			if (here && !*key)
				snprintf(ret_line, size, "%s", line);
		} else if (here && *key && !strncmp(line, key, strlen(key))) {
			snprintf(ret_line, size, "%s", line);
		}
	}
	if (f)
		fclose(f);
}

void read_line(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, buf, size - 1);

	buf[n > 0 ? n : 0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	if (fd >= 0)
		close(fd);
}

/* ---- life ---- */

static volatile sig_atomic_t check_wanted, stop_wanted;

static void on_check(int sig)
{
	(void)sig;
	check_wanted = 1;
}

static void on_stop(int sig)
{
	(void)sig;
	stop_wanted = 1;
}

void serve_signals(void (*check_now)(void), void (*stop_now)(void))
{
	sigset_t asleep;

	sigprocmask(SIG_SETMASK, NULL, &asleep);
	sigdelset(&asleep, SIGUSR1);
	sigdelset(&asleep, SIGTERM);
	for (;;) {
		sigsuspend(&asleep);
		if (stop_wanted)
			stop_now();
		if (check_wanted) {
			check_wanted = 0;
			check_now();
		}
	}
}

static void check_now(void)
{
	findings[0] = '\0';
	nr_findings = 0;
	running->check();
	nr_checks++;
	if (!nr_findings)
		status_line("check %d ok", nr_checks);
	else if (nr_findings <= 4)
		status_line("check %d bad: %s", nr_checks, findings);
	else
		status_line("check %d bad: %s; and %d more", nr_checks, findings, nr_findings - 4);
}

static void stop_now(void)
{
	findings[0] = '\0';
	nr_findings = 0;
	if (running->stop)
		running->stop();
	if (nr_findings)
		status_line("stop bad: %s", findings);
	exit(nr_findings ? 1 : 0);
}

static void serve(void)
{
	serve_signals(check_now, stop_now);
}

/* Blocked before make(), so that no thread or child of a factory takes these two by accident. */
static void take_signals(void)
{
	struct sigaction check = { .sa_handler = on_check }, stop = { .sa_handler = on_stop };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sigaction(SIGUSR1, &check, NULL);
	sigaction(SIGTERM, &stop, NULL);
}

/* The kernel writes there on its own, so whoever compares memory must leave it out. */
static void tell_volatile_memory(void)
{
	char *area = (char *)__builtin_thread_pointer() + __rseq_offset;

	if (__rseq_size)
		status_line("volatile %lx %zu", (unsigned long)area, sizeof(struct rseq));
}

static void open_status(void)
{
	const char *path = common_params[0].value;

	if (!path)
		die("status=FILE is needed");
	status_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (status_fd < 0)
		die("%s: %s", path, strerror(errno));
}

static void list_factories(void)
{
	size_t i;
	struct param *p;

	for (i = 0; i < ARRAY_SIZE(factories); i++) {
		printf("%-10s %s\n", factories[i]->name, factories[i]->about);
		for (p = factories[i]->params; p->name; p++)
			printf("    %-10s %s (%s)\n", p->name, p->about,
			       p->value ? p->value : "needed");
	}
}

static struct factory *find_factory(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(factories); i++)
		if (!strcmp(factories[i]->name, name))
			return factories[i];
	return NULL;
}

int main(int argc, char **argv)
{
	int i;

	if (argc == 2 && !strcmp(argv[1], "--list")) {
		list_factories();
		return 0;
	}
	running = argc > 1 ? find_factory(argv[1]) : NULL;
	if (!running) {
		fprintf(stderr, "usage: mk FACTORY status=FILE [name=value ...] | mk --list\n");
		return 2;
	}
	for (i = 2; i < argc; i++)
		set_param(argv[i]);
	open_status();
	take_signals();
	running->make();
	tell_volatile_memory();
	status_line("ready %d", getpid());
	if (running->around)
		running->around(serve);
	serve();
}
