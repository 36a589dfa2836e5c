/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What each request does. A table says which there are, which may leave the connection open, and
 * who serves them; a request outside of it gets EMPTY.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "cmd/commands.h"
#include "cmd/pageserver.h"
#include "kernel/features.h"
#include "rpc/rpc.h"
#include "version.h"

/* A request while it is served. */
struct request {
	struct client *client;
	const CriuReq *req;
	CriuResp resp;
	char error[512];
	struct options options;
};

/* Tells the client of stages, which it has to acknowledge. */
struct teller {
	struct listener listener;
	const struct client *client;
};

static int failed(struct request *q, int err)
{
	q->resp.success = false;
	q->resp.has_cr_errno = err != 0;
	q->resp.cr_errno = err;
	if (!q->error[0])
		snprintf(q->error, sizeof(q->error), "%s", log_first_error());
	q->resp.cr_errmsg = q->error[0] ? q->error : NULL;
	return -1;
}

/* Says why a request fails, where no log line does. Returns -1. */
static int explain(struct request *q, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int explain(struct request *q, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(q->error, sizeof(q->error), fmt, args);
	va_end(args);
	return -1;
}

static bool tells_pid(const char *stage)
{
	return !strcmp(stage, "setup-namespaces") || !strcmp(stage, "post-restore");
}

static int tell(struct listener *l, const char *stage, int pid)
{
	const struct teller *t = container_of(l, struct teller, listener);
	CriuResp resp = CRIU_RESP__INIT;
	CriuNotify notify = CRIU_NOTIFY__INIT;
	CriuReq *answer = NULL;

	resp.type = CRIU_REQ_TYPE__NOTIFY;
	resp.success = true;
	resp.notify = &notify;
	notify.script = (char *)stage;
	notify.has_pid = pid && tells_pid(stage);
	notify.pid = pid;
	int rc = client_send(t->client, &resp);
	if (rc == 0)
		rc = client_receive(t->client, &answer);
	if (rc <= 0)
		return refuse(ECONNRESET, "the client went away at stage %s", stage);
	bool is_good = answer->type == CRIU_REQ_TYPE__NOTIFY && answer->notify_success;
	criu_req__free_unpacked(answer, NULL);
	return is_good ? 0
		       : refuse(ECANCELED, "the client answered stage %s with a failure", stage);
}

/* The image directory of a request, and where the log goes. */
static int enter(struct request *q)
{
	struct options *o = &q->options;
	struct stat st;

	if (stat(o->images_dir, &st) < 0 || !S_ISDIR(st.st_mode))
		return explain(q, "images directory %s: %s", o->images_dir,
			       strerror(S_ISDIR(st.st_mode) ? errno : ENOTDIR));
	/* Looked at again in another directory: a relative path would lead elsewhere. */
	char *real = realpath(o->images_dir, NULL);
	if (strncmp(o->images_dir, "/proc/", 6) && real)
		o->images_dir = real;
	if (chdir(o->work_dir) < 0)
		return explain(q, "work directory %s: %s", o->work_dir, strerror(errno));
	log_done();
	int rc = log_init(o->log_file, o->verbosity);
	if (rc < 0)
		return explain(q, "log file %s: %s", o->log_file, strerror(-rc));
	return 0;
}

static int prepare(struct request *q)
{
	if (!q->req->opts) {
		(void)explain(q, "the request has no options");
		return failed(q, EBADRQC);
	}
	char why[sizeof(q->error)] = "";
	int rc = request_options(q->client, q->req->opts, &q->options, why, sizeof(why));

	/* Programs look into the log for the reason, so it is begun first. */
	bool has_log = q->options.images_dir && enter(q) == 0;
	if (has_log && rc == 0)
		return 0;
	if (has_log)
		(void)refuse(EBADRQC, "%s", why);
	else if (rc < 0)
		(void)explain(q, "%s", why);
	return failed(q, EBADRQC);
}

/* Of what went wrong, the two that callers look at. */
static int errno_of_failure(void)
{
	int err = log_first_errno();

	return err == ESRCH || err == EEXIST ? err : 0;
}

static int run(struct request *q, int (*command)(const struct options *o))
{
	struct teller teller = { .listener = { tell }, .client = q->client };

	if (q->req->opts->notify_scripts)
		q->options.listener = &teller.listener;
	int status = command(&q->options);
	q->options.listener = NULL;
	return status ? failed(q, errno_of_failure()) : 0;
}

/* Without a pid it is the client that is meant. */
static int prepare_tree(struct request *q)
{
	int rc = prepare(q);

	if (rc == 0 && !q->options.tree)
		q->options.tree = q->client->pid;
	return rc;
}

static int serve_dump(struct request *q)
{
	CriuDumpResp *dump = xmalloc(sizeof(*dump));

	criu_dump_resp__init(dump);
	if (prepare_tree(q) < 0)
		return -1;
	dump->has_restored = true;
	q->resp.dump = dump;
	return run(q, cmd_dump);
}

static int serve_pre_dump(struct request *q)
{
	return prepare_tree(q) < 0 ? -1 : run(q, cmd_pre_dump);
}

static int serve_restore(struct request *q)
{
	CriuRestoreResp *restore = xmalloc(sizeof(*restore));
	struct outcome outcome = { .pid = -1 };

	criu_restore_resp__init(restore);
	restore->pid = -1;
	q->resp.restore = restore;
	if (prepare(q) < 0)
		return -1;
	q->options.outcome = &outcome;
	int rc = run(q, cmd_restore);
	restore->pid = outcome.pid;
	return rc;
}

static int serve_check(struct request *q)
{
	if (q->req->opts && (q->req->opts->images_dir_fd != -1 || q->req->opts->images_dir) &&
	    prepare(q) < 0)
		return -1;
	return cmd_check(&q->options) ? failed(q, 0) : 0;
}

/* Of what is asked for, what is there. Lazy pages are not, and nobody needs to keep pidfds for us.
 */
static int serve_features(struct request *q)
{
	const CriuFeatures *asked = q->req->features;
	CriuFeatures *f = xmalloc(sizeof(*f));

	criu_features__init(f);
	f->has_mem_track = f->has_lazy_pages = f->has_pidfd_store = true;
	f->mem_track = asked && asked->mem_track && kernel_probe("soft-dirty") == 0;
	q->resp.features = f;
	return asked ? 0 : failed(q, 0);
}

static int serve_version(struct request *q)
{
	CriuVersion *v = xmalloc(sizeof(*v));
	char *rest;

	criu_version__init(v);
	v->major_number = strtol(VERSION, &rest, 10);
	v->minor_number = *rest == '.' ? strtol(rest + 1, &rest, 10) : 0;
	if (*rest == '.') {
		v->has_sublevel = true;
		v->sublevel = strtol(rest + 1, NULL, 10);
	}
	v->gitid = GITID[0] ? GITID : NULL;
	q->resp.version = v;
	return 0;
}

static int serve_wait(struct request *q)
{
	int status;

	if (!q->req->has_pid || waitpid(q->req->pid, &status, 0) < 0) {
		int err = q->req->has_pid ? errno : EINVAL;

		(void)explain(q, "pid %u: wait for it: %s", q->req->pid, strerror(err));
		return failed(q, err);
	}
	q->resp.has_status = true;
	q->resp.status = status;
	return 0;
}

static int serve_cpuinfo(struct request *q)
{
	char *args[] = { q->req->type == CRIU_REQ_TYPE__CPUINFO_DUMP ? "dump" : "check", NULL };

	if (prepare(q) < 0)
		return -1;
	q->options.args = args;
	q->options.n_args = 1;
	int status = cmd_cpuinfo(&q->options);
	return status ? failed(q, log_first_errno()) : 0;
}

/* In a process of its own. Never returns. */
static void be_page_server(const struct request *q, struct page_server *s)
{
	(void)close(q->client->fd);
	_exit(page_server_serve(s) < 0);
}

/* Nobody waits for the end of what a daemon has open. */
static void leave_terminal(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)setsid();
	for (int fd = STDIN_FILENO; null >= 0 && fd <= STDERR_FILENO; fd++)
		(void)dup2(null, fd);
}

