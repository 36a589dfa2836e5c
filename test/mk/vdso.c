/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The vDSO. Function addresses are looked up once, before the checkpoint, and
 * called after it: a vDSO that came back elsewhere, or one of another kernel
 * without a way to the old entry points, crashes here. With spin=1 a thread
 * lives in those functions, so that the checkpoint hits them half-way.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "mk.h"

static int (*v_clock_gettime)(clockid_t clock, struct timespec *ts);
static int (*v_gettimeofday)(struct timeval *tv, void *tz);
static time_t (*v_time)(time_t *t);
static int (*v_getcpu)(unsigned int *cpu, unsigned int *node, void *unused);

static const struct {
	const char *name;
	void *slot;
} entries[] = {
	{ "__vdso_clock_gettime", &v_clock_gettime },
	{ "__vdso_gettimeofday", &v_gettimeofday },
	{ "__vdso_time", &v_time },
	{ "__vdso_getcpu", &v_getcpu },
};

static const struct {
	const char *name;
	clockid_t id;
} clocks[] = {
	{ "CLOCK_REALTIME", CLOCK_REALTIME },
	{ "CLOCK_MONOTONIC", CLOCK_MONOTONIC },
	{ "CLOCK_BOOTTIME", CLOCK_BOOTTIME },
	{ "CLOCK_TAI", CLOCK_TAI },
	{ "CLOCK_MONOTONIC_RAW", CLOCK_MONOTONIC_RAW },
};

static unsigned long vdso_base;
static struct timespec last_seen;	/* CLOCK_MONOTONIC */
static volatile unsigned long spins, steps_back;

static const Elf64_Shdr *find_section(const Elf64_Ehdr *elf, unsigned int type)
{
	const Elf64_Shdr *s = (const void *)((const char *)elf + elf->e_shoff);
	int i;

	for (i = 0; i < elf->e_shnum; i++)
		if (s[i].sh_type == type)
			return &s[i];
	return NULL;
}

static void *find_symbol(const char *name)
{
	const Elf64_Ehdr *elf = (const void *)vdso_base;
	const Elf64_Shdr *dynsym = find_section(elf, SHT_DYNSYM);
	const Elf64_Shdr *sections = (const void *)(vdso_base + elf->e_shoff);
	const Elf64_Sym *sym;
	const char *names;
	size_t i;

	if (!dynsym)
		return NULL;
	sym = (const void *)(vdso_base + dynsym->sh_offset);
	names = (const char *)vdso_base + sections[dynsym->sh_link].sh_offset;
	for (i = 0; i < dynsym->sh_size / sizeof(*sym); i++)
		if (!strcmp(names + sym[i].st_name, name))
			return (void *)(vdso_base + sym[i].st_value);
	return NULL;
}

static int64_t ns(const struct timespec *ts)
{
	return ts->tv_sec * 1000000000LL + ts->tv_nsec;
}

static void *spin(void *unused)
{
	struct timespec ts;
	int64_t last = 0;

	(void)unused;
	for (;;) {
		v_clock_gettime(CLOCK_MONOTONIC, &ts);
		if (ns(&ts) < last)
			steps_back++;
		last = ns(&ts);
		spins++;
	}
	return NULL;
}

static bool spun_on(void *since)
{
	return spins > *(unsigned long *)since + 1000;
}

static void make(void)
{
	unsigned long none = 0;
	pthread_t thread;
	void *code;
	size_t i;

	vdso_base = getauxval(AT_SYSINFO_EHDR);
	if (!vdso_base)
		skip("no vDSO here");
	for (i = 0; i < ARRAY_SIZE(entries); i++) {
		code = find_symbol(entries[i].name);
		if (!code)
			die("vDSO has no %s", entries[i].name);
		memcpy(entries[i].slot, &code, sizeof(code));
	}
	v_clock_gettime(CLOCK_MONOTONIC, &last_seen);
	if (!param_long("spin"))
		return;
	if (pthread_create(&thread, NULL, spin, NULL) || !wait_until(spun_on, &none))
		die("the spinning thread does not start");
}

/* Time as the kernel tells it brackets the time as the vDSO tells it. */
static void check_clock(const char *name, clockid_t id)
{
	struct timespec before, seen, after;

	syscall(SYS_clock_gettime, id, &before);
	v_clock_gettime(id, &seen);
	syscall(SYS_clock_gettime, id, &after);
	if (ns(&seen) < ns(&before) || ns(&seen) > ns(&after))
		bad("%s, expected between %ld and %ld ns, got %ld", name, (long)ns(&before),
		    (long)ns(&after), (long)ns(&seen));
}

static void check_wall_clocks(void)
{
	struct timeval tv;
	time_t now = time(NULL), t = v_time(NULL);

	v_gettimeofday(&tv, NULL);
	if (t < now || t > now + 1 || tv.tv_sec < now || tv.tv_sec > now + 1)
		bad("wall clock, expected %ld, got %ld and %ld", (long)now, (long)t,
		    (long)tv.tv_sec);
}

static void check_cpu(void)
{
	unsigned int cpu = ~0U, node = ~0U;

	if (v_getcpu(&cpu, &node, NULL) || cpu >= (unsigned int)sysconf(_SC_NPROCESSORS_CONF))
		bad("getcpu says cpu %u, node %u", cpu, node);
}

static void check_spinner(void)
{
	unsigned long since = spins;

	if (!wait_until(spun_on, &since))
		bad("the spinning thread stands still after %lu rounds", since);
	same_long("steps back in time", 0, steps_back);
}

static void check(void)
{
	struct timespec ts;
	size_t i;

	same_long("AT_SYSINFO_EHDR", vdso_base, getauxval(AT_SYSINFO_EHDR));
	if (memcmp((void *)vdso_base, ELFMAG, SELFMAG))
		bad("no ELF header at %#lx", vdso_base);
	for (i = 0; i < ARRAY_SIZE(clocks); i++)
		check_clock(clocks[i].name, clocks[i].id);
	check_wall_clocks();
	check_cpu();
	v_clock_gettime(CLOCK_MONOTONIC, &ts);
	if (ns(&ts) < ns(&last_seen))
		bad("CLOCK_MONOTONIC went back by %ld ns", (long)(ns(&last_seen) - ns(&ts)));
	last_seen = ts;
	if (param_long("spin"))
		check_spinner();
}

struct factory vdso_factory = {
	.name	= "vdso",
	.about	= "calls functions of the vDSO through addresses looked up before",
	.params	= {
		{ "spin", "0", "1: a thread calls clock_gettime all the time" },
	},
	.make	= make,
	.check	= check,
};
