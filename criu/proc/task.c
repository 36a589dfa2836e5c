/* SPDX-License-Identifier: GPL-2.0-only */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/own.h"
#include "proc/task.h"
#include "proc/text.h"

/*
 * The command may hold spaces and parentheses: it ends at the last one. The numbers behind it
 * count from field 4 (ppid).
 */
#define FIRST_FIELD 4
#define LAST_FIELD  52

static const char *parse_comm(const char *text, struct proc_stat *s)
{
	uint64_t pid;
	const char *p = text_dec(text, &pid), *end = strrchr(text, ')');

	if (!p || p[0] != ' ' || p[1] != '(' || !end || end < p + 2 || end[1] != ' ' || !end[2] ||
	    pid > INT32_MAX)
		return NULL;
	s->pid = pid;
	size_t len = min((size_t)(end - (p + 2)), sizeof(s->comm) - 1);
	memcpy(s->comm, p + 2, len);
	s->state = end[2];
	return end + 3;
}

int proc_stat_parse(const char *text, struct proc_stat *ret)
{
	struct proc_stat s = { 0 };
	uint64_t f[LAST_FIELD + 1] = { 0 };
	const char *p = parse_comm(text, &s);

	if (!p)
		return -EINVAL;
	for (int i = FIRST_FIELD; i <= LAST_FIELD; i++) {
		int64_t negative;

		p = text_skip_blanks(p);
		if (*p == '-') {
			p = text_int(p, &negative);
			f[i] = negative;
		} else {
			p = text_dec(p, &f[i]);
		}
		if (!p)
			return -EINVAL;
	}
	s.ppid = f[4];
	s.pgid = f[5];
	s.sid = f[6];
	s.tty = f[7];
	s.tty_pgid = f[8];
	s.flags = f[9];
	s.start_time = f[22];
	s.start_code = f[26];
	s.end_code = f[27];
	s.start_stack = f[28];
	s.start_data = f[45];
	s.end_data = f[46];
	s.start_brk = f[47];
	s.arg_start = f[48];
	s.arg_end = f[49];
	s.env_start = f[50];
	s.env_end = f[51];
	s.exit_code = f[52];
	*ret = s;
	return 0;
}

/* The values of a status line: which kind they are and where they go. */
enum value_kind { CHAR, DEC32, OCT32, HEX64, DEC64, DEC32X4, FLAG };

/* clang-format off */
#define FIELD(name, kind, member) { name, kind, offsetof(struct proc_status, member) }
static const struct status_field {
	const char *name;
	enum value_kind kind;
	size_t offset;
} status_fields[] = {
	FIELD("State",		 CHAR,	  state),
	FIELD("Tgid",		 DEC32,	  tgid),
	FIELD("PPid",		 DEC32,	  ppid),
	FIELD("TracerPid",	 DEC32,	  tracer),
	FIELD("Umask",		 OCT32,	  umask),
	FIELD("Uid",		 DEC32X4, uid),
	FIELD("Gid",		 DEC32X4, gid),
	FIELD("Threads",	 DEC32,	  threads),
	FIELD("SigPnd",		 HEX64,	  sig_pending),
	FIELD("ShdPnd",		 HEX64,	  shared_pending),
	FIELD("SigBlk",		 HEX64,	  sig_blocked),
	FIELD("SigIgn",		 HEX64,	  sig_ignored),
	FIELD("SigCgt",		 HEX64,	  sig_caught),
	FIELD("CapInh",		 HEX64,	  cap[CAP_SET_INH]),
	FIELD("CapPrm",		 HEX64,	  cap[CAP_SET_PRM]),
	FIELD("CapEff",		 HEX64,	  cap[CAP_SET_EFF]),
	FIELD("CapBnd",		 HEX64,	  cap[CAP_SET_BND]),
	FIELD("CapAmb",		 HEX64,	  cap[CAP_SET_AMB]),
	FIELD("NoNewPrivs",	 DEC32,	  no_new_privs),
	FIELD("Seccomp",	 DEC32,	  seccomp),
	FIELD("Seccomp_filters", DEC32,	  seccomp_filters),
	FIELD("THP_enabled",	 FLAG,	  thp_enabled),
	FIELD("VmRSS",		 DEC64,	  vm_rss_kib),
	FIELD("VmLck",		 DEC64,	  vm_lck_kib),
};
/* clang-format on */

