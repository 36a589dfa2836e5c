/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/own.h"
#include "model/options.h"

enum kind {
	FLAG,
	SWITCH,
	PID,
	NUMBER,
	SIZE,
	STRING,
	LIST,
	INODES,
	CHOICE,
	VERBOSITY,
	CLOSE,
	HELP,
	VERSION_,
	LATER
};

struct row {
	const char *name;
	char letter;
	enum kind kind;
	size_t offset;
	int lowest, highest;
	const char *argument; /* NULL: none; "[...]": optional */
	const char *help;
};

static const struct row rows[] = {
#define OPTION(name, letter, kind, member, lowest, highest, argument, help)                        \
	{ name, letter, kind, offsetof(struct options, member), lowest, highest, argument, help },
#include "model/options.def"
#undef OPTION
};

#define N_ROWS	    ARRAY_SIZE(rows)
#define NO_TWIN	    0x1000 /* value of --no-NAME: this plus the row */
#define FIRST_VALUE 0x100  /* value of --NAME: this plus the row */

static bool has_twin(const struct row *r)
{
	return r->kind == SWITCH;
}

static int argument_of(const struct row *r)
{
	if (!r->argument)
		return no_argument;
	return r->argument[0] == '[' ? optional_argument : required_argument;
}

/* Builds what getopt_long wants from the rows. The caller frees the array and its names. */
static struct option *long_options(void)
{
	struct option *list = xmalloc((2 * N_ROWS + 1) * sizeof(*list)), *o = list;

	for (size_t i = 0; i < N_ROWS; i++) {
		*o++ = (struct option){ rows[i].name, argument_of(&rows[i]), NULL,
					FIRST_VALUE + i };
		if (!has_twin(&rows[i]))
			continue;
		char *no = xmalloc(strlen(rows[i].name) + 4);
		sprintf(no, "no-%s", rows[i].name);
		*o++ = (struct option){ no, no_argument, NULL, NO_TWIN + i };
	}
	*o = (struct option){ 0 };
	return list;
}

static void free_long_options(struct option *list)
{
	for (struct option *o = list; o->name; o++)
		if (o->val >= NO_TWIN)
			free((char *)o->name);
	free(list);
}

static void short_options(char *out)
{
	for (size_t i = 0; i < N_ROWS; i++) {
		if (!rows[i].letter)
			continue;
		*out++ = rows[i].letter;
		for (int colons = argument_of(&rows[i]); colons > 0; colons--)
			*out++ = ':';
	}
	*out = '\0';
}

static bool bad(const struct row *r, const char *value)
{
	fprintf(stderr, "criu: invalid argument for --%s: %s\n", r->name, value);
	return false;
}

static bool set_number(const struct row *r, const char *value, int *out)
{
	char *end;

	long n = strtol(value, &end, 10);
	if (end == value || *end || n < r->lowest || n > r->highest)
		return bad(r, value);
	*out = n;
	return true;
}

/* Bytes, or with a suffix KiB, MiB, GiB. */
static bool set_size(const struct row *r, const char *value, uint64_t *out)
{
	static const char suffixes[] = "KMG";
	char *end;
	unsigned shift = 0;

	errno = 0;
	unsigned long long n = strtoull(value, &end, 10);
	const char *suffix = *end ? strchr(suffixes, *end) : NULL;
	if (suffix) {
		shift = 10 * (suffix - suffixes + 1);
		end++;
	}
	if (end == value || *end || errno || value[0] == '-' || n > UINT64_MAX >> shift)
		return bad(r, value);
	*out = n << shift;
	return true;
}

static bool add_to_list(const struct row *r, const char *value, struct option_list *out)
{
	if (out->n == OPTION_LIST_MAX) {
		fprintf(stderr, "criu: --%s: more than %d of them\n", r->name, OPTION_LIST_MAX);
		return false;
	}
	out->item[out->n++] = value;
	return true;
}

static bool set_choice(const struct row *r, const char *value, int *out)
{
	const char *p = r->argument;

	for (int i = 0; *p; i++) {
		size_t len = strcspn(p, "|");

		if (strlen(value) == len && !strncmp(p, value, len)) {
			*out = i;
			return true;
		}
		p += len + (p[len] == '|');
	}
	return bad(r, value);
}

