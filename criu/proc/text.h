/* SPDX-License-Identifier: GPL-2.0-only */
/* Small pieces of text as /proc writes it. */
#ifndef PROC_TEXT_H
#define PROC_TEXT_H

#include <stdbool.h>
#include <stdint.h>

/* Read a number at p. Return the first character behind it, or NULL if there is no digit or
 * the number does not fit. */
const char *text_hex(const char *p, uint64_t *ret);
const char *text_dec(const char *p, uint64_t *ret);
const char *text_oct(const char *p, uint64_t *ret);
const char *text_int(const char *p, int64_t *ret); /* decimal with an optional minus sign */

/* Writes n in decimal, ended by NUL: names of descriptors in /proc, a lot of them. */
#define TEXT_DEC_MAX 21
void text_put_dec(char buf[TEXT_DEC_MAX], uint64_t n);

const char *text_skip_blanks(const char *p); /* spaces and tabs */

/* If line is "name: value" returns value without leading blanks, else NULL. */
const char *text_field(const char *line, const char *name);

/* Ends the line with NUL in place of its newline. Returns the next line, or NULL. */
char *text_cut_line(char *line);

/* Cuts the mark off with which /proc shows a path whose file is gone: "NAME (deleted)". */
void text_cut_deleted(char *path);

#endif