static bool parse_dec32s(const char *p, uint32_t *out, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t v;

		p = text_dec(text_skip_blanks(p), &v);
		if (!p || v > UINT32_MAX)
			return false;
		out[i] = v;
	}
	return true;
}

static bool parse_value(const char *p, enum value_kind kind, void *out)
{
	uint64_t n;

	switch (kind) {
	case CHAR:
		*(char *)out = *p;
		return *p;
	case DEC32:
		return parse_dec32s(p, out, 1);
	case DEC32X4:
		return parse_dec32s(p, out, 4);
	case OCT32:
		if (!text_oct(p, &n) || n > 07777)
			return false;
		*(uint32_t *)out = n;
		return true;
	case HEX64:
		return text_hex(p, out);
	case DEC64:
		return text_dec(p, out);
	case FLAG:
		*(bool *)out = *p == '1';
		return true;
	}
	return false;
}

static bool parse_groups(const char *p, struct arena *a, struct proc_status *s)
{
	for (p = text_skip_blanks(p); *p; p = text_skip_blanks(p)) {
		uint64_t gid;

		p = text_dec(p, &gid);
		if (!p || gid > UINT32_MAX)
			return false;
		*ARENA_PUSH(a, s->groups, s->n_groups) = gid;
	}
	return true;
}

/* The kernel writes a newline as \n and a backslash as \\. */
static void parse_name(const char *p, char *comm, size_t size)
{
	size_t n = 0;

	for (; *p && n < size - 1; p++) {
		bool is_escape = p[0] == '\\' && (p[1] == 'n' || p[1] == '\\');

		comm[n++] = !is_escape ? *p : p[1] == 'n' ? '\n' : '\\';
		p += is_escape;
	}
	comm[n] = '\0';
}

/* "thread mitigated", "conditional force disabled": forbidden by the thread itself. */
static uint32_t parse_speculation(const char *p, const char *by_thread, const char *off)
{
	enum { DISABLE = 4, FORCE_DISABLE = 8 }; /* PR_SPEC_* */
	size_t len = strlen(by_thread);

	if (strncmp(p, by_thread, len))
		return 0;
	p += len;
	bool is_forced = !strncmp(p, "force ", 6);
	return strcmp(is_forced ? p + 6 : p, off) ? 0 : is_forced ? FORCE_DISABLE : DISABLE;
}

static bool parse_status_line(const char *line, struct arena *a, struct proc_status *s)
{
	const char *value;

	for (size_t i = 0; i < ARRAY_SIZE(status_fields); i++) {
		const struct status_field *f = &status_fields[i];

		value = text_field(line, f->name);
		if (value)
			return parse_value(value, f->kind, (char *)s + f->offset);
	}
	/* Not by text_field: a name may begin with blanks. */
	if (!strncmp(line, "Name:\t", 6))
		parse_name(line + 6, s->comm, sizeof(s->comm));
	if ((value = text_field(line, "Groups")))
		return parse_groups(value, a, s);
	if ((value = text_field(line, "x86_Thread_features")))
		s->has_shadow_stack = strstr(value, "shstk") != NULL;
	if ((value = text_field(line, "untag_mask")))
		return !strncmp(value, "0x", 2) && text_hex(value + 2, &s->untag_mask);
	if ((value = text_field(line, "Speculation_Store_Bypass")))
		s->spec_store_bypass = parse_speculation(value, "thread ", "mitigated");
	if ((value = text_field(line, "SpeculationIndirectBranch")))
		s->spec_indirect_branch = parse_speculation(value, "conditional ", "disabled");
	return true;
}

