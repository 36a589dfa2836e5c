/* SPDX-License-Identifier: GPL-2.0-only */
#include <fcntl.h>

#include "base/own.h"
#include "base/test.h"
#include "model/options.h"

static enum options_result parse(struct options *o, char *line)
{
	static char *argv[32];
	int argc = 0;

	argv[argc++] = (char *)"criu";
	for (char *word = strtok(line, " "); word; word = strtok(NULL, " "))
		argv[argc++] = word;
	argv[argc] = NULL;
	return options_parse(argc, argv, o);
}

#define PARSE(o, text)                                                                             \
	({                                                                                         \
		char line[] = text;                                                                \
		enum options_result parse_result = parse(o, line);                                 \
		parse_result;                                                                      \
	})

TEST(options, stand_before_or_behind_the_command)
{
	static char line[] = "-v4 dump -t 12 -D /images --leave-running -o log";
	struct options o;

	ASSERT_EQ(parse(&o, line), OPTIONS_OK);
	ASSERT_STR(o.command, "dump");
	ASSERT_EQ(o.tree, 12);
	ASSERT_EQ(o.verbosity, 4);
	ASSERT(o.leave_running && !o.leave_stopped);
	ASSERT_STR(o.images_dir, "/images");
	ASSERT_STR(o.work_dir, "/images");
	ASSERT_STR(o.log_file, "log");
	ASSERT_EQ(o.n_args, 0);
}

TEST(options, have_the_established_defaults)
{
	struct options o;

	ASSERT_EQ(PARSE(&o, "dump"), OPTIONS_OK);
	ASSERT_EQ(o.verbosity, 2);
	ASSERT_EQ(o.timeout, 10);
	ASSERT_EQ(o.status_fd, -1);
	ASSERT_EQ(o.file_validation, VALIDATE_BUILDID);
}

TEST(options, switches_can_be_taken_back)
{
	struct options o;

	ASSERT_EQ(PARSE(&o, "restore -j -d --no-shell-job --no-restore-detached"), OPTIONS_OK);
	ASSERT(!o.shell_job && !o.detach);
}

TEST(options, verbosity_counts_letters_or_takes_a_number)
{
	struct options o;

	ASSERT_EQ(PARSE(&o, "dump -v"), OPTIONS_OK);
	ASSERT_EQ(o.verbosity, 3);
	ASSERT_EQ(PARSE(&o, "dump -vvvv"), OPTIONS_OK);
	ASSERT_EQ(o.verbosity, 4);
	ASSERT_EQ(PARSE(&o, "dump -v0"), OPTIONS_OK);
	ASSERT_EQ(o.verbosity, 0);
	ASSERT_EQ(PARSE(&o, "dump --verbosity=1"), OPTIONS_OK);
	ASSERT_EQ(o.verbosity, 1);
	ASSERT_EQ(PARSE(&o, "dump -v9"), OPTIONS_BAD);
}

TEST(options, bad_values_are_refused)
{
	struct options o;

	ASSERT_EQ(PARSE(&o, "dump -t 0"), OPTIONS_BAD);
	ASSERT_EQ(PARSE(&o, "dump -t 12x"), OPTIONS_BAD);
	ASSERT_EQ(PARSE(&o, "dump -t 99999999999"), OPTIONS_BAD);
	ASSERT_EQ(PARSE(&o, "dump --timeout -1"), OPTIONS_BAD);
	ASSERT_EQ(PARSE(&o, "dump --file-validation size"), OPTIONS_BAD);
	ASSERT_EQ(PARSE(&o, "dump --nothing"), OPTIONS_BAD);
	ASSERT_EQ(PARSE(&o, "dump -t"), OPTIONS_BAD);
	ASSERT_EQ(PARSE(&o, "dump --tcp-established"), OPTIONS_BAD);
	ASSERT_EQ(PARSE(&o, "restore -S"), OPTIONS_BAD);
}

TEST(options, help_wins_and_version_ends_at_once)
{
	struct options o;

	ASSERT_EQ(PARSE(&o, "dump --nothing -h"), OPTIONS_HELP);
	ASSERT_EQ(PARSE(&o, "-V --nothing"), OPTIONS_VERSION);
}

TEST(options, close_closes_while_parsing)
{
	struct options o;
	int fd = ASSERT_OK(open("/dev/null", O_RDONLY));
	char line[32];

	snprintf(line, sizeof(line), "dump --close %d", fd);
	ASSERT_EQ(parse(&o, line), OPTIONS_OK);
	ASSERT(fcntl(fd, F_GETFD) < 0);
	snprintf(line, sizeof(line), "dump --close %d", fd);
	ASSERT_EQ(parse(&o, line), OPTIONS_BAD);
}

static const char *config(const char *text, struct options *o)
{
	static const char path[] = "/tmp/criu-options-test.conf";
	static char error[256];
	FILE *f = fopen(path, "w");

	fputs(text, f);
	fclose(f);
	*o = options_default();
	error[0] = '\0';
	(void)options_read_config(o, path, error, sizeof(error));
	(void)remove(path);
	return error;
}

TEST(options, a_config_file_is_read)
{
	struct options o;

	ASSERT(!config(
		"# nothing\n\n  leave-running\t# so\nghost-limit 3K\nlog-file \"a \\\"b\\\"\"\n"
		"no-shell-job\npidfile \"\"\n",
		&o)[0]);
	ASSERT(o.leave_running && !o.shell_job && o.ghost_limit == 3072);
	ASSERT(!strcmp(o.log_file, "a \"b\"") && !strcmp(o.pidfile, ""));
}

TEST(options, mistakes_in_a_config_file_are_told_with_their_line)
{
	struct options o;

	ASSERT(strstr(config("\nnonsense\n", &o), "line 2: there is no option nonsense"));
	ASSERT(strstr(config("timeout 1 2\n", &o), "more than one value"));
	ASSERT(strstr(config("log-file \"x\n", &o), "quote"));
	ASSERT(strstr(config("ghost-limit 1X\n", &o), "invalid argument"));
	ASSERT(strstr(config("leave-running yes\n", &o), "takes no value"));
	ASSERT(strstr(config("timeout\n", &o), "needs a value"));
	ASSERT(strstr(config("tls\n", &o), "not supported"));
}
