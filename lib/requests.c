/* SPDX-License-Identifier: GPL-2.0-only */
/* Requests: one question, notifications in between, one answer. */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "lib.h"

/* Of the notification that a callback of this thread is told of. */
static _Thread_local int orphan_master = -1;

/* Callers see the message as an opaque criu_notify_arg_t. */
int criu_notify_pid(criu_notify_arg_t na)
{
	const CriuNotify *n = (const CriuNotify *)na;

	return n && n->has_pid ? n->pid : 0;
}

const char *criu_notify_action(criu_notify_arg_t na)
{
	return na ? ((const CriuNotify *)na)->script : NULL;
}

int criu_get_orphan_pts_master_fd(void)
{
	int fd = orphan_master;

	orphan_master = -1;
	return fd;
}

/* Tells the callback, and the service what it thinks of it. */
static int tell(const criu_opts *o, const struct line *l, const CriuResp *resp, int fd)
{
	CriuReq answer = CRIU_REQ__INIT;
	int verdict = 0;

	orphan_master = fd;
	if (o->notify && resp->notify)
		verdict = o->notify(resp->notify->script, (criu_notify_arg_t)resp->notify);
	fd = criu_get_orphan_pts_master_fd();
	if (fd >= 0)
		close(fd);
	answer.type = CRIU_REQ_TYPE__NOTIFY;
	answer.has_notify_success = true;
	answer.notify_success = verdict == 0;
	return line_send(l, &answer);
}

/* Waits for the answer itself. Returns 0 with it, or an error. */
static int await_answer(const criu_opts *o, const struct line *l, CriuResp **ret)
{
	for (;;) {
		CriuResp *resp;
		int fd, rc = line_receive(l, &resp, &fd);

		if (rc < 0)
			return rc;
		if (resp->type != CRIU_REQ_TYPE__NOTIFY) {
			if (fd >= 0)
				close(fd);
			*ret = resp;
			return 0;
		}
		rc = tell(o, l, resp, fd);
		criu_resp__free_unpacked(resp, NULL);
		if (rc < 0)
			return rc;
	}
}

/* What an answer means: 0, or the error that callers get. */
static int judge(const CriuResp *resp, CriuReqType expected)
{
	if (resp->type != expected)
		return resp->type == CRIU_REQ_TYPE__EMPTY ? -EINVAL : -EBADMSG;
	if (resp->success)
		return 0;
	errno = resp->has_cr_errno ? resp->cr_errno : 0;
	return -EBADE;
}

/* Asks on an open line. Returns 0 with an answer that says success, or an error. */
static int ask(const criu_opts *o, const struct line *l, const CriuReq *req, CriuResp **ret)
{
	CriuResp *resp;
	int rc = line_send(l, req);

	if (rc < 0)
		return rc;
	rc = await_answer(o, l, &resp);
	if (rc < 0)
		return rc;
	rc = judge(resp, req->type);
	if (rc < 0)
		criu_resp__free_unpacked(resp, NULL);
	else
		*ret = resp;
	return rc;
}

/* Whoever dumps us may not be one of ours. */
static enum kinship kinship_for(const criu_opts *o, CriuReqType type)
{
	return type == CRIU_REQ_TYPE__DUMP && !o->rpc.has_pid ? ORPHAN : CHILD;
}

static CriuReq request(CriuReqType type, CriuOpts *options)
{
	CriuReq req = CRIU_REQ__INIT;

	req.type = type;
	req.opts = options;
	return req;
}

/* One question and its answer on a line of its own. */
static int exchange(const criu_opts *o, const CriuReq *req, CriuResp **ret)
{
	struct line l;
	int rc = line_open(o, kinship_for(o, req->type), &l);

	if (rc < 0)
		return rc;
	rc = ask(o, &l, req, ret);
	line_close(&l);
	return rc;
}

/* The same if there is nothing in the answer but success. */
static int demand(criu_opts *o, CriuReqType type)
{
	CriuReq req = request(type, &o->rpc);
	CriuResp *resp;
	int rc = exchange(o, &req, &resp);

	if (rc == 0)
		criu_resp__free_unpacked(resp, NULL);
	return rc;
}

int criu_local_check(criu_opts *o)
{
	return demand(o, CRIU_REQ_TYPE__CHECK);
}

int criu_local_pre_dump(criu_opts *o)
{
	return demand(o, CRIU_REQ_TYPE__SINGLE_PRE_DUMP);
}

/* 1: we are what was dumped, and this is after the restore. */
static int outcome_of_dump(CriuResp *resp)
{
	bool is_restored = resp->dump && resp->dump->has_restored && resp->dump->restored;

	criu_resp__free_unpacked(resp, NULL);
	return is_restored;
}

