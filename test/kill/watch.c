/* SPDX-License-Identifier: GPL-2.0-only */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "watch.h"

#define MS	       1000000ull
#define START_MS       20000
#define ROUNDS_OF_WARM 3 /* what a thread maps or opens at its start is there by then */
/*
 * A round that began before the kill may have verified everything by then and only had to
 * count. The one after it was made as a whole later.
 */
#define ROUNDS_TO_GO   2
#define LOOK_AGAIN     (300 * 1000) /* ns between two looks */

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 * MS + t.tv_nsec;
}

/* Gives the CPU to the victim for a moment; what is waited for is looked at again after it. */
static void pause_a_moment(void)
{
	const struct timespec t = { 0, LOOK_AGAIN };

	nanosleep(&t, NULL);
}

/* ---- looking ---- */

static void append(char **text, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void append(char **text, const char *fmt, ...)
{
	char *more = NULL, *whole = NULL;
	va_list ap;

	va_start(ap, fmt);
	int rc = vasprintf(&more, fmt, ap);
	va_end(ap);
	if (rc < 0 || asprintf(&whole, "%s%s", *text ? *text : "", more) < 0)
		abort();
	free(more);
	free(*text);
	*text = whole;
}

static char *read_whole(const char *path)
{
	size_t size = 0, room = 1 << 16;
	char *text = malloc(room + 1);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	while (fd >= 0 && (n = read(fd, text + size, room - size)) > 0) {
		size += n;
		if (size == room)
			text = realloc(text, (room *= 2) + 1);
	}
	if (fd >= 0)
		close(fd);
	text[size] = '\0';
	return text;
}

static bool is_wanted(const char *line)
{
	static const char *const wanted[] = { "TracerPid:", "Threads:", "SigPnd:", "ShdPnd:",
					      "SigBlk:",    "SigIgn:",	"SigCgt:" };

	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++)
		if (!strncmp(line, wanted[i], strlen(wanted[i])))
			return true;
	return false;
}

