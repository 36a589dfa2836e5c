/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fdinfo has a line for each lock that the process took through the descriptor or, for POSIX
 * locks, that it has on the file; `lock: 1: POSIX  ADVISORY  WRITE 714 00:1e:12 0 EOF`. The same
 * lock shows at every duplicate of the descriptor: it is noted once.
 *
 * At restore the task takes its locks itself, so that it is their owner. See proc_locks(5).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/locks.h"
#include "kernel/abi.h"
#include "proc/text.h"

/* file_lock_entry.flag: numbers of the image format, not the kernel's */
enum lock_kind { LOCK_POSIX = 1, LOCK_FLOCK = 2, LOCK_OFD = 4, LOCK_LEASE = 8 };

static const struct {
	const char *name;
	enum lock_kind kind;
} kinds[] = {
	{ "POSIX", LOCK_POSIX },
	{ "FLOCK", LOCK_FLOCK },
	{ "LEASE", LOCK_LEASE },
	{ "OFDLCK", LOCK_OFD },
};

struct lock {
	enum lock_kind kind;
	int type; /* F_RDLCK, F_WRLCK */
	bool is_breaking;
	int64_t start, len;
};

static const char *next_word(const char **p, size_t *len)
{
	const char *word = text_skip_blanks(*p);

	*len = strcspn(word, " \t");
	*p = word + *len;
	return word;
}

static bool is_word(const char *word, size_t len, const char *name)
{
	return strlen(name) == len && !strncmp(word, name, len);
}

static bool parse_kind(struct lock *l, const char *word, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (is_word(word, len, kinds[i].name)) {
			l->kind = kinds[i].kind;
			return true;
		}
	return false;
}

/* `1: POSIX  ADVISORY  READ 714 00:1e:12345 0 EOF`; `->` marks one that only waits. */
static int parse(const char *line, struct lock *l)
{
	const char *word[8];
	size_t len[8];
	int64_t end, pid;

	for (size_t i = 0; i < ARRAY_SIZE(word); i++)
		word[i] = next_word(&line, &len[i]);
	if (is_word(word[1], len[1], "->"))
		return 0;
	if (!parse_kind(l, word[1], len[1]) || !text_int(word[4], &pid) ||
	    !text_int(word[6], &l->start))
		return -EINVAL;
	if (is_word(word[3], len[3], "READ"))
		l->type = F_RDLCK;
	else if (is_word(word[3], len[3], "WRITE"))
		l->type = F_WRLCK;
	else if (is_word(word[3], len[3], "UNLCK"))
		l->type = F_UNLCK;
	else
		return -EINVAL;
	l->is_breaking = is_word(word[2], len[2], "BREAKING") || l->type == F_UNLCK;
	if (is_word(word[7], len[7], "EOF"))
		l->len = 0;
	else if (text_int(word[7], &end) && end >= l->start)
		l->len = end - l->start + 1;
	else
		return -EINVAL;
	return 1;
}

/*
 * While a lease is being broken the kernel shows what it is to become. What it is: one for writing
 * becomes one for reading; one for reading can only end, and needs a descriptor that only reads.
 */
static int type_of_broken(const struct lock *l, const struct fd_probe *p)
{
	return l->type == F_UNLCK && (p->info.flags & O_ACCMODE) == O_RDONLY ? F_RDLCK : F_WRLCK;
}

/* POSIX locks belong to a process and a file, the others to a description. */
static bool is_known(const struct dump *d, const struct lock *l, const struct fd_probe *p,
		     uint32_t file_id)
{
	pid_t pid = p->task->process->pid;

	for (size_t i = 0; i < d->n_locks; i++) {
		const struct dump_lock *k = &d->locks[i];
		bool is_same = l->kind == LOCK_POSIX
				       ? k->entry->pid == pid && k->ino == p->st.st_ino &&
						 k->dev == p->st.st_dev
				       : k->file_id == file_id;

		if (is_same && k->entry->flag == l->kind &&
		    (l->is_breaking || k->entry->type == (uint32_t)l->type) &&
		    k->entry->start == l->start && k->entry->len == l->len)
			return true;
	}
	return false;
}