int criu_local_dump(criu_opts *o)
{
	CriuReq req = request(CRIU_REQ_TYPE__DUMP, &o->rpc);
	CriuResp *resp;
	int rc = exchange(o, &req, &resp);

	return rc < 0 ? rc : outcome_of_dump(resp);
}

/* Pre-dumps until `more` has enough, and the dump, all on one line. */
static int iterate(const criu_opts *o, const struct line *l, criu_predump_cb_t more)
{
	CriuReq pre_dump = request(CRIU_REQ_TYPE__PRE_DUMP, (CriuOpts *)&o->rpc),
		dump = request(CRIU_REQ_TYPE__DUMP, (CriuOpts *)&o->rpc);
	CriuResp *resp;
	int rc;

	do {
		rc = ask(o, l, &pre_dump, &resp);
		if (rc < 0)
			return rc;
		criu_resp__free_unpacked(resp, NULL);
		rc = more(NULL);
	} while (rc > 0);
	if (rc == 0)
		rc = ask(o, l, &dump, &resp);
	return rc < 0 ? rc : outcome_of_dump(resp);
}

int criu_local_dump_iters(criu_opts *o, criu_predump_cb_t more)
{
	struct line l;

	if (!o->rpc.has_pid || !more) /* iterations of ourselves would be gone with us */
		return -EINVAL;
	int rc = line_open(o, CHILD, &l);
	if (rc < 0)
		return rc;
	rc = iterate(o, &l, more);
	line_close(&l);
	return rc;
}

static int pid_of_restore(CriuResp *resp)
{
	int pid = resp->restore ? resp->restore->pid : -EBADMSG;

	criu_resp__free_unpacked(resp, NULL);
	return pid;
}

int criu_local_restore(criu_opts *o)
{
	CriuReq req = request(CRIU_REQ_TYPE__RESTORE, &o->rpc);
	CriuResp *resp;
	int rc = exchange(o, &req, &resp);

	return rc < 0 ? rc : pid_of_restore(resp);
}

/* The worker's sibling is our child: only a worker of our own can do that. */
int criu_local_restore_child(criu_opts *o)
{
	CriuOpts options = o->rpc;
	CriuReq req = request(CRIU_REQ_TYPE__RESTORE, &options);
	struct line l;
	CriuResp *resp;

	options.has_rst_sibling = true;
	options.rst_sibling = true;
	int rc = line_open_worker(o, CHILD, &l);
	if (rc < 0)
		return rc;
	rc = ask(o, &l, &req, &resp);
	line_close(&l);
	return rc < 0 ? rc : pid_of_restore(resp);
}

int criu_local_feature_check(criu_opts *o, struct criu_feature_check *features, size_t size)
{
	CriuFeatures asked = CRIU_FEATURES__INIT;
	CriuReq req = request(CRIU_REQ_TYPE__FEATURE_CHECK, NULL);
	struct criu_feature_check all = { 0 };
	CriuResp *resp;

	if (!features || size > sizeof(all))
		return -EINVAL;
	memcpy(&all, features, size);
	asked.has_mem_track = asked.has_lazy_pages = asked.has_pidfd_store = true;
	asked.mem_track = all.mem_track;
	asked.lazy_pages = all.lazy_pages;
	asked.pidfd_store = all.pidfd_store;
	req.features = &asked;
	int rc = exchange(o, &req, &resp);
	if (rc < 0)
		return rc;
	if (resp->features)
		all = (struct criu_feature_check){ resp->features->mem_track,
						   resp->features->lazy_pages,
						   resp->features->pidfd_store };
	rc = resp->features ? 0 : -EBADMSG;
	criu_resp__free_unpacked(resp, NULL);
	if (rc == 0)
		memcpy(features, &all, size);
	return rc;
}

/* 4.2.1 is 40201. What is built between two releases counts as the later one. */
static int number_of(const CriuVersion *v)
{
	bool is_between = v->gitid && v->gitid[0];

	return v->major_number * 10000 + (v->minor_number + is_between) * 100 +
	       (v->has_sublevel && !is_between ? v->sublevel : 0);
}

int criu_local_get_version(criu_opts *o)
{
	CriuReq req = request(CRIU_REQ_TYPE__VERSION, NULL);
	CriuResp *resp;
	int rc = exchange(o, &req, &resp);

	if (rc < 0)
		return rc;
	rc = resp->version ? number_of(resp->version) : -EBADMSG;
	criu_resp__free_unpacked(resp, NULL);
	return rc;
}

int criu_local_check_version(criu_opts *o, int minimum)
{
	int version = criu_local_get_version(o);

	return version < 0 ? version : version >= minimum;
}