/* The daemon is nobody's child: the process between us and it tells its pid, and ends. */
static pid_t start_daemon(const struct request *q, struct page_server *s)
{
	pid_t pid = -1;
	int status, pipe_ends[2];

	if (pipe2(pipe_ends, O_CLOEXEC) < 0)
		return -1;
	pid_t between = fork();
	if (between == 0) {
		pid = fork();
		if (pid == 0) {
			(void)close(pipe_ends[0]);
			(void)close(pipe_ends[1]);
			leave_terminal();
			be_page_server(q, s);
		}
		(void)!write(pipe_ends[1], &pid, sizeof(pid));
		_exit(0);
	}
	(void)close(pipe_ends[1]);
	if (between > 0 && read_all(pipe_ends[0], &pid, sizeof(pid)) < 0)
		pid = -1;
	(void)close(pipe_ends[0]);
	if (between > 0)
		(void)waitpid(between, &status, 0);
	return pid;
}

/* It ends with the worker, whose client alone can wait for it. */
static pid_t start_child(const struct request *q, struct page_server *s)
{
	pid_t worker = getpid(), pid = fork();

	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
		if (getppid() != worker)
			_exit(1);
		be_page_server(q, s);
	}
	return pid;
}

static int serve_pages(struct request *q,
		       pid_t (*begin)(const struct request *q, struct page_server *s))
{
	CriuPageServerInfo *ps = xmalloc(sizeof(*ps));

	criu_page_server_info__init(ps);
	q->resp.ps = ps;
	if (prepare(q) < 0)
		return -1;
	struct page_server *s = page_server_open(&q->options);
	if (!s)
		return failed(q, 0);
	int port = page_server_port(s);
	pid_t pid = begin(q, s);
	int err = errno;

	page_server_free(s);
	if (pid < 0) {
		(void)explain(q, "start a page server: %s", strerror(err));
		return failed(q, err);
	}
	ps->has_pid = true;
	ps->pid = pid;
	ps->has_port = port;
	ps->port = port;
	return 0;
}