/* -v adds one, -vvv counts the letters, -v3 sets. */
static bool set_verbosity(const struct row *r, const char *value, int *out)
{
	if (!value) {
		*out = min(*out + 1, r->highest);
		return true;
	}
	if (value[0] == 'v' && strspn(value, "v") == strlen(value)) {
		*out = min((int)strlen(value) + 1, r->highest);
		return true;
	}
	return set_number(r, value, out);
}

static bool close_fd(const struct row *r, const char *value)
{
	int fd;

	if (!set_number(r, value, &fd))
		return false;
	if (close(fd) == 0)
		return true;
	fprintf(stderr, "criu: --close %d: no such descriptor is open\n", fd);
	return false;
}

static bool apply(const struct row *r, bool on, const char *value, struct options *o)
{
	void *out = (char *)o + r->offset;

	switch (r->kind) {
	case FLAG:
	case SWITCH:
		*(bool *)out = on;
		return true;
	case PID:
	case NUMBER:
		return set_number(r, value, out);
	case STRING:
		*(const char **)out = value;
		return true;
	case SIZE:
		return set_size(r, value, out);
	case LIST:
	case INODES:
		return add_to_list(r, value, out);
	case CHOICE:
		return set_choice(r, value, out);
	case VERBOSITY:
		return set_verbosity(r, value, out);
	case CLOSE:
		return close_fd(r, value);
	case HELP:
	case VERSION_:
		return true;
	case LATER:
		fprintf(stderr, "criu: option --%s is not supported by this version\n", r->name);
		return false;
	}
	return false;
}

static const struct row *row_of(int value)
{
	if (value >= NO_TWIN)
		return &rows[value - NO_TWIN];
	if (value >= FIRST_VALUE)
		return &rows[value - FIRST_VALUE];
	for (size_t i = 0; i < N_ROWS; i++)
		if (rows[i].letter && rows[i].letter == value)
			return &rows[i];
	return NULL;
}

/* The inodes may also be a word of their own, which getopt does not take for the argument. */
static bool is_inodes(const char *word)
{
	size_t digits = word ? strspn(word, "0123456789") : 0;

	return digits && (!word[digits] || word[digits] == ',' || word[digits] == '=');
}

static bool wants_help(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
			return true;
	return false;
}

static enum options_result parse_all(int argc, char **argv, const char *letters,
				     const struct option *longs, struct options *o)
{
	int value;

	optind = 1;
	while ((value = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
		const struct row *r = row_of(value);

		if (r && r->kind == VERSION_)
			return OPTIONS_VERSION;
		if (r && r->kind == INODES && !optarg && is_inodes(argv[optind]))
			optarg = argv[optind++];
		if (!r || !apply(r, value < NO_TWIN, optarg, o))
			return OPTIONS_BAD;
	}
	return OPTIONS_OK;
}

enum options_result options_parse(int argc, char **argv, struct options *ret)
{
	struct options o = {
		.images_dir = ".",
		.verbosity = 2,
		.timeout = 10,
		.status_fd = -1,
		.file_validation = VALIDATE_BUILDID,
		.ghost_limit = 1 << 20,
	};
	char letters[3 * N_ROWS + 1];

	if (wants_help(argc, argv))
		return OPTIONS_HELP;
	short_options(letters);
	struct option *longs = long_options();
	enum options_result result = parse_all(argc, argv, letters, longs, &o);
	free_long_options(longs);
	if (result != OPTIONS_OK)
		return result;
	if (o.sibling && !o.detach) {
		fprintf(stderr,
			"criu: --restore-sibling makes sense only with --restore-detached\n");
		return OPTIONS_BAD;
	}
	o.command = argv[optind];
	if (o.command)
		optind++;
	o.args = argv + optind;
	o.n_args = argc - optind;
	if (!o.work_dir)
		o.work_dir = o.images_dir;
	*ret = o;
	return OPTIONS_OK;
}

void options_help(void)
{
	for (size_t i = 0; i < N_ROWS; i++) {
		const struct row *r = &rows[i];
		char name[64];

		if (r->kind == LATER)
			continue;
		snprintf(name, sizeof(name), "%s%s%s%s", has_twin(r) ? "[no-]" : "", r->name,
			 r->argument ? " " : "", r->argument ? r->argument : "");
		if (r->letter)
			printf("  -%c, --%-36s %s\n", r->letter, name, r->help);
		else
			printf("      --%-36s %s\n", name, r->help);
	}
}