static char *read_signals(const struct victim *v, uint32_t i)
{
	char path[64], *rest, *line, *text = NULL;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", v->pid, v->board->thread[i].tid);
	char *status = read_whole(path);
	append(&text, "thread %u (%s):", i, v->board->thread[i].role);
	for (line = strtok_r(status, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		if (is_wanted(line))
			append(&text, " %s", line);
	free(status);
	return text;
}

static char *read_fds(const struct victim *v)
{
	char path[64], to[256], *text = NULL;
	struct dirent **names;

	snprintf(path, sizeof(path), "/proc/%d/fd", v->pid);
	int n = scandir(path, &names, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%.10s", v->pid, names[i]->d_name);
		ssize_t len = readlink(path, to, sizeof(to) - 1);
		if (len >= 0)
			append(&text, "%s -> %.*s\n", names[i]->d_name, (int)len, to);
		free(names[i]);
	}
	if (n >= 0)
		free(names);
	return text ? text : strdup("");
}

static void look_at(const struct victim *v, struct look *ret)
{
	char path[64];

	*ret = (struct look){ 0 };
	snprintf(path, sizeof(path), "/proc/%d/maps", v->pid);
	ret->maps = read_whole(path);
	for (uint32_t i = 0; i < v->board->n_threads; i++)
		ret->signals[i] = read_signals(v, i);
	ret->fds = read_fds(v);
}

static void look_done(struct look *l)
{
	free(l->maps);
	for (int i = 0; i < VICTIM_THREADS_MAX; i++)
		free(l->signals[i]);
	free(l->fds);
	*l = (struct look){ 0 };
}

/* ---- evidence ---- */

static bool has_line(const char *text, const char *line, size_t len)
{
	for (; *text; text += strcspn(text, "\n") + 1) {
		if (strcspn(text, "\n") == len && !memcmp(text, line, len))
			return true;
		if (!strchr(text, '\n'))
			break;
	}
	return false;
}

static void print_lines_missing(FILE *f, const char *what, const char *text, const char *in)
{
	while (*text) {
		size_t len = strcspn(text, "\n");

		if (!has_line(in, text, len))
			fprintf(f, "    %s: %.*s\n", what, (int)len, text);
		text += len + (text[len] == '\n');
	}
}

static void print_difference(FILE *f, const char *what, const char *before, const char *now)
{
	if (!strcmp(before, now))
		return;
	fprintf(f, "  %s differ\n", what);
	print_lines_missing(f, "before", before, now);
	print_lines_missing(f, "now", now, before);
}

/* Where each thread is, for those that do not get on. */
static void print_threads(FILE *f, const struct victim *v)
{
	static const char *const files[] = { "syscall", "wchan", "stack" };
	char path[64];

	for (uint32_t i = 0; i < v->board->n_threads; i++) {
		const struct victim_thread *t = &v->board->thread[i];

		if (t->rounds >= v->rounds[i] + ROUNDS_TO_GO)
			continue;
		fprintf(f, "  thread %u (%s, %d): %lu rounds\n", i, t->role, t->tid,
			(long)(t->rounds - v->rounds[i]));
		for (size_t j = 0; j < sizeof(files) / sizeof(*files); j++) {
			snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", v->pid, t->tid,
				 files[j]);
			char *text = read_whole(path);
			fprintf(f, "    %s: %s\n", files[j], text);
			free(text);
		}
	}
}

/* ---- judging ---- */

/* The end of the child; a notice that it was stopped or goes on is no end. */
static bool has_ended(pid_t pid, int *status)
{
	siginfo_t si = { 0 };

	while (waitid(P_PID, pid, &si, WEXITED | WSTOPPED | WCONTINUED | WNOHANG | WNOWAIT) == 0 &&
	       si.si_pid) {
		if (si.si_code == CLD_EXITED || si.si_code == CLD_KILLED ||
		    si.si_code == CLD_DUMPED) {
			*status = si.si_status;
			return true;
		}
		(void)waitid(P_PID, pid, &si, WSTOPPED | WCONTINUED | WNOHANG);
		si.si_pid = 0;
	}
	return false;
}

static bool have_all_got_on(const struct victim *v)
{
	for (uint32_t i = 0; i < v->board->n_threads; i++)
		if (v->board->thread[i].rounds < v->rounds[i] + ROUNDS_TO_GO)
			return false;
	return true;
}

static bool have_all_signals(struct victim *v, const struct look *now, FILE *evidence)
{
	bool have_all = true;

	for (uint32_t i = 0; i < v->board->n_threads; i++) {
		if (!strcmp(now->signals[i], v->before.signals[i]))
			v->has_signals[i] = true;
		if (v->has_signals[i])
			continue;
		have_all = false;
		if (evidence)
			fprintf(evidence, "  signals differ\n    before: %s\n    now:    %s\n",
				v->before.signals[i], now->signals[i]);
	}
	return have_all;
}

/* BROKEN, LEAKED and, if all is as it was, UNHARMED; an evidence of NULL is not written to. */
static enum verdict compare_looks(struct victim *v, FILE *evidence)
{
	enum verdict verdict = UNHARMED;
	struct look now;

	look_at(v, &now);
	if (strcmp(now.maps, v->before.maps) || strcmp(now.fds, v->before.fds)) {
		verdict = LEAKED;
		if (evidence)
			print_difference(evidence, "mappings", v->before.maps, now.maps);
		if (evidence)
			print_difference(evidence, "descriptors", v->before.fds, now.fds);
	}
	if (!have_all_signals(v, &now, evidence))
		verdict = BROKEN;
	look_done(&now);
	return verdict;
}

static bool is_dead_or_wrong(const struct victim *v, FILE *evidence)
{
	int status = 0;

	if (v->board->failed) {
		if (evidence)
			fprintf(evidence, "  it noticed: %s\n", v->board->text);
		return true;
	}
	if (!has_ended(v->pid, &status))
		return false;
	if (evidence)
		fprintf(evidence, "  it ended: status or signal %d\n", status);
	return true;
}

static enum verdict judge_late(struct victim *v, FILE *evidence)
{
	if (have_all_got_on(v))
		return compare_looks(v, evidence);
	if (evidence) {
		fprintf(evidence, "  threads that do not get on:\n");
		print_threads(evidence, v);
		(void)compare_looks(v, evidence);
	}
	return BROKEN;
}

enum verdict victim_judge(struct victim *v, int timeout_ms, FILE *evidence)
{
	uint64_t deadline = now_ns() + timeout_ms * MS;

	for (;;) {
		if (is_dead_or_wrong(v, evidence))
			return BROKEN;
		enum verdict now = compare_looks(v, NULL);
		if (now == UNHARMED && have_all_got_on(v))
			return UNHARMED;
		if (now_ns() > deadline)
			return judge_late(v, evidence);
		pause_a_moment();
	}
}

void victim_mark(struct victim *v)
{
	for (uint32_t i = 0; i < v->board->n_threads; i++) {
		v->rounds[i] = v->board->thread[i].rounds;
		v->has_signals[i] = false;
	}
}

/* ---- stopping ---- */

static bool are_all_stopped(const struct victim *v)
{
	char path[64];

	for (uint32_t i = 0; i < v->board->n_threads; i++) {
		snprintf(path, sizeof(path), "/proc/%d/task/%d/status", v->pid,
			 v->board->thread[i].tid);
		char *status = read_whole(path);
		bool is_stopped = strstr(status, "\nState:\tT (stopped)") &&
				  strstr(status, "\nTracerPid:\t0\n");
		free(status);
		if (!is_stopped)
			return false;
	}
	return true;
}

bool victim_is_stopped(struct victim *v, int timeout_ms, FILE *evidence)
{
	uint64_t deadline = now_ns() + timeout_ms * MS;
	int status;

	while (!are_all_stopped(v)) {
		if (has_ended(v->pid, &status) || now_ns() > deadline) {
			if (evidence)
				fprintf(evidence, "  it is not stopped any more\n");
			return false;
		}
		pause_a_moment();
	}
	return true;
}

bool victim_stop(struct victim *v)
{
	bool is_stopped = kill(v->pid, SIGSTOP) == 0 && victim_is_stopped(v, START_MS, stderr);

	victim_mark(v);
	return is_stopped;
}

bool victim_stood_still(struct victim *v, FILE *evidence)
{
	bool has_moved = false;

	for (uint32_t i = 0; i < v->board->n_threads; i++) {
		uint64_t rounds = v->board->thread[i].rounds;

		if (rounds == v->rounds[i])
			continue;
		has_moved = true;
		if (evidence)
			fprintf(evidence, "  stopped, thread %u went on for %lu rounds\n", i,
				(unsigned long)(rounds - v->rounds[i]));
	}
	return !has_moved;
}

void victim_continue(struct victim *v)
{
	(void)kill(v->pid, SIGCONT);
}

/* ---- starting and ending ---- */

/* A file that both have; the name in /proc lasts as long as fd does. */
static struct victim_board *new_board(char *ret_path, size_t path_size, int *ret_fd)
{
	int fd = memfd_create("board", 0);

	if (fd < 0 || ftruncate(fd, sizeof(struct victim_board)) < 0)
		return NULL;
	void *p =
		mmap(NULL, sizeof(struct victim_board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	snprintf(ret_path, path_size, "/proc/%d/fd/%d", getpid(), fd);
	*ret_fd = fd;
	return p == MAP_FAILED ? NULL : p;
}

/* Its output goes nowhere; what it finds is in the board. It dies with us. */
static void become_victim(const char *program, const char *file, char *const args[])
{
	char *argv[16] = { (char *)program, (char *)file };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int i = 0; args[i] && i < 12; i++)
		argv[i + 2] = args[i];
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setsid();
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
	execv(program, argv);
	_exit(127);
}

static bool is_warm(const struct victim *v)
{
	if (!__atomic_load_n(&v->board->is_ready, __ATOMIC_ACQUIRE))
		return false;
	for (uint32_t i = 0; i < v->board->n_threads; i++)
		if (v->board->thread[i].rounds < ROUNDS_OF_WARM)
			return false;
	return true;
}

static int await_warm(struct victim *v)
{
	uint64_t deadline = now_ns() + START_MS * MS;
	int status = 0;

	while (!is_warm(v)) {
		if (has_ended(v->pid, &status) && status == VICTIM_SKIPPED)
			return VICTIM_SKIPPED;
		if (status || now_ns() > deadline) {
			fprintf(stderr, "the victim does not start (status %d)\n", status);
			return -1;
		}
		pause_a_moment();
	}
	return 0;
}

int victim_start(struct victim *v, const char *program, char *const args[])
{
	char file[64];
	int fd;

	*v = (struct victim){ .board = new_board(file, sizeof(file), &fd) };
	if (!v->board) {
		perror("board");
		return -1;
	}
	v->pid = fork();
	if (v->pid == 0)
		become_victim(program, file, args);
	int rc = v->pid < 0 ? -1 : await_warm(v);
	close(fd);
	if (rc) {
		victim_end(v);
		return rc;
	}
	look_at(v, &v->before);
	v->board->may_vary = 1;
	victim_mark(v);
	return 0;
}

void victim_end(struct victim *v)
{
	if (v->pid > 0) {
		(void)kill(v->pid, SIGKILL);
		(void)waitpid(v->pid, NULL, 0);
	}
	if (v->board)
		(void)munmap(v->board, sizeof(*v->board));
	look_done(&v->before);
	*v = (struct victim){ 0 };
}
