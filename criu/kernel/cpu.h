/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What this CPU is and can do, in the words that cpuinfo.img has it in: some leaves of CPUID
 * (Intel SDM vol. 2A, AMD APM vol. 3), in an order of the image's own.
 */
#ifndef KERNEL_CPU_H
#define KERNEL_CPU_H

#include <stdbool.h>
#include <stdint.h>

#define CPU_WORDS      19
#define CPU_WORDS_KIND 2 /* of this order: capability_ver */

enum cpu_vendor { CPU_OTHER, CPU_INTEL, CPU_AMD }; /* as in the image */

struct cpu {
	enum cpu_vendor vendor;
	uint32_t family, model, stepping;
	char model_id[49];
	uint32_t words[CPU_WORDS];
	uint64_t
		xfeatures; /* that XSAVE knows here: XCR0 and IA32_XSS as far as they can be seen */
	uint32_t xsave_size;  /* of all that is enabled, bytes */
	uint32_t xsave_limit; /* of all that the CPU has */
};

void cpu_read(struct cpu *ret);

/* The name of a feature as in /proc/cpuinfo, or "" for what has none. At most 31 characters. */
#define CPU_NAME_MAX 32
void cpu_feature_name(unsigned word, unsigned bit, char name[CPU_NAME_MAX]);

/* Features that programs use as instructions; those that make up the FPU. */
uint32_t cpu_instructions(unsigned word);
uint32_t cpu_fpu(unsigned word);

#endif
