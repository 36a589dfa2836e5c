/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/io.h"
#include "base/own.h"
#include "model/options.h"

enum kind {
	FLAG,
	SWITCH,
	PID,
	NUMBER,
	SIZE,
	STRING,
	CONFIG,
	LIST,
	INODES,
	CHOICE,
	CPU_CAP,
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

/* Where the reason of a refusal goes. */
struct reason {
	char *text;
	size_t size;
};

static bool refused(const struct reason *why, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
static bool refused(const struct reason *why, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(why->text, why->size, fmt, args);
	va_end(args);
	return false;
}

static bool bad(const struct row *r, const char *value, const struct reason *why)
{
	return refused(why, "invalid argument for --%s: %s", r->name, value ? value : "none");
}

static bool set_number(const struct row *r, const char *value, int *out, const struct reason *why)
{
	char *end;

	long n = strtol(value, &end, 10);
	if (end == value || *end || n < r->lowest || n > r->highest)
		return bad(r, value, why);
	*out = n;
	return true;
}

/* Bytes, or with a suffix KiB, MiB, GiB. */
static bool set_size(const struct row *r, const char *value, uint64_t *out,
		     const struct reason *why)
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
		return bad(r, value, why);
	*out = n << shift;
	return true;
}

static bool add_to_list(const struct row *r, const char *value, struct option_list *out,
			const struct reason *why)
{
	if (out->n == OPTION_LIST_MAX) {
		return refused(why, "--%s: more than %d of them", r->name, OPTION_LIST_MAX);
	}
	out->item[out->n++] = value;
	return true;
}

static bool set_choice(const struct row *r, const char *value, int *out, const struct reason *why)
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
	return bad(r, value, why);
}

/* A list, the later ones on top; ^ takes away, at first from all. In requests a number. */
static bool set_cpu_cap(const struct row *r, const char *value, int *out, const struct reason *why)
{
	static const struct {
		const char *name;
		int cap;
	} caps[] = {
		{ "fpu", CPU_CAP_FPU }, { "cpu", CPU_CAP_CPU },	  { "ins", CPU_CAP_INS },
		{ "all", CPU_CAP_ALL }, { "none", CPU_CAP_NONE },
	};
	int cap = value && value[0] == '^' ? CPU_CAP_ALL : CPU_CAP_NONE;
	char *end;

	unsigned long n = value ? strtoul(value, &end, 10) : CPU_CAP_FPU | CPU_CAP_INS;
	if (!value || (end != value && !*end)) {
		*out = n & CPU_CAP_ALL;
		return true;
	}
	for (const char *p = value;; p++) {
		bool is_off = *p == '^';
		size_t len = strcspn(p += is_off, ","), i = 0;

		while (i < ARRAY_SIZE(caps) &&
		       (strlen(caps[i].name) != len || strncmp(caps[i].name, p, len)))
			i++;
		if (i == ARRAY_SIZE(caps))
			return bad(r, value, why);
		if (is_off)
			cap &= ~caps[i].cap;
		else
			cap = caps[i].cap == CPU_CAP_NONE ? CPU_CAP_NONE : cap | caps[i].cap;
		p += len;
		if (!*p)
			break;
	}
	*out = cap;
	return true;
}

/* -v adds one, -vvv counts the letters, -v3 sets. */
static bool set_verbosity(const struct row *r, const char *value, int *out,
			  const struct reason *why)
{
	if (!value) {
		*out = min(*out + 1, r->highest);
		return true;
	}
	if (value[0] == 'v' && strspn(value, "v") == strlen(value)) {
		*out = min((int)strlen(value) + 1, r->highest);
		return true;
	}
	return set_number(r, value, out, why);
}

static bool close_fd(const struct row *r, const char *value, const struct reason *why)
{
	int fd;

	if (!set_number(r, value, &fd, why))
		return false;
	if (close(fd) == 0)
		return true;
	return refused(why, "--close %d: no such descriptor is open", fd);
}

