/* SPDX-License-Identifier: GPL-2.0-only */
#include <cpuid.h>
#include <stdio.h>
#include <string.h>

#include "kernel/cpu.h"

enum reg { EAX, EBX, ECX, EDX };

/* rep_good, nopl, cpuid: not of CPUID but of the kernel, and all x86-64 CPUs have them. */
#define KERNEL_WORD 3
#define KERNEL_BITS (1u << 16 | 1u << 20 | 1u << 25)

/*
 * A word of the image: where it comes from, and the names of its bits from 0 on. "-" has no name;
 * '+' marks what programs use as instructions, '*' what belongs to the FPU besides.
 */
static const struct word {
	uint32_t leaf, subleaf;
	enum reg reg;
	const char *names;
} words[CPU_WORDS] = {
	[0] = { 1, 0, EDX,
		"*fpu vme de pse +tsc msr pae mce +cx8 apic - +sep mtrr pge mca +cmov pat pse36 pn "
		"+clflush - dts acpi +mmx *fxsr +sse +sse2 ss ht tm ia64 pbe" },
	[1] = { 0x80000001, 0, EDX,
		"- - - - - - - - - - - +syscall - - - - - - - mp nx - +mmxext - - fxsr_opt pdpe1gb "
		"+rdtscp - +lm +3dnowext +3dnow" },
	[4] = { 1, 0, ECX,
		"+pni +pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 +ssse3 cid sdbg +fma +cx16 "
		"xtpr pdcm - pcid dca +sse4_1 +sse4_2 x2apic +movbe +popcnt tsc_deadline_timer "
		"+aes "
		"*xsave *osxsave +avx +f16c +rdrand hypervisor" },
	[6] = { 0x80000001, 0, ECX,
		"+lahf_lm cmp_legacy svm extapic cr8_legacy +abm +sse4a +misalignsse "
		"+3dnowprefetch "
		"osvw ibs +xop skinit wdt - +lwp +fma4 tce - nodeid_msr - +tbm topoext "
		"perfctr_core "
		"perfctr_nb - bpext ptsc perfctr_llc +mwaitx - -" },
	[9] = { 7, 0, EBX,
		"+fsgsbase tsc_adjust sgx +bmi1 +hle +avx2 fdp_excptn_only smep +bmi2 +erms "
		"invpcid "
		"+rtm cqm zero_fcs_fds +mpx rdt_a +avx512f +avx512dq +rdseed +adx smap +avx512ifma "
		"+pcommit +clflushopt +clwb intel_pt +avx512pf +avx512er +avx512cd +sha_ni "
		"+avx512bw +avx512vl" },
	[10] = { 0xd, 1, EAX, "*xsaveopt *xsavec *xgetbv1 xsaves xfd" },
	[11] = { 7, 0, ECX,
		 "prefetchwt1 +avx512vbmi umip +pku +ospke +waitpkg +avx512_vbmi2 shstk +gfni "
		 "+vaes "
		 "+vpclmulqdq +avx512_vnni +avx512_bitalg tme +avx512_vpopcntdq - la57 - - - - - "
		 "+rdpid key_locker bus_lock_detect +cldemote - +movdiri +movdir64b +enqcmd sgx_lc "
		 "pks" },
	[13] = { 0x80000008, 0, EBX, "+clzero irperf xsaveerptr - +rdpru" },
	[14] = { 6, 0, EAX, "dtherm ida arat - pln - pts hwp" },
	[15] = { 0x8000000a, 0, EDX,
		 "npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists - - "
		 "pausefilter - pfthreshold avic - v_vmsave_vmload vgif" },
};

static void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t ret[4])
{
	memset(ret, 0, 4 * sizeof(*ret));
	(void)__get_cpuid_count(leaf, subleaf, &ret[EAX], &ret[EBX], &ret[ECX], &ret[EDX]);
}

static enum cpu_vendor read_vendor(void)
{
	uint32_t r[4];
	char name[12];

	cpuid(0, 0, r);
	memcpy(name, &r[EBX], 4);
	memcpy(name + 4, &r[EDX], 4);
	memcpy(name + 8, &r[ECX], 4);
	if (!memcmp(name, "GenuineIntel", sizeof(name)))
		return CPU_INTEL;
	return memcmp(name, "AuthenticAMD", sizeof(name)) ? CPU_OTHER : CPU_AMD;
}

static void read_model(struct cpu *c)
{
	uint32_t r[4];

	cpuid(1, 0, r);
	c->stepping = r[EAX] & 15;
	c->model = r[EAX] >> 4 & 15;
	c->family = r[EAX] >> 8 & 15;
	if (c->family == 6 || c->family == 15)
		c->model |= r[EAX] >> 12 & 0xf0;
	if (c->family == 15)
		c->family += r[EAX] >> 20 & 0xff;
	for (uint32_t i = 0; i < 3; i++) {
		cpuid(0x80000002 + i, 0, r);
		memcpy(c->model_id + 16 * i, r, sizeof(r));
	}
}

void cpu_read(struct cpu *ret)
{
	uint32_t r[4];

	*ret = (struct cpu){ .vendor = read_vendor() };
	read_model(ret);
	for (unsigned i = 0; i < CPU_WORDS; i++) {
		if (!words[i].names)
			continue;
		cpuid(words[i].leaf, words[i].subleaf, r);
		ret->words[i] = r[words[i].reg];
	}
	ret->words[KERNEL_WORD] = KERNEL_BITS;
	cpuid(0xd, 0, r);
	ret->xfeatures = (uint64_t)r[EDX] << 32 | r[EAX];
	ret->xsave_size = r[EBX];
	ret->xsave_limit = r[ECX];
	cpuid(0xd, 1, r);
	ret->xfeatures |= (uint64_t)r[EDX] << 32 | r[ECX];
}

/* The word of the list that belongs to a bit, its mark included; "" behind the end. */
static int find_name(unsigned word, unsigned bit, const char **ret)
{
	const char *p = word < CPU_WORDS && words[word].names ? words[word].names : "";

	for (; bit && *p; bit--) {
		p += strcspn(p, " ");
		p += *p == ' ';
	}
	*ret = p;
	return strcspn(p, " ");
}

void cpu_feature_name(unsigned word, unsigned bit, char name[CPU_NAME_MAX])
{
	const char *p;
	int len = find_name(word, bit, &p);

	if (len && strchr("+*-", *p)) {
		p++;
		len--;
	}
	snprintf(name, CPU_NAME_MAX, "%.*s", len, p);
}

static uint32_t marked(unsigned word, const char *marks)
{
	uint32_t mask = 0;

	for (unsigned bit = 0; bit < 32; bit++) {
		const char *p;

		if (find_name(word, bit, &p) && strchr(marks, *p))
			mask |= 1u << bit;
	}
	return mask;
}

uint32_t cpu_instructions(unsigned word)
{
	return marked(word, "+*");
}

uint32_t cpu_fpu(unsigned word)
{
	return marked(word, "*");
}
