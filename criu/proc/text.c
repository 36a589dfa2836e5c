/* SPDX-License-Identifier: GPL-2.0-only */
#include <stddef.h>
#include <string.h>

#include "proc/text.h"

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return 99;
}

static const char *number(const char *p, unsigned base, uint64_t *ret)
{
	uint64_t n = 0;
	const char *start = p;

	for (unsigned d; (d = digit(*p)) < base; p++)
		if (__builtin_mul_overflow(n, (uint64_t)base, &n) ||
		    __builtin_add_overflow(n, d, &n))
			return NULL;
	if (p == start)
		return NULL;
	*ret = n;
	return p;
}

const char *text_hex(const char *p, uint64_t *ret)
{
	return number(p, 16, ret);
}

const char *text_dec(const char *p, uint64_t *ret)
{
	return number(p, 10, ret);
}

const char *text_oct(const char *p, uint64_t *ret)
{
	return number(p, 8, ret);
}

const char *text_int(const char *p, int64_t *ret)
{
	uint64_t n;
	bool negative = *p == '-';

	p = number(p + negative, 10, &n);
	if (!p || n > (uint64_t)INT64_MAX + negative)
		return NULL;
	*ret = negative ? (int64_t)(0 - n) : (int64_t)n;
	return p;
}

void text_put_dec(char buf[TEXT_DEC_MAX], uint64_t n)
{
	char digits[TEXT_DEC_MAX], *p = digits + sizeof(digits);

	*--p = '\0';
	do
		*--p = '0' + n % 10;
	while (n /= 10);
	memcpy(buf, p, digits + sizeof(digits) - p);
}

const char *text_skip_blanks(const char *p)
{
	while (*p == ' ' || *p == '\t')
		p++;
	return p;
}

const char *text_field(const char *line, const char *name)
{
	/* Most lines are another field, and one character tells. */
	if (line[0] != name[0])
		return NULL;
	size_t len = strlen(name);
	if (strncmp(line, name, len) || line[len] != ':')
		return NULL;
	return text_skip_blanks(line + len + 1);
}

char *text_cut_line(char *line)
{
	char *nl = strchr(line, '\n');

	if (!nl)
		return NULL;
	*nl = '\0';
	return nl + 1;
}

void text_cut_deleted(char *path)
{
	static const char mark[] = " (deleted)";
	size_t len = strlen(path), n = sizeof(mark) - 1;

	if (len > n && !strcmp(path + len - n, mark))
		path[len - n] = '\0';
}
