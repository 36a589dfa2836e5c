/* SPDX-License-Identifier: GPL-2.0-only */
/* Strings of options stay allocated on purpose: the leak sanitizer, if there is one, is told so. */
#ifndef FUZZ_KEPT_H
#define FUZZ_KEPT_H

void __lsan_disable(void) __attribute__((weak));
void __lsan_enable(void) __attribute__((weak));

static inline void kept_begin(void)
{
	if (__lsan_disable)
		__lsan_disable();
}

static inline void kept_end(void)
{
	if (__lsan_enable)
		__lsan_enable();
}

#endif