static bool apply(const struct row *r, bool on, const char *value, struct options *o,
		  const struct reason *why)
{
	void *out = (char *)o + r->offset;

	switch (r->kind) {
	case FLAG:
	case SWITCH:
		*(bool *)out = on;
		return true;
	case PID:
	case NUMBER:
		return set_number(r, value, out, why);
	case STRING:
	case CONFIG:
		*(const char **)out = value;
		return true;
	case SIZE:
		return set_size(r, value, out, why);
	case LIST:
	case INODES:
		return add_to_list(r, value, out, why);
	case CHOICE:
		return set_choice(r, value, out, why);
	case CPU_CAP:
		return set_cpu_cap(r, value, out, why);
	case VERBOSITY:
		return set_verbosity(r, value, out, why);
	case CLOSE:
		return close_fd(r, value, why);
	case HELP:
	case VERSION_:
		return true;
	case LATER:
		return refused(why, "option --%s is not supported by this version", r->name);
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
	char text[256];
	const struct reason why = { text, sizeof(text) };
	int value;

	optind = 1;
	while ((value = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
		const struct row *r = row_of(value);

		if (r && r->kind == VERSION_)
			return OPTIONS_VERSION;
		if (r && r->kind == INODES && !optarg && is_inodes(argv[optind]))
			optarg = argv[optind++];
		if (!r)
			return OPTIONS_BAD;
		if (!apply(r, value < NO_TWIN, optarg, o, &why)) {
			fprintf(stderr, "criu: %s\n", why.text);
			return OPTIONS_BAD;
		}
	}
	return OPTIONS_OK;
}

struct options options_default(void)
{
	return (struct options){
		.images_dir = ".",
		.verbosity = 2,
		.timeout = 10,
		.status_fd = -1,
		.ps_socket = -1,
		.file_validation = VALIDATE_BUILDID,
		.ghost_limit = 1 << 20,
		.cpu_cap = CPU_CAP_UNSET,
		.pidns = PIDNS_NONE,
		.outer_proc = -1,
		.default_config = true,
		.service_fd = -1,
	};
}

/* A row by its long name, or by "no-" and that. */
static const struct row *row_named(const char *name, bool *ret_on)
{
	for (int no = 0; no < 2; no++) {
		*ret_on = !no;
		for (size_t i = 0; i < N_ROWS; i++)
			if (!strcmp(rows[i].name, name) && (!no || has_twin(&rows[i])))
				return &rows[i];
		if (strncmp(name, "no-", 3))
			break;
		name += 3;
	}
	return NULL;
}

bool options_apply(struct options *o, const char *name, const char *value, char *error, size_t size)
{
	const struct reason why = { error, size };
	bool on;
	const struct row *r = row_named(name, &on);

	if (!r || r->kind == HELP || r->kind == VERSION_ || r->kind == CLOSE)
		return refused(&why, "there is no option %s", name);
	if (r->kind != LATER && !r->argument && value)
		return refused(&why, "option %s takes no value", name);
	if (r->kind != LATER && argument_of(r) == required_argument && !value)
		return refused(&why, "option %s needs a value", name);
	return apply(r, on, value, o, &why);
}

/* Ends the text at blanks or a comment. Returns what follows, or NULL. */
static char *cut_word(char *p)
{
	char *end = p + strcspn(p, " \t#");

	if (!*end)
		return NULL;
	bool is_comment = *end == '#';
	*end = '\0';
	return is_comment ? NULL : end + 1;
}

/* A value in double quotes, in which only \" is another quote. Returns what follows, or NULL. */
static char *unquote(char *p)
{
	char *out = p;

	for (p++; *p && *p != '"'; p++) {
		if (p[0] == '\\' && p[1] == '"')
			p++;
		*out++ = *p;
	}
	if (!*p)
		return NULL;
	*out = '\0';
	return p + 1;
}

static bool is_end(const char *p)
{
	p += strspn(p, " \t");
	return !*p || *p == '#';
}

static bool apply_line(struct options *o, char *line, char *error, size_t size)
{
	const struct reason why = { error, size };
	char *name = line + strspn(line, " \t"), *value, *rest;

	if (is_end(name))
		return true;
	value = cut_word(name);
	if (value)
		value += strspn(value, " \t");
	if (!value || is_end(value))
		return options_apply(o, name, NULL, error, size);
	bool is_quoted = *value == '"';
	rest = is_quoted ? unquote(value) : cut_word(value);
	if (is_quoted && !rest)
		return refused(&why, "a quote without its end");
	if (rest && !is_end(rest))
		return refused(&why, "more than one value for %s", name);
	return options_apply(o, name, value, error, size);
}

int options_read_config(struct options *o, const char *path, char *error, size_t size)
{
	char *text = NULL, why[160];
	ssize_t len = read_file_at(AT_FDCWD, path, &text);
	int number = 0;

	if (len == -ENOENT || len == -ENOTDIR || len == -EACCES) { /* that of another user */
		errno = -len;
		return 0;
	}
	if (len < 0) {
		snprintf(error, size, "config file %s: %s", path, strerror(-len));
		return -1;
	}
	text = xrealloc(text, len + 1); /* it stays: options point into it */
	for (char *line = text, *next; line && *line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		number++;
		if (apply_line(o, line, why, sizeof(why)))
			continue;
		snprintf(error, size, "config file %s, line %d: %s", path, number, why);
		return -1;
	}
	return 1; /* options point into the text */
}

static bool read_config(struct options *o, const char *path, bool must_exist)
{
	char error[512];
	int rc = options_read_config(o, path, error, sizeof(error));

	if (rc < 0)
		fprintf(stderr, "criu: %s\n", error);
	if (rc == 0 && must_exist)
		fprintf(stderr, "criu: config file %s: %s\n", path, strerror(errno));
	return rc > 0 || (rc == 0 && !must_exist);
}

/* --config FILE, --config=FILE; before the options themselves, which win over files. */
static const char *config_in(int argc, char **argv, bool *ret_default)
{
	const char *config = NULL;

	*ret_default = true;
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--no-default-config"))
			*ret_default = false;
		else if (!strcmp(argv[i], "--config") && i + 1 < argc)
			config = argv[++i];
		else if (!strncmp(argv[i], "--config=", 9))
			config = argv[i] + 9;
	}
	return config;
}

static bool read_configs(int argc, char **argv, struct options *o)
{
	bool wants_default;
	const char *config = config_in(argc, argv, &wants_default), *home = getenv("HOME"),
		   *named = getenv("CRIU_CONFIG_FILE");
	char path[4096];

	if (wants_default && !config && !read_config(o, "/etc/criu/default.conf", false))
		return false;
	snprintf(path, sizeof(path), "%s/.criu/default.conf", home ? home : "");
	if (wants_default && !config && home && !read_config(o, path, false))
		return false;
	if (named && !read_config(o, named, false))
		return false;
	return !config || read_config(o, config, true);
}

enum options_result options_parse(int argc, char **argv, struct options *ret)
{
	struct options o = options_default();
	char letters[3 * N_ROWS + 1];

	if (wants_help(argc, argv))
		return OPTIONS_HELP;
	if (!read_configs(argc, argv, &o))
		return OPTIONS_BAD;
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