static void add(struct dump *d, const struct fd_probe *p, const struct lock *l, uint32_t file_id)
{
	pid_t pid = p->task->process->pid;

	if (is_known(d, l, p, file_id))
		return;
	FileLockEntry *e = MESSAGE(&d->arena, FileLockEntry, file_lock_entry);
	e->flag = l->kind;
	e->type = l->is_breaking ? type_of_broken(l, p) : l->type;
	e->has_breaking_to = l->is_breaking;
	e->breaking_to = l->type;
	e->pid = pid;
	e->fd = p->fd;
	e->start = l->start;
	e->len = l->len;
	*ARENA_PUSH(&d->arena, d->locks, d->n_locks) =
		(struct dump_lock){ e, p->st.st_dev, p->st.st_ino, file_id };
}

int locks_collect(struct dump *d, const struct fd_probe *p, uint32_t file_id)
{
	pid_t pid = p->task->process->pid;

	for (const char *line = NULL; (line = probe_next(p, "lock", line));) {
		struct lock l;
		int rc = parse(line, &l);

		if (rc < 0)
			return refuse(EINVAL, "pid %d fd %d: unknown line of fdinfo: lock: %s", pid,
				      p->fd, line);
		if (rc == 0)
			continue;
		if (!d->opts->file_locks)
			dump_block(
				d,
				"pid %d fd %d: %s: a lock is held on it; to dump it with its locks "
				"give --file-locks",
				pid, p->fd, p->link);
		else if (p->task == d->own)
			dump_block(
				d,
				"%s: a lock is held on it while it is in flight in a socket; this "
				"cannot be dumped",
				p->link);
		else if (l.kind == LOCK_LEASE && !p->st.st_nlink)
			dump_block(d,
				   "pid %d fd %d: %s: there is a lease on the deleted file, which "
				   "reading it would break",
				   pid, p->fd, p->link);
		else
			add(d, p, &l, file_id);
	}
	return 0;
}

/* ---- those of the whole system ---- */

#define LOCKS_ROOM 65536 /* more than a page of any machine that we run on */

struct locked_inodes {
	bool are_known;
	uint64_t *inodes; /* sorted */
	size_t n;
};

/* `1: POSIX  ADVISORY  READ 714 00:1e:12345 0 EOF`; the words are one more where it waits (`->`).
 */
uint64_t locks_inode_of_line(const char *line)
{
	const char *word;
	uint64_t ino;
	size_t len, n = 6;

	for (size_t i = 0; i < n; i++) {
		word = next_word(&line, &len);
		n += i == 1 && is_word(word, len, "->");
	}
	const char *colon = memrchr(word, ':', len);
	return colon && text_dec(colon + 1, &ino) == word + len ? ino : 0;
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/*
 * One read(2) gives a page of whole lines at most, as the locks are at that moment. Were there more
 * to read, locks that go away in between would hide others, and so such a text is worth nothing.
 */
static bool read_at_once(const char *path, char *buf, size_t size)
{
	autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);
	char more;

	if (n < 0 || read(fd, &more, 1) != 0)
		return false;
	buf[n] = '\0';
	return true;
}

/*
 * In another pid namespace than init's the kernel leaves out locks whose taker has ended or is
 * not in it.
 */
static bool read_inodes(struct dump *d, struct locked_inodes *l)
{
	char link[NS_LINK_MAX], text[LOCKS_ROOM];

	if (read_link_at(AT_FDCWD, "/proc/self/ns/pid", link, sizeof(link)) < 0 ||
	    strcmp(link, ABI_INIT_PID_NS) || !read_at_once("/proc/locks", text, sizeof(text)))
		return false;
	char *rest = text;
	for (char *line; (line = strsep(&rest, "\n"));) {
		uint64_t ino = *line ? locks_inode_of_line(line) : 0;

		if (*line && !ino)
			return false;
		if (ino)
			*ARENA_PUSH(&d->arena, l->inodes, l->n) = ino;
	}
	if (l->n)
		qsort(l->inodes, l->n, sizeof(*l->inodes), by_number);
	return true;
}