static int serve_page_server(struct request *q)
{
	return serve_pages(q, start_daemon);
}

static int serve_page_server_child(struct request *q)
{
	return serve_pages(q, start_child);
}

/* After a pre-dump that is one of several only what is in the same sequence may follow. */
static const struct row {
	CriuReqType type, answer;
	int (*serve)(struct request *q);
	bool may_stay_open;
	bool may_follow, is_followed;
} table[] = {
	{ CRIU_REQ_TYPE__DUMP, CRIU_REQ_TYPE__DUMP, serve_dump, .may_follow = true },
	{ CRIU_REQ_TYPE__RESTORE, CRIU_REQ_TYPE__RESTORE, serve_restore, false },
	{ CRIU_REQ_TYPE__CHECK, CRIU_REQ_TYPE__CHECK, serve_check, false },
	{ CRIU_REQ_TYPE__FEATURE_CHECK, CRIU_REQ_TYPE__FEATURE_CHECK, serve_features, true },
	{ CRIU_REQ_TYPE__VERSION, CRIU_REQ_TYPE__VERSION, serve_version, true },
	{ CRIU_REQ_TYPE__WAIT_PID, CRIU_REQ_TYPE__WAIT_PID, serve_wait, false },
	{ CRIU_REQ_TYPE__PRE_DUMP, CRIU_REQ_TYPE__PRE_DUMP, serve_pre_dump, .may_follow = true,
	  .is_followed = true },
	{ CRIU_REQ_TYPE__SINGLE_PRE_DUMP, CRIU_REQ_TYPE__SINGLE_PRE_DUMP, serve_pre_dump, false },
	{ CRIU_REQ_TYPE__PAGE_SERVER, CRIU_REQ_TYPE__PAGE_SERVER, serve_page_server, true },
	{ CRIU_REQ_TYPE__PAGE_SERVER_CHLD, CRIU_REQ_TYPE__PAGE_SERVER, serve_page_server_child,
	  true },
	{ CRIU_REQ_TYPE__CPUINFO_DUMP, CRIU_REQ_TYPE__CPUINFO_DUMP, serve_cpuinfo, true },
	{ CRIU_REQ_TYPE__CPUINFO_CHECK, CRIU_REQ_TYPE__CPUINFO_CHECK, serve_cpuinfo, true },
};

static void free_answers(struct request *q)
{
	free(q->resp.dump);
	free(q->resp.restore);
	free(q->resp.features);
	free(q->resp.ps);
	free(q->resp.version);
}

/* A self-dump that kills its requester has nobody to answer. */
static bool has_nobody_to_answer(const struct request *q)
{
	return q->req->type == CRIU_REQ_TYPE__DUMP && q->resp.success &&
	       q->options.tree == q->client->pid && !q->options.leave_running;
}

static const struct row *find_row(CriuReqType type)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i].type == type)
			return &table[i];
	return NULL;
}

/* Does what the request wants; without a row it wants nothing that there is. 0, or -1 if it fails.
 */
static int answer(struct request *q, const struct row *row)
{
	struct client *c = q->client;

	q->resp.success = true;
	q->resp.type = row ? row->answer : CRIU_REQ_TYPE__EMPTY;
	if (!row && c->is_in_sequence) {
		(void)explain(q, "after PRE_DUMP there may only be another one, or DUMP");
		return failed(q, 0);
	}
	if (!row) {
		(void)explain(q, "unknown request %d", (int)q->req->type);
		return failed(q, 0);
	}
	if (c->uid != geteuid() && geteuid() != 0) {
		(void)explain(q, "the service works for uid %u; the client has uid %u", geteuid(),
			      c->uid);
		return failed(q, EPERM);
	}
	return row->serve(q);
}

/* Returns 1 if the connection stays open, 0 if it ends well, or -1. */
static int serve(struct client *c, const CriuReq *req)
{
	struct request q = {
		.client = c, .req = req, .resp = CRIU_RESP__INIT, .options = *c->base
	};
	const struct row *row = find_row(req->type);

	q.options.service_fd = c->fd;
	if (row && req->keep_open && !row->may_stay_open)
		return -1;
	if (row && c->is_in_sequence && !row->may_follow)
		row = NULL;
	log_clear_first_error();
	int rc = answer(&q, row);
	if (!has_nobody_to_answer(&q) && client_send(c, &q.resp) < 0)
		rc = -1;
	free_answers(&q);
	c->is_in_sequence = row && row->is_followed;
	return rc < 0 ? -1 : req->keep_open || c->is_in_sequence;
}

int client_serve(struct client *c)
{
	for (;;) {
		CriuReq *req;
		int rc = client_receive(c, &req);

		if (rc <= 0)
			return rc < 0;
		rc = serve(c, req);
		criu_req__free_unpacked(req, NULL);
		if (rc <= 0)
			return rc < 0;
	}
}
