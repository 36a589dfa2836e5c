/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mover BOARD SEED [ROUNDS]: a tree that does not hold still. Its root has workers whose threads
 * fork, exec, exit, are killed, map and unmap in each other's back, and puts others in the place of
 * those that have gone. Each counts in its slot of the file BOARD and writes there what is wrong
 * with it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS 6
#define PAGE	4096ul
#define PAGES	16
#define STACK	(64 * 1024)
#define MARK	0x5ca1ab1eu

struct slot {
	volatile uint64_t rounds;
	volatile int pid;
	char wrong[112];
};

struct board {
	volatile uint64_t sum; /* of what the root has reaped */
	struct slot root, worker[WORKERS];
};

static struct board *board;
static struct slot *mine;
static const char *self, *board_path;
static unsigned long seed;
static volatile char *area; /* mapped and unmapped by the second thread */

static void wrong(const char *what)
{
	if (!mine->wrong[0])
		snprintf(mine->wrong, sizeof(mine->wrong), "pid %d: %s: %s", getpid(), what,
			 strerror(errno));
}

static unsigned long chance(unsigned long n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % n;
}

static void *end_at_once(void *arg)
{
	return arg;
}

/* ---- what a worker does ---- */

static void fork_and_reap(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(mine->rounds & 0x7f);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		wrong("fork");
	else if (!WIFEXITED(status) || WEXITSTATUS(status) != (int)(mine->rounds & 0x7f))
		wrong("exit status of a child");
}

static void kill_child(void)
{
	pid_t self_pid = getpid(), pid = fork();
	int status;

	/* Whoever is killed meanwhile leaves it to nobody: it would be no part of the tree any more. */
	if (pid == 0)
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (pid == 0 && getppid() == self_pid)
		pause();
	if (pid == 0)
		_exit(1);
	(void)kill(pid, SIGKILL);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status))
		wrong("a child that is killed");
}

static void start_thread(void)
{
	pthread_attr_t attr;
	pthread_t t;
	void *ret = NULL;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	if (pthread_create(&t, &attr, end_at_once, board) || pthread_join(t, &ret) || ret != board)
		wrong("a thread");
}

static void exec_again(void)
{
	char text[32];

	snprintf(text, sizeof(text), "%lu", seed | 1);
	execl(self, "mover", board_path, text, mine == &board->root ? "root" : "worker", NULL);
	wrong("exec");
}

static void check_memory(void)
{
	uint32_t *p = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1, 0);

	if (p == MAP_FAILED) {
		wrong("mmap");
		return;
	}
	for (unsigned i = 0; i < PAGES; i++)
		p[i * PAGE / 4] = MARK + i;
	(void)munmap((char *)p + PAGE, PAGE);
	if (mremap(p, PAGE, 2 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED)
		wrong("mremap");
	for (unsigned i = 2; i < PAGES; i++)
		if (p[i * PAGE / 4] != MARK + i)
			wrong("memory");
	(void)munmap((char *)p + 2 * PAGE, (PAGES - 2) * PAGE);
}

/* The mappings of the process change all the time, whoever looks at them. */
static void *change_mappings(void *arg)
{
	for (unsigned i = 0;; i++) {
		char *p = mmap((void *)area, PAGES * PAGE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

		if (p == MAP_FAILED)
			wrong("mmap of the second thread");
		p[(i % PAGES) * PAGE] = 1;
		(void)mprotect(p + (i % PAGES) * PAGE, PAGE, PROT_READ);
		(void)munmap(p + ((i + 5) % PAGES) * PAGE, PAGE);
		usleep(200);
	}
	return arg;
}

static void work(void)
{
	pthread_t t;

	area = mmap(NULL, PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED || pthread_create(&t, NULL, change_mappings, NULL))
		wrong("start");
	for (;;) {
		switch (chance(12)) {
		case 0:
		case 1:
		case 2:
			fork_and_reap();
			break;
		case 3:
		case 4:
			kill_child();
			break;
		case 5:
		case 6:
		case 7:
			start_thread();
			break;
		case 8:
			exec_again();
			break;
		case 9:
			_exit(7);
		default:
			check_memory();
		}
		mine->rounds++;
		usleep(chance(1500));
	}
}

/* ---- the root ---- */

static pid_t start_worker(int i)
{
	pid_t pid = fork();

	seed += i + 1;
	if (pid)
		return board->worker[i].pid = pid;
	mine = &board->worker[i];
	mine->pid = getpid();
	work();
	return 0;
}

static void keep_all_going(void)
{
	int status;

	for (int i = 0; i < WORKERS; i++)
		start_worker(i);
	for (;;) {
		pid_t pid = waitpid(-1, &status, 0);

		for (int i = 0; i < WORKERS; i++)
			if (board->worker[i].pid == pid) {
				if (WIFEXITED(status) ? WEXITSTATUS(status) != 7
						      : WTERMSIG(status) != SIGKILL)
					wrong("the end of a worker");
				board->sum++;
				start_worker(i);
			}
		board->root.rounds++;
	}
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	self = "/proc/self/exe";
	board_path = argv[1];
	seed = strtoul(argv[2], NULL, 10) | 1;
	int fd = open(board_path, O_RDWR | O_CLOEXEC);
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd < 0 || board == MAP_FAILED)
		return 1;
	close(fd);
	mine = &board->root;
	if (argc > 3 && !strcmp(argv[3], "worker")) {
		for (int i = 0; i < WORKERS; i++)
			if (board->worker[i].pid == getpid())
				mine = &board->worker[i];
		work();
	}
	board->root.pid = getpid();
	keep_all_going();
}
