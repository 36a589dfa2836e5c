/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/own.h"
#include "base/test.h"
#include "remote/copy.h"
#include "remote/session_test.h"

#define PAGE 4096

static void hold(struct session *s, pid_t pid)
{
	session_begin(s, pid);
	s->engine.is_held = true;
}

/* It writes to the memory when it is told to by a byte, and answers by one. */
static pid_t writer(volatile char *memory, int pipes[2][2])
{
	char c;

	ASSERT_OK(pipe(pipes[0]));
	ASSERT_OK(pipe(pipes[1]));
	pid_t pid = ASSERT_OK(fork());
	if (pid == 0)
		while (read(pipes[0][0], &c, 1) == 1) {
			*memory = c;
			(void)!write(pipes[1][1], &c, 1);
		}
	return pid;
}

static void tell(int pipes[2][2], char c)
{
	ASSERT(write(pipes[0][1], &c, 1) == 1);
	ASSERT(read(pipes[1][0], &c, 1) == 1);
}

static char *pages(size_t n)
{
	char *p = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT(p != MAP_FAILED);
	return p;
}

static char copied_byte(const struct copy *c, const char *at)
{
	char byte;

	ASSERT_OK(pread_all(c->mem_fd, &byte, 1, (uint64_t)at));
	return byte;
}

TEST(copy, keeps_what_the_process_changes)
{
	char *memory = pages(1);
	int pipes[2][2], err = 0;
	struct session s;
	struct copy c;
	pid_t pid = writer(memory, pipes);

	tell(pipes, 'a');
	hold(&s, pid);
	ASSERT_EQ(copy_make(&s.in, NULL, 0, &c, &err), 0);
	session_end(&s);
	tell(pipes, 'b');
	ASSERT_EQ(copied_byte(&c, memory), 'a');
	copy_end(&c);
	ASSERT_EQ(c.pid, 0);
	copy_end(&c);
	ASSERT_OK(kill(pid, SIGKILL));
	ASSERT_OK(waitpid(pid, NULL, 0));
}

TEST(copy, has_what_is_not_forked)
{
	char *memory = pages(2);
	const uint64_t at = (uint64_t)memory;
	const struct copy_range ranges[] = {
		{ at, at + PAGE, MADV_DOFORK, MADV_DONTFORK },
		{ at + PAGE, at + 2 * PAGE, MADV_KEEPONFORK, MADV_WIPEONFORK },
	};
	int pipes[2][2], err = 0;
	struct session s;
	struct copy c;

	memory[0] = 'x';
	memory[PAGE] = 'y';
	pid_t pid = writer(pages(1), pipes);
	hold(&s, pid);
	ASSERT_EQ(copy_make(&s.in, ranges, ARRAY_SIZE(ranges), &c, &err), 0);
	ASSERT_EQ(copied_byte(&c, memory), 'x');
	ASSERT_EQ(copied_byte(&c, memory + PAGE), 'y');
	copy_end(&c);
	/* Memory that is not there cannot be advised about; the process is as it was. */
	const struct copy_range nowhere = { PAGE, 2 * PAGE, MADV_DOFORK, MADV_DONTFORK };
	ASSERT(copy_make(&s.in, &nowhere, 1, &c, &err) < 0);
	ASSERT_EQ(c.pid, 0);
	session_end(&s);
	tell(pipes, 'z');
	ASSERT_OK(kill(pid, SIGKILL));
	ASSERT_OK(waitpid(pid, NULL, 0));
}

TEST(copy, store_gadgets)
{
	static const struct {
		const char *code;
		size_t size;
		ssize_t at;
		size_t pops;
	} rows[] = {
		/* mov %eax, (%rbx); pop %rbx; ret */
		{ "\x90\x89\x03\x5b\xc3\x90\x90\x90\x90", 9, 1, 8 },
		/* mov %rax, (%rbx); add $16, %rsp; pop %rbx; ret: its 32-bit form starts later */
		{ "\x48\x89\x03\x48\x83\xc4\x10\x5b\xc3\x90\x90\x90\x90", 13, 1, 24 },
		/* a call between; the next one will do */
		{ "\x89\x03\xe8\0\0\0\0\xc3\x89\x03\xc3\x90\x90\x90\x90", 15, 8, 0 },
		/* too much is popped */
		{ "\x89\x03\x48\x83\xc4\x78\xc3\x90\x90\x90\x90", 11, -ENOENT, 0 },
		/* cut off */
		{ "\x89\x03", 2, -ENOENT, 0 },
		{ "", 0, -ENOENT, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		size_t pops = 4711;
		ssize_t at = find_store_gadget((const uint8_t *)rows[i].code, rows[i].size, &pops);

		ASSERT_EQ(at, rows[i].at);
		if (at >= 0)
			ASSERT_EQ(pops, rows[i].pops);
	}
}