bool locks_may_be_on(struct dump *d, ino_t ino)
{
	const uint64_t key = ino;

	if (!d->locked) {
		d->locked = arena_new(&d->arena, struct locked_inodes);
		d->locked->are_known = read_inodes(d, d->locked);
	}
	const struct locked_inodes *l = d->locked;
	return !l->are_known || (l->n && bsearch(&key, l->inodes, l->n, sizeof(key), by_number));
}

bool locks_have_lease(const struct dump *d, const struct stat *st)
{
	for (size_t i = 0; i < d->n_locks; i++)
		if (d->locks[i].entry->flag == LOCK_LEASE && d->locks[i].dev == st->st_dev &&
		    d->locks[i].ino == st->st_ino)
			return true;
	return false;
}

int locks_write_image(struct dump *d)
{
	struct image_out out;

	image_begin(&out, &d->images, IMG_FILE_LOCKS, 0);
	for (size_t i = 0; i < d->n_locks; i++)
		image_add(&out, d->locks[i].entry);
	return image_commit(&out);
}

static void add_range(struct program *p, const FileLockEntry *e, int command)
{
	const struct flock range = {
		.l_type = e->type, .l_whence = SEEK_SET, .l_start = e->start, .l_len = e->len
	};
	void *data = program_data(p, &range, sizeof(range));

	if (data)
		CALL(p, "take a lock that it had (is it held by another process now?)", SYS_fcntl,
		     e->fd, command, program_raddr(p, data));
}

void locks_add(struct restore *r, const struct restore_task *t, struct program *p)
{
	for (size_t i = 0; i < r->snapshot.n_locks; i++) {
		const FileLockEntry *e = r->snapshot.locks[i];

		if (e->pid != t->pid)
			continue;
		if (e->flag == LOCK_OFD)
			add_range(p, e, F_OFD_SETLK);
		else if (e->flag == LOCK_POSIX)
			add_range(p, e, F_SETLK);
		else if (e->flag == LOCK_FLOCK)
			CALL(p, "take a flock that it had (is it held by another process now?)",
			     SYS_flock, e->fd, LOCK_NB | (e->type == F_RDLCK ? LOCK_SH : LOCK_EX));
		else
			CALL(p, "take a lease that it had (is the file open elsewhere?)", SYS_fcntl,
			     e->fd, F_SETLEASE, e->type)
				->flags = e->has_breaking_to ? CALL_MAY_FAIL : 0;
	}
}

/* The owner was told when it was broken first. All signals are blocked: this one waits now. */
static int take_signal(struct restore_task *t)
{
	const uint64_t set = 1ull << (SIGIO - 1);
	const struct timespec at_once = { 0 };
	struct program p;
	int rc = program_begin(&p, task_worker(t), 1);

	if (rc < 0)
		return rc;
	void *mask = program_data(&p, &set, sizeof(set));
	void *time = program_data(&p, &at_once, sizeof(at_once));
	if (mask && time)
		CALL(&p, "take the signal of a lease", SYS_rt_sigtimedwait, program_raddr(&p, mask),
		     0, program_raddr(&p, time), sizeof(set))
			->flags = CALL_MAY_FAIL;
	rc = program_run(&p);
	program_end(&p);
	return rc;
}

/* Who opens the file against the lease is not let in, and does not wait. */
static int break_lease(struct restore_task *t, const FileLockEntry *e)
{
	int mode = e->breaking_to == F_RDLCK ? O_RDONLY : O_WRONLY;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", t->pid, e->fd);
	autoclose int fd = open(path, mode | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 && errno == EWOULDBLOCK)
		return take_signal(t);
	warn("pid %d fd %d: its lease was being broken, and is over now: the file is open "
	     "elsewhere, as if the time to give it up had run out",
	     t->pid, e->fd);
	return 0;
}

int locks_break_leases(struct restore *r)
{
	int rc = 0;

	for (size_t i = 0; i < r->snapshot.n_locks && rc == 0; i++) {
		const FileLockEntry *e = r->snapshot.locks[i];
		struct restore_task *t = e->has_breaking_to ? restore_find(r, e->pid) : NULL;

		if (t)
			rc = break_lease(t, e);
	}
	return rc;
}
