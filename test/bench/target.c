/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What `make bench` measures: targets to checkpoint, and the work of one thread that a dump and
 * a restore are compared with.
 *   target mem MIB | huge MIB | mappings N | threads N | files N | pipes N | pairs N | processes N
 *                                   makes them, announces itself with a line and sleeps; files
 *                                   are made in the working directory
 *   target fork - N                 forks and reaps so many processes, prints microseconds
 *   target map - N                  makes and touches so many mappings, prints microseconds
 *   target openclose DIRECTORY N    opens and closes the files of `target files N`, prints microseconds
 *   target pipeclose - N            makes and closes pipes as `target pipes N` does, prints microseconds
 *   target pwrite FILE MIB          writes memory to a file, prints microseconds
 *   target pwritehuge FILE MIB      the same from huge pages
 *   target pread FILE MIB           reads it into fresh memory, prints microseconds
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PIECE (1u << 20)

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000ull + t.tv_nsec / 1000;
}

#define HUGE (2ul << 20)

static uint8_t *fresh(size_t size, int advice)
{
	uint8_t *p = mmap(NULL, size + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	p = (uint8_t *)(((uintptr_t)p + HUGE - 1) & ~(HUGE - 1));
	(void)madvise(p, size, advice);
	return p;
}

/* No page is zero and no two are equal. */
static uint8_t *written(size_t size, int advice)
{
	uint8_t *p = fresh(size, advice);

	for (size_t i = 0; i < size; i += sizeof(uint64_t) * 8)
		*(uint64_t *)(p + i) = i * 0x9e3779b97f4a7c15ull + 1;
	return p;
}

static void transfer(int fd, uint8_t *p, size_t size, int is_write)
{
	for (size_t pos = 0; pos < size; pos += PIECE) {
		ssize_t n = is_write ? pwrite(fd, p + pos, PIECE, pos) : pread(fd, p + pos, PIECE, pos);

		if (n != PIECE) {
			perror("transfer");
			exit(1);
		}
	}
}

/*
 * The memory that is measured was in use a moment ago, as it is in a cycle of criu: the first
 * touch of memory that the machine under us has to provide is not what is compared.
 */
static void measure(const char *file, size_t size, int is_write, int advice)
{
	uint8_t *p = written(size, advice);
	int fd = open(file, is_write ? O_WRONLY | O_CREAT | O_TRUNC : O_RDONLY, 0600);

	if (fd < 0) {
		perror(file);
		exit(1);
	}
	if (is_write) {
		transfer(fd, p, size, 1);
		if (ftruncate(fd, 0) < 0)
			perror("ftruncate");
	} else {
		munmap(p, size);
		p = fresh(size, advice);
	}
	uint64_t start = now_us();
	transfer(fd, p, size, is_write);
	printf("%lu\n", (unsigned long)(now_us() - start));
}

static void *sleeper(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static void start_threads(int n)
{
	pthread_attr_t attr;
	pthread_t t;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 << 10);
	for (int i = 1; i < n; i++)
		if (pthread_create(&t, &attr, sleeper, NULL)) {
			perror("pthread_create");
			exit(1);
		}
}

static void need(int rc, const char *what)
{
	if (rc >= 0)
		return;
	perror(what);
	exit(1);
}

static void open_files(int n)
{
	for (int i = 0; i < n; i++) {
		char name[32];

		snprintf(name, sizeof(name), "file-%d", i);
		need(open(name, O_RDWR | O_CREAT, 0600), name);
	}
}

static void start_processes(int n)
{
	for (int i = 1; i < n; i++) {
		pid_t pid = fork();

		need(pid, "fork");
		if (!pid)
			sleeper(NULL);
	}
}

static void fork_and_reap(int n)
{
	uint64_t start = now_us();

	for (int i = 1; i < n; i++) {
		pid_t pid = fork();

		need(pid, "fork");
		if (!pid)
			_exit(0);
	}
	while (wait(NULL) > 0)
		;
	printf("%lu\n", (unsigned long)(now_us() - start));
}

/* With a few bytes that nobody has read. */
static void open_pipes(int n)
{
	int fd[2];

	for (int i = 0; i < n; i++) {
		need(pipe(fd), "pipe");
		need(write(fd[1], "some bytes", 10), "write");
	}
}

static void open_pairs(int n)
{
	int fd[2];

	for (int i = 0; i < n; i++) {
		need(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), "socketpair");
		need(write(fd[1], "some bytes", 10), "write");
	}
}

/* What was opened before keeps its number. */
static void open_and_close(void (*open_all)(int n), int n)
{
	int first = dup(0);

	need(first, "dup");
	need(close(first), "close");
	uint64_t start = now_us();
	open_all(n);
	for (int fd = first; close(fd) == 0; fd++)
		;
	printf("%lu\n", (unsigned long)(now_us() - start));
}

/* 64 KiB for the smallest. */
static void write_memory(int mib)
{
	(void)written(mib ? (size_t)mib << 20 : 64 << 10, MADV_NOHUGEPAGE);
}

static void write_huge(int mib)
{
	(void)written((size_t)mib << 20, MADV_HUGEPAGE);
}

/* A page each, and a hole between. */
static void make_mappings(int n)
{
	uint8_t *p = fresh(n * 2 * 4096ul, MADV_NOHUGEPAGE);

	munmap(p, n * 2 * 4096ul);
	for (size_t i = 0; i < (size_t)n; i++) {
		uint8_t *page = mmap(p + i * 2 * 4096, 4096, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

		need(page == MAP_FAILED ? -1 : 0, "mmap");
		*(size_t *)page = i + 1;
	}
}

static void map(int n)
{
	uint64_t start = now_us();

	make_mappings(n);
	printf("%lu\n", (unsigned long)(now_us() - start));
}

static const struct {
	const char *name;
	void (*make)(int n);
} kinds[] = {
	{ "mem", write_memory }, { "huge", write_huge }, { "mappings", make_mappings }, { "threads", start_threads }, { "files", open_files },
	{ "pipes", open_pipes }, { "pairs", open_pairs }, { "processes", start_processes },
};

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "pwrite"))
		measure(argv[2], (size_t)atoi(argv[3]) << 20, 1, MADV_NOHUGEPAGE);
	else if (argc == 4 && !strcmp(argv[1], "pwritehuge"))
		measure(argv[2], (size_t)atoi(argv[3]) << 20, 1, MADV_HUGEPAGE);
	else if (argc == 4 && !strcmp(argv[1], "pread"))
		measure(argv[2], (size_t)atoi(argv[3]) << 20, 0, MADV_NOHUGEPAGE);
	else if (argc == 4 && !strcmp(argv[1], "map"))
		map(atoi(argv[3]));
	else if (argc == 4 && !strcmp(argv[1], "fork"))
		fork_and_reap(atoi(argv[3]));
	else if (argc == 4 && !strcmp(argv[1], "pipeclose"))
		open_and_close(open_pipes, atoi(argv[3]));
	else if (argc == 4 && !strcmp(argv[1], "openclose")) {
		need(chdir(argv[2]), argv[2]);
		open_and_close(open_files, atoi(argv[3]));
	}
	for (size_t i = 0; argc == 3 && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strcmp(argv[1], kinds[i].name))
			continue;
		kinds[i].make(atoi(argv[2]));
		puts("ready");
		fflush(stdout);
		sleeper(NULL);
	}
	return argc != 4;
}
