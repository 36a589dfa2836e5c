/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Calls libcriu for test/lib/run. Words are done in their order:
 *   local                 the options of all that follows are local ones
 *   NAME=VALUE            sets something
 *   ACTION                asks for it and prints "ACTION RESULT ERRNO [what else there is to say]"
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criu/criu.h>

static criu_opts *local;
static char stages[4096];
static const char *refused = "";
static int more_left;
static int orphan_fd = -1;

/* Either form of a function. */
#define CALL(name, ...)  (local ? criu_local_##name(local, __VA_ARGS__) : criu_##name(__VA_ARGS__))
#define CALL_NONE(name)  (local ? criu_local_##name(local) : criu_##name())

static void need(int condition, const char *text)
{
	if (condition)
		return;
	fprintf(stderr, "client: %s\n", text);
	exit(3);
}

static int on_notify(char *action, criu_notify_arg_t na)
{
	size_t len = strlen(stages);

	need(!strcmp(action, criu_notify_action(na)), "criu_notify_action");
	if (!strcmp(action, "orphan-pts-master"))
		orphan_fd = criu_get_orphan_pts_master_fd();
	snprintf(stages + len, sizeof(stages) - len, " %s:%d", action, criu_notify_pid(na));
	return !strcmp(action, refused);
}

static int more(criu_predump_info pi)
{
	need(pi == NULL, "predump info");
	return more_left < 0 ? more_left : more_left--;
}

static int number(const char *text)
{
	char *end;
	long n = strtol(text, &end, 10);

	need(end != text && !*end, text);
	return n;
}

static int directory(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	need(fd >= 0, path);
	return fd;
}

/* ---- every setter of the table ---- */

