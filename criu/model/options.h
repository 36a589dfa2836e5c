/* SPDX-License-Identifier: GPL-2.0-only */
/* What the user asked for. Filled once, then const. */
#ifndef MODEL_OPTIONS_H
#define MODEL_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum file_validation {
	VALIDATE_FILESIZE,
	VALIDATE_BUILDID,
};

enum pidns {
	PIDNS_NONE = -1,
	PIDNS_AUTO,
	PIDNS_NEW,
};

enum pre_dump_mode {
	PRE_DUMP_SPLICE,
	PRE_DUMP_READ,
};

/* What of two CPUs is compared; the numbers are those of requests. */
enum cpu_cap {
	CPU_CAP_UNSET = -1,
	CPU_CAP_NONE = 0,
	CPU_CAP_FPU = 1,
	CPU_CAP_CPU = 2, /* it has to be the same */
	CPU_CAP_INS = 4, /* instructions that programs use */
	CPU_CAP_ALL = 7,
};

#define OPTION_LIST_MAX 256

/* The values of an option that may be given many times. */
struct option_list {
	const char *item[OPTION_LIST_MAX];
	size_t n;
};

/* Who is told of the stages of a dump or restore, before the scripts. Returns 0, or an error. */
struct listener {
	int (*tell)(struct listener *l, const char *stage, int pid);
};

/* What a command has to say besides its status. */
struct outcome {
	int pid; /* of the restored root */
};

struct options {
	const char *command;
	char **args; /* behind the command; NULL-terminated */
	int n_args;
	int tree;
	const char *images_dir;
	const char *work_dir;
	const char *log_file;
	int verbosity;
	bool log_pid;
	bool leave_stopped;
	bool leave_running;
	bool snapshot;
	bool dry_run;
	bool detach;
	bool sibling;
	bool shell_job;
	const char *pidfile;
	int timeout; /* seconds; 0: none */
	bool display_stats;
	int status_fd; /* -1: none */
	bool skip_rwx_check;
	int file_validation; /* enum file_validation */
	int pidns;	     /* enum pidns */
	int outer_proc;	     /* /proc outside of a new pid namespace that we are in; -1: none */
	int cpu_cap;	     /* enum cpu_cap */
	bool link_remap;
	bool file_locks;
	uint64_t ghost_limit; /* bytes */
	bool embed_files;
	struct option_list inherit_fd;
	struct option_list ext_unix_sk; /* NULL: given without a number */
	struct option_list external;
	bool evasive_devices;
	bool force_irmap;
	struct option_list irmap_scan_path;
	struct option_list action_script;
	const char *prev_images_dir; /* NULL: none */
	bool track_mem;
	int pre_dump_mode; /* enum pre_dump_mode */
	bool page_server;
	int port;      /* 0: any, or not told */
	int ps_socket; /* a connection that is there already; -1: none */
	const char *config;
	bool default_config;
	bool unprivileged;
	const char *address;
	struct listener *listener; /* of an RPC client; NULL: none */
	struct outcome *outcome;   /* NULL: nobody asks */
	int service_fd;		   /* our end of the connection to the client; -1: none */
};

enum options_result {
	OPTIONS_OK,
	OPTIONS_HELP,	 /* print the usage to stdout, exit 0 */
	OPTIONS_VERSION, /* print the version, exit 0 */
	OPTIONS_BAD,	 /* what is wrong was printed to stderr, exit 1 */
};

/*
 * Parses the command line; strings stay in argv. Options may stand before or behind the command;
 * --help anywhere wins. Descriptors given to --close are closed here.
 */
enum options_result options_parse(int argc, char **argv, struct options *ret);

/* What holds before any option is looked at. */
struct options options_default(void);

/*
 * Applies one option by its long name, as in a config file or a request. value may be NULL.
 * Returns false if it is not known, not supported, or wrong: *ret_error says why (in a buffer of
 * size bytes).
 */
bool options_apply(struct options *o, const char *name, const char *value, char *error,
		   size_t size);

/*
 * Applies a config file: lines of an option's name and its value. Returns 1, 0 if there is no such
 * file, -1 after an error that error tells with file and line. Strings stay allocated.
 */
int options_read_config(struct options *o, const char *path, char *error, size_t size);

/* Prints the options, one line each, to stdout. */
void options_help(void);

#endif