int proc_status_parse(char *text, struct arena *a, struct proc_status *ret)
{
	struct proc_status s = { .thp_enabled = true, .untag_mask = ~0ull };

	for (char *line = text, *next; line && *line; line = next) {
		next = text_cut_line(line);
		if (!parse_status_line(line, a, &s))
			return -EINVAL;
	}
	*ret = s;
	return 0;
}

int proc_fdinfo_parse(char *text, struct proc_fdinfo *ret)
{
	struct proc_fdinfo i = { .mnt_id = -1 };

	for (char *line = text, *next; line && *line; line = next) {
		const char *v;
		uint64_t n;
		int64_t pos;
		bool ok = true;

		next = text_cut_line(line);
		if ((v = text_field(line, "pos"))) {
			ok = text_int(v, &pos);
			i.pos = ok ? pos : 0;
		} else if ((v = text_field(line, "flags"))) {
			ok = text_oct(v, &n) && n <= UINT32_MAX;
			i.flags = ok ? n : 0;
		} else if ((v = text_field(line, "mnt_id"))) {
			ok = text_dec(v, &n) && n <= INT32_MAX;
			i.mnt_id = ok ? n : 0;
		} else if ((v = text_field(line, "ino"))) {
			ok = text_dec(v, &i.ino);
		} else if (text_field(line, "lock")) {
			i.locks++;
		}
		if (!ok)
			return -EINVAL;
	}
	*ret = i;
	return 0;
}

int proc_stat_read_at(int dirfd, const char *path, struct proc_stat *ret)
{
	char text[2048];
	ssize_t len = read_small_at(dirfd, path, text, sizeof(text));

	return len < 0 ? (int)len : proc_stat_parse(text, ret);
}

int proc_stat_read(int dirfd, struct proc_stat *ret)
{
	return proc_stat_read_at(dirfd, "stat", ret);
}

int proc_stat_of(pid_t pid, struct proc_stat *ret)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	return proc_stat_read_at(AT_FDCWD, path, ret);
}

int proc_status_read_at(int dirfd, const char *path, struct arena *a, struct proc_status *ret)
{
	char small[4096];
	autofree char *text = NULL;
	ssize_t len = read_small_at(dirfd, path, small, sizeof(small));

	if (len < 0)
		return len;
	if (len < (ssize_t)sizeof(small) - 1)
		return proc_status_parse(small, a, ret);
	/* Groups may be 65,536 numbers long. */
	len = read_file_at(dirfd, path, &text);
	return len < 0 ? (int)len : proc_status_parse(text, a, ret);
}

int proc_status_read(int dirfd, struct arena *a, struct proc_status *ret)
{
	return proc_status_read_at(dirfd, "status", a, ret);
}

static int by_value(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;

	return (x > y) - (x < y);
}

int proc_numbers(int dirfd, const char *path, struct arena *a, int **ret, size_t *ret_n)
{
	autoclose int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int *list = NULL;
	size_t n = 0;

	if (fd < 0)
		return -errno;
	autoclosedir DIR *dir = fdopendir(fd);
	if (!dir)
		return -errno;
	(void)take_fd(&fd);
	for (;;) {
		uint64_t value;

		errno = 0;
		struct dirent *e = readdir(dir);
		if (!e)
			break;
		const char *rest = text_dec(e->d_name, &value);
		if (rest && !*rest && value <= INT32_MAX)
			*ARENA_PUSH(a, list, n) = value;
	}
	if (errno)
		return -errno;
	if (n)
		qsort(list, n, sizeof(*list), by_value);
	*ret = list;
	*ret_n = n;
	return 0;
}

int proc_children(int dirfd, const char *path, struct arena *a, int **ret, size_t *ret_n)
{
	autofree char *text = NULL;
	ssize_t len = read_file_at(dirfd, path, &text);
	int *list = NULL;
	size_t n = 0;
	uint64_t pid;

	if (len < 0)
		return len;
	for (const char *p = text_skip_blanks(text); (p = text_dec(p, &pid));
	     p = text_skip_blanks(p))
		*ARENA_PUSH(a, list, n) = pid;
	*ret = list;
	*ret_n = n;
	return 0;
}

int proc_open(pid_t pid)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d", pid);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}
