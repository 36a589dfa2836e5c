/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Runs a program under ptrace(2) and meddles with one of its system calls:
 *   inject [-o FILE] [-l FILE] [-f CALL:N:ERRNO | -c CALL:N:SIGNAL | -e CALL:N:SHELL-COMMAND |
 *          -s SIGNAL:N | -x N:SHELL-COMMAND] COMMAND...
 * -f  the Nth call of that number is not made, and gives ERRNO instead
 * -c  the signal comes before the Nth call of that number
 * -e  the command is run then, while the program waits
 * -s  the signal comes at the Nth stop, of all calls: before the call (even N) or behind it
 * -x  the command is run at that stop
 * -l  where to write the numbers of all calls, in their order
 * -o  where to write "hit" or "missed", and how the program ended
 * Calls are counted from the first geteuid on: that is where criu's main begins. Threads of the
 * program are followed, its children are not, so the program may trace them.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS_MAX 64
#define CALLS_MAX   2048
#define CALL_STOP   (SIGTRAP | 0x80)
#define FIRST_CALL  SYS_geteuid
#define OPTIONS	    (PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL | PTRACE_O_TRACECLONE)

struct thread {
	pid_t tid;
	bool is_inside; /* of a call: its next stop is behind that */
	bool is_failing;
};

static struct thread threads[THREADS_MAX];
static int n_threads;
static pid_t program;
static long chosen_call = -1, chosen_at, fail_errno;
static long signal_number, stop_at = -1;
static const char *command;
static FILE *list;
static bool has_begun, is_done;
static long seen[CALLS_MAX], stops;
static struct user_regs_struct hit; /* the call that was meddled with */

static void die(const char *what)
{
	perror(what);
	exit(125);
}

static struct thread *find(pid_t tid)
{
	for (int i = 0; i < n_threads; i++)
		if (threads[i].tid == tid)
			return &threads[i];
	if (n_threads == THREADS_MAX)
		die("too many threads");
	threads[n_threads] = (struct thread){ .tid = tid };
	return &threads[n_threads++];
}

static void forget(pid_t tid)
{
	*find(tid) = threads[n_threads - 1];
	n_threads--;
}

static void get(pid_t tid, struct user_regs_struct *regs)
{
	memset(regs, 0, sizeof(*regs));
	(void)ptrace(PTRACE_GETREGS, tid, NULL, regs);
}

static void meddle(const struct user_regs_struct *regs)
{
	hit = *regs;
	is_done = true;
	if (signal_number)
		(void)kill(program, signal_number);
	if (command && system(command) < 0)
		die("system");
}

static void count_stop(const struct user_regs_struct *regs)
{
	if (has_begun && stops++ == stop_at)
		meddle(regs);
}

static void before_call(struct thread *t)
{
	struct user_regs_struct regs;

	get(t->tid, &regs);
	long nr = regs.orig_rax;
	has_begun = has_begun || nr == FIRST_CALL;
	if (!has_begun || nr < 0 || nr >= CALLS_MAX)
		return;
	if (list)
		fprintf(list, "%ld %ld\n", nr, nr == SYS_ptrace ? (long)regs.rdi : (long)regs.rsi);
	count_stop(&regs);
	if (nr != chosen_call || seen[nr]++ != chosen_at || is_done)
		return;
	meddle(&regs);
	if (!fail_errno)
		return;
	t->is_failing = true;
	regs.orig_rax = -1;
	(void)ptrace(PTRACE_SETREGS, t->tid, NULL, &regs);
}

static void after_call(struct thread *t)
{
	struct user_regs_struct regs;

	get(t->tid, &regs);
	count_stop(&regs);
	if (!t->is_failing)
		return;
	t->is_failing = false;
	/* This one gives what is the end of the heap, whatever goes wrong. */
	regs.rax = chosen_call == SYS_brk ? 0 : -fail_errno;
	(void)ptrace(PTRACE_SETREGS, t->tid, NULL, &regs);
}

static void go_on(struct thread *t, int sig)
{
	/* Once all is done the program runs at its own pace. */
	bool is_over = is_done && !t->is_failing && !list;

	(void)ptrace(is_over ? PTRACE_CONT : PTRACE_SYSCALL, t->tid, NULL, (void *)(long)sig);
}

static void on_stop(pid_t tid, int status)
{
	struct thread *t = find(tid);
	int sig = WSTOPSIG(status), event = status >> 16;

	if (sig == CALL_STOP) {
		if (t->is_inside)
			after_call(t);
		else
			before_call(t);
		t->is_inside = !t->is_inside;
		sig = 0;
	} else if (event) {
		sig = 0;
	}
	go_on(t, sig);
}

/* The status of the program. */
static int follow(void)
{
	int status;

	for (;;) {
		pid_t tid = waitpid(-1, &status, __WALL);

		if (tid < 0)
			die("waitpid");
		if (WIFSTOPPED(status)) {
			on_stop(tid, status);
			continue;
		}
		if (tid == program)
			return status;
		forget(tid);
	}
}

/* The program waits at a pipe until it is traced. */
static void start(char **argv)
{
	int gate[2], status;
	char byte = 0;

	if (pipe2(gate, O_CLOEXEC) < 0)
		die("pipe2");
	program = fork();
	if (program < 0)
		die("fork");
	if (program == 0) {
		if (read(gate[0], &byte, 1) == 1)
			execvp(argv[0], argv);
		die(argv[0]);
	}
	if (ptrace(PTRACE_SEIZE, program, NULL, OPTIONS) < 0 ||
	    ptrace(PTRACE_INTERRUPT, program, NULL, NULL) < 0 ||
	    waitpid(program, &status, __WALL) != program)
		die("trace the program");
	go_on(find(program), 0);
	if (write(gate[1], &byte, 1) != 1)
		die("write");
	close(gate[0]);
	close(gate[1]);
}

static long number(const char *text, char **end)
{
	long n = strtol(text, end, 0);

	if (*end == text) {
		fprintf(stderr, "inject: not a number: %s\n", text);
		exit(125);
	}
	*end += **end == ':';
	return n;
}

static void report(FILE *out, int status)
{
	fprintf(out, "%s %lld %llx %llx %llx\n", is_done ? "hit" : "missed",
		(long long)hit.orig_rax, hit.rdi, hit.rsi, hit.rdx);
	fprintf(out, WIFSIGNALED(status) ? "signal %d\n" : "exit %d\n",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	fclose(out);
}

int main(int argc, char **argv)
{
	FILE *out = stderr;
	char *end;
	int c;

	while ((c = getopt(argc, argv, "+o:l:f:c:e:s:x:")) >= 0) {
		switch (c) {
		case 'o':
			out = fopen(optarg, "we");
			break;
		case 'l':
			list = fopen(optarg, "we");
			break;
		case 'f':
			chosen_call = number(optarg, &end);
			chosen_at = number(end, &end);
			fail_errno = number(end, &end);
			break;
		case 'c':
			chosen_call = number(optarg, &end);
			chosen_at = number(end, &end);
			signal_number = number(end, &end);
			break;
		case 'e':
			chosen_call = number(optarg, &end);
			chosen_at = number(end, &end);
			command = end;
			break;
		case 's':
			signal_number = number(optarg, &end);
			stop_at = number(end, &end);
			break;
		case 'x':
			stop_at = number(optarg, &end);
			command = end;
			break;
		default:
			return 125;
		}
	}
	if (!out || !argv[optind])
		return 125;
	start(argv + optind);
	int status = follow();
	if (list)
		fclose(list);
	report(out, status);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
