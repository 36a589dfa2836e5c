/* SPDX-License-Identifier: GPL-2.0-only */
/* criu cpuinfo dump, criu cpuinfo check, and the same as part of a dump and a restore. */
#include "cmd/cpuinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/own.h"
#include "cmd/commands.h"
#include "image/messages.h"
#include "kernel/cpu.h"

#define LIST_MAX 512

int cpuinfo_write(struct image_dir *d)
{
	CpuinfoEntry e = CPUINFO_ENTRY__INIT;
	CpuinfoX86Entry x = CPUINFO_X86_ENTRY__INIT, *list = &x;
	struct cpu cpu;

	cpu_read(&cpu);
	x.vendor_id = (CpuinfoX86Entry__Vendor)cpu.vendor;
	x.cpu_family = cpu.family;
	x.model = cpu.model;
	x.stepping = cpu.stepping;
	x.capability_ver = CPU_WORDS_KIND;
	x.capability = cpu.words;
	x.n_capability = CPU_WORDS;
	x.model_id = cpu.model_id;
	x.has_xfeatures_mask = x.has_xsave_size = x.has_xsave_size_max = true;
	x.xfeatures_mask = cpu.xfeatures;
	x.xsave_size = cpu.xsave_size;
	x.xsave_size_max = cpu.xsave_limit;
	e.x86_entry = &list;
	e.n_x86_entry = 1;
	return image_write_one(d, IMG_CPUINFO, 0, &e);
}

static void add_name(char list[LIST_MAX], unsigned word, unsigned bit)
{
	size_t len = strlen(list);
	char name[CPU_NAME_MAX];

	cpu_feature_name(word, bit, name);
	if (name[0])
		snprintf(list + len, LIST_MAX - len, " %s", name);
	else
		snprintf(list + len, LIST_MAX - len, " bit %u of word %u", bit, word);
}

/* Names of the features that the mask selects: those that lack here, or that are only here. */
static void list_features(const CpuinfoX86Entry *image, const struct cpu *here, bool only_here,
			  uint32_t (*mask)(unsigned word), char list[LIST_MAX])
{
	list[0] = '\0';
	for (unsigned w = 0; w < CPU_WORDS; w++) {
		uint32_t there = w < image->n_capability ? image->capability[w] : 0;
		uint32_t differs = only_here ? here->words[w] & ~there : there & ~here->words[w];

		differs &= mask(w);
		for (unsigned bit = 0; bit < 32; bit++)
			if (differs >> bit & 1)
				add_name(list, w, bit);
	}
}

static uint32_t all_features(unsigned word)
{
	(void)word;
	return UINT32_MAX;
}

static int check_same(const CpuinfoX86Entry *image, const struct cpu *here)
{
	char missing[LIST_MAX], more[LIST_MAX];

	if ((uint32_t)image->vendor_id != (uint32_t)here->vendor ||
	    image->cpu_family != here->family || image->model != here->model)
		return refuse(EOPNOTSUPP,
			      "image cpuinfo.img: it is of another CPU: %s (family %u, model %u); "
			      "this one is %s (family %u, model %u); to compare only what programs "
			      "use give --cpu-cap=ins",
			      image->model_id ? image->model_id : "unknown", image->cpu_family,
			      image->model, here->model_id, here->family, here->model);
	list_features(image, here, false, all_features, missing);
	list_features(image, here, true, all_features, more);
	if (!missing[0] && !more[0])
		return 0;
	return refuse(EOPNOTSUPP,
		      "image cpuinfo.img: the CPU differs. Only there:%s. Only here:%s. To compare "
		      "only what programs use give --cpu-cap=ins",
		      missing[0] ? missing : " nothing", more[0] ? more : " nothing");
}

static int check_instructions(const CpuinfoX86Entry *image, const struct cpu *here)
{
	char missing[LIST_MAX];

	list_features(image, here, false, cpu_instructions, missing);
	return missing[0] ? refuse(EOPNOTSUPP,
				   "image cpuinfo.img: this CPU lacks instructions that the one of "
				   "the dump has, and programs may use:%s",
				   missing)
			  : 0;
}

static int check_fpu(const CpuinfoX86Entry *image, const struct cpu *here)
{
	uint64_t lacking = image->has_xfeatures_mask ? image->xfeatures_mask & ~here->xfeatures : 0;
	char missing[LIST_MAX];

	list_features(image, here, false, cpu_fpu, missing);
	if (missing[0])
		return refuse(EOPNOTSUPP,
			      "image cpuinfo.img: the FPU of this CPU lacks what that of the dump "
			      "has:%s",
			      missing);
	if (lacking)
		return refuse(
			EOPNOTSUPP,
			"image cpuinfo.img: XSAVE of this CPU lacks the state components %#lx "
			"that the one of the dump has",
			(long)lacking);
	if (image->has_xsave_size && image->xsave_size > here->xsave_limit)
		return refuse(EOPNOTSUPP,
			      "image cpuinfo.img: XSAVE of the dump needs %u bytes, here %u",
			      image->xsave_size, here->xsave_limit);
	return 0;
}

static const struct {
	enum cpu_cap cap;
	int (*check)(const CpuinfoX86Entry *image, const struct cpu *here);
} checks[] = {
	{ CPU_CAP_FPU, check_fpu },
	{ CPU_CAP_INS, check_instructions },
	{ CPU_CAP_CPU, check_same },
};

static int check_entry(const CpuinfoEntry *e, const struct options *o)
{
	int caps = o->cpu_cap == CPU_CAP_UNSET ? CPU_CAP_FPU | CPU_CAP_INS : o->cpu_cap;
	struct cpu here;

	if (e->n_x86_entry != 1)
		return refuse(EINVAL, "image cpuinfo.img: it is not of one x86 CPU");
	if (e->x86_entry[0]->capability_ver != CPU_WORDS_KIND)
		return refuse(EINVAL,
			      "image cpuinfo.img: its capabilities are in an order (%u) that this "
			      "version does not know",
			      e->x86_entry[0]->capability_ver);
	cpu_read(&here);
	for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
		int rc = caps & checks[i].cap ? checks[i].check(e->x86_entry[0], &here) : 0;

		if (rc < 0)
			return rc;
	}
	return 0;
}

int cpuinfo_check(int dirfd, const struct options *o)
{
	struct arena a = { 0 };
	CpuinfoEntry *e;
	int rc = image_need_one(dirfd, IMG_CPUINFO, 0, &a, &e);

	if (rc >= 0)
		rc = check_entry(e, o);
	arena_done(&a);
	return rc < 0 ? rc : 0;
}

static int write_only(int fd)
{
	struct image_dir d;

	image_dir_init(&d, fd);
	int rc = cpuinfo_write(&d);
	if (rc < 0)
		image_dir_discard(&d);
	image_dir_done(&d);
	return rc;
}

int cmd_cpuinfo(const struct options *o)
{
	const char *what = o->n_args ? o->args[0] : "";
	bool is_dump = !strcmp(what, "dump");

	if (!is_dump && strcmp(what, "check")) {
		(void)refuse(EINVAL, "cpuinfo: say `criu cpuinfo dump` or `criu cpuinfo check`");
		return 1;
	}
	autoclose int fd = open(o->images_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		(void)fail(errno, "images directory %s: open", o->images_dir);
		return is_dump ? 255 : 1;
	}
	if (is_dump)
		return write_only(fd) < 0 ? 255 : 0;
	return cpuinfo_check(fd, o) < 0 ? 1 : 0;
}
