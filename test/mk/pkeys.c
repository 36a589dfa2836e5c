/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Protection keys: some allocated, one freed between them, one freed while a mapping has it; mappings
 * with keys, and the rights by them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mk.h"

#define KEYS	5
#define FREED	2	/* of the keys, before anything has it */
#define STALE	4	/* after its mapping has it */

static const unsigned rights[KEYS] = { 0, PKEY_DISABLE_WRITE, 0, PKEY_DISABLE_ACCESS, 0 };
static int keys[KEYS];
static volatile unsigned char *areas[KEYS];
static sigjmp_buf fault;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)sig, (void)context;
	siglongjmp(fault, info->si_code);
}

static unsigned read_rights(void)
{
	unsigned value, zero;

	asm volatile (".byte 0x0f, 0x01, 0xee" : "=a" (value), "=d" (zero) : "c" (0)); /* rdpkru */
	return value;
}

static void write_rights(unsigned value)
{
	asm volatile (".byte 0x0f, 0x01, 0xef" : : "a" (value), "c" (0), "d" (0)); /* wrpkru */
}

/* 0, or the code of the fault. Handlers have rights of their own, which a jump out of them keeps. */
static int touch(volatile unsigned char *at, int write)
{
	volatile unsigned before = read_rights();
	int code = sigsetjmp(fault, 1);

	if (code) {
		write_rights(before);
		return code;
	}
	if (write)
		*at = *at + 1;
	else
		(void)*at;
	return 0;
}

static void make(void)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };

	sigaction(SIGSEGV, &action, NULL);
	for (int i = 0; i < KEYS; i++) {
		keys[i] = pkey_alloc(0, 0);
		if (keys[i] < 0 && i == 0)
			skip("this CPU has no protection keys");
		if (keys[i] < 0)
			die("pkey_alloc: %s", strerror(errno));
	}
	pkey_free(keys[FREED]);
	for (int i = 0; i < KEYS; i++) {
		areas[i] = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (areas[i] == MAP_FAILED)
			die("mmap: %s", strerror(errno));
		areas[i][0] = i;
		if (i != FREED && pkey_mprotect((void *)areas[i], 2 * PAGE, PROT_READ | PROT_WRITE, keys[i]))
			die("pkey_mprotect: %s", strerror(errno));
		if (i != FREED && pkey_set(keys[i], rights[i]))
			die("pkey_set: %s", strerror(errno));
	}
	pkey_free(keys[STALE]);
}

static int key_of(volatile unsigned char *at)
{
	char line[256];
	int key = -1;

	smaps_line((const void *)at, "ProtectionKey:", line, sizeof(line));
	sscanf(line, "ProtectionKey: %d", &key);
	return key;
}

static void check(void)
{
	int fresh;

	for (int i = 0; i < KEYS; i++) {
		same_long("key of a mapping", i == FREED ? 0 : keys[i], key_of(areas[i]));
		if (i != FREED)
			same_long("rights by a key", rights[i], pkey_get(keys[i]));
		same_long("reading", rights[i] & PKEY_DISABLE_ACCESS ? SEGV_PKUERR : 0, touch(areas[i], 0));
		same_long("writing", rights[i] ? SEGV_PKUERR : 0, touch(areas[i], 1));
	}
	/* The next one is the one that is free between them, the one after that the stale one. */
	fresh = pkey_alloc(0, 0);
	same_long("the next key", keys[FREED], fresh);
	same_long("the next but one", keys[STALE], pkey_alloc(0, 0));
	pkey_free(keys[FREED]);
	pkey_free(keys[STALE]);
	pkey_set(keys[FREED], 0);
}

struct factory pkeys_factory = {
	.name	= "pkeys",
	.about	= "protection keys of memory",
	.make	= make,
	.check	= check,
};
