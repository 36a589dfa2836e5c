/* SPDX-License-Identifier: GPL-2.0-only */
/* The command line: options, then one command. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/log.h"
#include "base/own.h"
#include "cmd/commands.h"
#include "cmd/privileges.h"
#include "rpc/rpc.h"
#include "version.h"

static const struct command {
	const char *name;
	int (*run)(const struct options *o); /* NULL: known, not supported by this version */
	const char *help;
	bool has_argument;
} commands[] = {
	{ "dump", cmd_dump, "checkpoint a process tree to images" },
	{ "restore", cmd_restore, "restore a process tree from images" },
	{ "check", cmd_check, "say what the kernel lacks and what that would disable" },
	{ "pre-dump", cmd_pre_dump,
	  "write memory ahead of a dump, which then stops the tree shorter" },
	{ "lazy-pages", NULL, NULL },
	{ "page-server", cmd_page_server, "take the pages of a dump from the network" },
	{ "service", cmd_service, "serve requests of other programs (RPC)" },
	{ "swrk", cmd_swrk, "serve the requests of one program: criu swrk FD",
	  .has_argument = true },
	{ "dedup", NULL, NULL },
	{ "cpuinfo", cmd_cpuinfo, "dump: note the CPU in the images; check: compare it",
	  .has_argument = true },
};

static void usage(void)
{
	printf("Usage:\n"
	       "  criu dump|pre-dump -t PID [OPTIONS]\n"
	       "  criu restore [OPTIONS]\n"
	       "  criu check\n"
	       "\nCommands:\n");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (commands[i].run)
			printf("  %-10s %s\n", commands[i].name, commands[i].help);
	printf("\nOptions:\n");
	options_help();
}

static void version(void)
{
	printf("Version: %s\n", VERSION);
	if (GITID[0])
		printf("GitID: %s\n", GITID);
}

static int wrong_usage(const char *fmt, const char *what)
{
	fprintf(stderr, "criu: ");
	fprintf(stderr, fmt, what);
	fprintf(stderr, "\nTry -h|--help for more info\n");
	return 1;
}

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

/*
 * Relative paths of logs, pidfiles and statistics are relative to the work directory, that of
 * the images to where we were called.
 */
static int go_to_work_dir(struct options *o, char *images, size_t size)
{
	char *real = realpath(o->images_dir, NULL);

	if (!real)
		return fail(errno, "images directory %s", o->images_dir);
	snprintf(images, size, "%s", real);
	free(real);
	o->images_dir = images;
	if (chdir(o->work_dir) < 0)
		return fail(errno, "work directory %s", o->work_dir);
	return 0;
}

static void log_start(void)
{
	struct utsname u;

	info("Version: %s (gitid %s)", VERSION, GITID[0] ? GITID : "0");
	if (uname(&u) == 0)
		info("Running on %s %s %s %s %s", u.nodename, u.sysname, u.release, u.version,
		     u.machine);
}

static int run(const struct command *c, struct options *o)
{
	char images[4200];
	int rc = go_to_work_dir(o, images, sizeof(images));

	if (rc == 0) {
		rc = log_init(o->log_file, o->verbosity);
		if (rc < 0)
			rc = fail(-rc, "log file %s: open", o->log_file);
	}
	if (rc < 0) {
		log_flush_early();
		return 1;
	}
	log_start();
	int status = privileges_check(o) < 0 ? 1 : c->run(o);
	/* With a log of its own, the user is told here what it says at length. */
	if (status && !log_is_stderr() && log_first_error()[0])
		fprintf(stderr, "criu: %s: %s\n", c->name, log_first_error());
	return status;
}

int main(int argc, char **argv)
{
	struct options o;

	bool is_setuid = geteuid() != getuid();

	/* Before anything that a caller could make use of is looked at. */
	if (privileges_leave_setuid() < 0) {
		log_flush_early();
		return 1;
	}
	if (argc < 2) {
		usage();
		return 1;
	}
	switch (options_parse(argc, argv, &o)) {
	case OPTIONS_HELP:
		usage();
		return 0;
	case OPTIONS_VERSION:
		version();
		return 0;
	case OPTIONS_BAD:
		fprintf(stderr, "Try -h|--help for more info\n");
		return 1;
	case OPTIONS_OK:
		break;
	}
	if (!o.command)
		return wrong_usage("%s", "command is required");
	const struct command *c = find_command(o.command);
	if (!c)
		return wrong_usage("unknown command: %s", o.command);
	if (!c->run)
		return wrong_usage("command %s is not supported by this version", o.command);
	if (o.n_args > c->has_argument)
		return wrong_usage("excessive parameter: %s", o.args[c->has_argument]);
	signal(SIGPIPE, SIG_IGN);
	o.unprivileged = o.unprivileged || is_setuid;
	return run(c, &o);
}