static void set_all_simple(void)
{
#define CRIU_BOOL(name, field) CALL(name, true);
#define CRIU_INT(name, field)  CALL(name, 7);
#define CRIU_UINT(name, field) CALL(name, 8u);
#define CRIU_TEXT(name, field)                                                                     \
	need(CALL(name, "wrong") == 0 && CALL(name, NULL) == 0 && CALL(name, #field) == 0, #name);
#define CRIU_LIST(name, field) need(CALL(name, #field) == 0 && CALL(name, "second") == 0, #name);
#define CRIU_CALL0(...)
#define CRIU_CALL1(...)
#define CRIU_CALL2(...)
#define CRIU_CALL3(...)
#include <criu/functions.h>
}

static void set_all(void)
{
	char *argv[] = { "prog", "arg" };

	set_all_simple();
	CALL(set_images_dir_fd, 5);
	CALL(set_manage_cgroups_mode, CRIU_CG_MODE_STRICT);
	need(CALL(set_network_lock, CRIU_NETWORK_LOCK_SKIP) == 0, "network_lock");
	need(CALL(set_network_lock, (enum criu_network_lock_method)9) == -EINVAL, "network_lock 9");
	need(CALL(set_pre_dump_mode, CRIU_PRE_DUMP_READ) == 0, "pre_dump_mode");
	need(CALL(set_pre_dump_mode, (enum criu_pre_dump_mode)9) == -EINVAL, "pre_dump_mode 9");
	need(CALL(set_page_server_address_port, "host", 1) == 0, "page server");
	need(CALL(set_page_server_address_port, "ps_host", 27) == 0, "page server again");
	need(CALL(set_exec_cmd, 1, argv) == 0 && CALL(set_exec_cmd, 2, argv) == 0, "exec_cmd");
	need(CALL(add_ext_mount, "mnt_key", "mnt_val") == 0, "ext_mount");
	need(CALL(add_ext_mount, NULL, "mnt_val") == -EINVAL, "ext_mount NULL");
	need(CALL(add_veth_pair, "veth_in", "veth_out") == 0, "veth");
	need(CALL(add_cg_root, "cg_ctrl", "cg_path") == 0, "cg_root");
	need(CALL(add_cg_root, NULL, "cg_all") == 0, "cg_root of all");
	need(CALL(add_inherit_fd, 0, "inh_key") == 0, "inherit_fd");
	need(CALL(add_unix_sk, 4711) == 0, "unix_sk");
	need(CALL(join_ns_add, "net", "ns_file", NULL) == 0, "join_ns");
	need(CALL(join_ns_add, "user", "ns_file2", "extra") == 0, "join_ns user");
	need(CALL(add_external, NULL) == -EINVAL, "external NULL");
	CALL(set_notify_cb, on_notify);
}

/* ---- words ---- */

static void set_transport(const char *name, const char *value)
{
	if (!strcmp(name, "binary"))
		need(CALL(set_service_binary, value) == 0, name);
	else if (!strcmp(name, "address"))
		need(CALL(set_service_address, *value ? value : NULL) == 0, name);
	else if (!strcmp(name, "fd"))
		CALL(set_service_fd, number(value));
}

static void set(const char *name, const char *value)
{
	set_transport(name, value);
	if (!strcmp(name, "images"))
		CALL(set_images_dir_fd, directory(value));
	else if (!strcmp(name, "images-path"))
		need(CALL(set_images_dir, value) == 0, name);
	else if (!strcmp(name, "work"))
		CALL(set_work_dir_fd, directory(value));
	else if (!strcmp(name, "pid"))
		CALL(set_pid, number(value));
	else if (!strcmp(name, "log"))
		need(CALL(set_log_file, value) == 0, name);
	else if (!strcmp(name, "running"))
		CALL(set_leave_running, number(value));
	else if (!strcmp(name, "tcp"))
		CALL(set_tcp_established, number(value));
	else if (!strcmp(name, "inherit"))
		need(CALL(add_inherit_fd, 9, value) == 0, name);
	else if (!strcmp(name, "more"))
		more_left = number(value);
	else if (!strcmp(name, "refuse"))
		refused = value;
}

static int outcome(const char *action, int rc)
{
	printf("%s %d %d%s\n", action, rc, rc < 0 ? errno : 0, stages);
	fflush(stdout);
	stages[0] = '\0';
	return 0;
}

static int features(size_t size)
{
	struct criu_feature_check f = { true, true, true };
	int rc = CALL(feature_check, &f, size);

	snprintf(stages, sizeof(stages), " %d%d%d", f.mem_track, f.lazy_pages, f.pidfd_store);
	return rc;
}

/* The restored root is our child: nobody else could wait for it. */
static int restore_child(void)
{
	int rc = CALL_NONE(restore_child), status;

	if (rc <= 0)
		return rc;
	kill(-rc, SIGKILL); /* it leads its group */
	need(waitpid(rc, &status, 0) == rc && WTERMSIG(status) == SIGKILL, "it is not our child");
	need(waitpid(-1, &status, WNOHANG) < 0 && errno == ECHILD, "a child is left");
	return rc;
}

static void *life_of_options(void *arg)
{
	criu_opts *o;

	for (int i = 0; i < 50; i++) {
		need(criu_local_init_opts(&o) == 0, "init");
		need(criu_local_set_service_binary(o, arg) == 0, "binary");
		need(criu_local_get_version(o) > 0, "version");
		need(criu_local_check(o) == -EBADE || criu_local_check(o) == 0, "check");
		criu_local_free_opts(o);
	}
	return NULL;
}

struct job {
	int pid;
	const char *images, *binary;
	pthread_t thread;
};

/* One thread dumps and restores one target. */
static void *dump_and_restore(void *arg)
{
	const struct job *j = arg;
	criu_opts *o;

	for (int i = 0; i < 3; i++) {
		need(criu_local_init_opts(&o) == 0, "init");
		criu_local_set_service_binary(o, j->binary);
		criu_local_set_images_dir_fd(o, directory(j->images));
		criu_local_set_pid(o, j->pid);
		criu_local_set_leave_running(o, true);
		need(criu_local_dump(o) == 0, "a thread's dump");
		criu_local_free_opts(o);
	}
	return NULL;
}

/* threads BINARY PID=IMAGES... */
static int threads(int argc, char **argv)
{
	struct job jobs[16];
	pthread_t other;
	int n = 0;

	need(pthread_create(&other, NULL, life_of_options, argv[2]) == 0, "thread");
	for (int i = 3; i < argc; i++, n++) {
		char *images = strchr(argv[i], '=');

		*images = '\0';
		jobs[n] = (struct job){ number(argv[i]), images + 1, argv[2], 0 };
		need(pthread_create(&jobs[n].thread, NULL, dump_and_restore, &jobs[n]) == 0, "thread");
	}
	pthread_join(other, NULL);
	while (n)
		pthread_join(jobs[--n].thread, NULL);
	puts("threads 0 0");
	return 0;
}

static int act(const char *word)
{
	if (!strcmp(word, "local"))
		return criu_local_init_opts(&local);
	if (!strcmp(word, "init"))
		return local ? 0 : criu_init_opts();
	if (!strcmp(word, "free"))
		return CALL_NONE(free_opts), local = NULL, 0;
	if (!strcmp(word, "all"))
		return set_all(), 0;
	if (!strcmp(word, "notify"))
		return CALL(set_notify_cb, on_notify), 0;
	if (!strcmp(word, "no-notify"))
		return CALL(set_notify_cb, NULL), 0;
	if (!strcmp(word, "ignore-children"))
		return signal(SIGCHLD, SIG_IGN) == SIG_ERR;
	if (!strcmp(word, "check"))
		return outcome(word, CALL_NONE(check));
	if (!strcmp(word, "dump"))
		return outcome(word, CALL_NONE(dump));
	if (!strcmp(word, "pre-dump"))
		return outcome(word, CALL_NONE(pre_dump));
	if (!strcmp(word, "dump-iters"))
		return outcome(word, CALL(dump_iters, more));
	if (!strcmp(word, "restore"))
		return outcome(word, CALL_NONE(restore));
	if (!strcmp(word, "restore-child"))
		return outcome(word, restore_child());
	if (!strcmp(word, "version"))
		return outcome(word, CALL_NONE(get_version));
	if (!strcmp(word, "features"))
		return outcome(word, features(sizeof(struct criu_feature_check)));
	if (!strcmp(word, "features-one"))
		return outcome(word, features(sizeof(bool)));
	if (!strcmp(word, "features-later"))
		return outcome(word, features(sizeof(struct criu_feature_check) + 1));
	if (!strncmp(word, "at-least-", 9))
		return outcome(word, CALL(check_version, number(word + 9)));
	if (!strcmp(word, "write-to-master"))
		return write(orphan_fd, "hello", 5) != 5;
	if (!strcmp(word, "no-child-left"))
		return waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD;
	return 1;
}

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], "threads"))
		return threads(argc, argv);
	for (int i = 1; i < argc; i++) {
		char *value = strchr(argv[i], '=');

		if (!value) {
			need(act(argv[i]) == 0, argv[i]);
			continue;
		}
		*value = '\0';
		set(argv[i], value + 1);
	}
	return 0;
}
