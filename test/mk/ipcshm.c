/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * System V shared memory: whole attachments, parts of them, with other
 * protections, moved, grown, several of one segment in one process and in
 * others, read-only and executable ones; segments that nobody has attached,
 * that are marked for removal, locked, of other users, of huge pages.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fd.h"
#include "ipcns.h"
#include "mk.h"

#define PAGES	  8
#define BYTES	  (PAGES * PAGE)
#define ODD_BYTES (2 * PAGE + 1234)
#define HUGE_SIZE (2UL << 20)
#define KEY	  0x43520001
#define HIGH_ID	  (77 << 15 | 3)	/* number 3, the 78th time */
#define SPARSE_SIZE ((size_t)(4ULL << 40))	/* none for an i386 */
#define FEW	  100	/* numbers of segments that the factory takes */

static struct {
	int id;
	size_t size;
	const char *what;
} unattached[8];
static int nr_unattached;

static unsigned char *anonymous, *in_memfd, *memory;
static unsigned char *whole, *again, *odd, *holes, *striped, *moved, *grown, *read_only, *code, *locked,
	*removed, *replaced, *inherited, *huge, *huge_part;
static int whole_id, odd_id, removed_id, sparse_id;
static pid_t child;
static volatile int *board;	/* round, answer */

static int make_segment(key_t key, size_t size, int flags)
{
	return need("shmget", shmget(key, size, IPC_CREAT | IPC_EXCL | flags));
}

static unsigned char *attach(int id, int flags)
{
	unsigned char *p = shmat(id, NULL, flags);

	if (p == (void *)-1)
		die("shmat: %s", strerror(errno));
	return p;
}

/* Larger than any machine, and all but empty. */
static void make_sparse(void)
{
	unsigned char *p;

	if (sizeof(size_t) < 8)
		return;
	sparse_id = make_segment(IPC_PRIVATE, SPARSE_SIZE, 0600 | SHM_NORESERVE);
	p = attach(sparse_id, 0);
	fill(p + SPARSE_SIZE / 2, PAGE, 70);
	shmdt(p);
}

static void check_sparse(void)
{
	unsigned char *p;

	if (sizeof(size_t) < 8)
		return;
	p = attach(sparse_id, SHM_RDONLY);
	same_fill("a page of a segment that is mostly empty", p + SPARSE_SIZE / 2, PAGE, 70);
	shmdt(p);
}

static unsigned char *filled(size_t size, uint64_t seed)
{
	unsigned char *p = attach(make_segment(IPC_PRIVATE, size, 0600), 0);

	fill(p, size, seed);
	return p;
}

static void leave_unattached(const char *what, int id, size_t size)
{
	unsigned char *p = attach(id, 0);

	fill(p, size, nr_unattached);
	shmdt(p);
	unattached[nr_unattached].id = id;
	unattached[nr_unattached].size = size;
	unattached[nr_unattached++].what = what;
}

static void make_unattached(void)
{
	int id;

	leave_unattached("a segment with a key", make_segment(KEY, 3 * PAGE, 0640), 3 * PAGE);
	choose_next_id("shm", HIGH_ID);
	leave_unattached("a segment with a high id", make_segment(KEY + 1, 100, 0666), 100);
	be_user(1000);
	id = make_segment(KEY + 2, PAGE, 0600);
	be_user(0);
	leave_unattached("a segment of another user", id, PAGE);
	be_user(1000);
	id = make_segment(KEY + 3, PAGE, 0600);
	be_user(0);
	need("chown", shmctl(id, IPC_SET, &(struct shmid_ds){
					     .shm_perm = { .uid = 7, .gid = 8, .mode = 0421 } }));
	leave_unattached("a segment that was given away", id, PAGE);
	leave_unattached("a segment that is locked", id = make_segment(KEY + 4, 2 * PAGE, 0600),
			 2 * PAGE);
	need("SHM_LOCK", shmctl(id, SHM_LOCK, NULL));
}

/* Its key is that of another one by now. */
static void make_removed(void)
{
	removed_id = make_segment(KEY + 5, PAGE, 0600);
	removed = attach(removed_id, 0);
	fill(removed, PAGE, 30);
	need("IPC_RMID", shmctl(removed_id, IPC_RMID, NULL));
	replaced = attach(make_segment(KEY + 5, PAGE, 0600), 0);
	fill(replaced, PAGE, 31);
}

/* Other memory that is told apart by inodes has the number of a segment. */
static unsigned char *map_with_id(bool is_memfd, uint64_t seed)
{
	struct stat st;
	unsigned char *p;
	char path[96];
	int fd;

	do {
		fd = is_memfd ? need("memfd_create", memfd_create("same", MFD_CLOEXEC)) : -1;
		if (is_memfd)
			need("ftruncate", ftruncate(fd, PAGE));
		p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | (is_memfd ? 0 : MAP_ANONYMOUS), fd, 0);
		snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (long)p, (long)p + PAGE);
		need(path, stat(path, &st));
		if (is_memfd)
			close(fd);
	} while ((st.st_ino & 0x7fff) < FEW);
	fill(p, PAGE, seed);
	choose_next_id("shm", st.st_ino);
	leave_unattached("a segment with the number of another file", make_segment(IPC_PRIVATE, PAGE, 0600), PAGE);
	same_long("the id of a segment", st.st_ino, unattached[nr_unattached - 1].id);
	return p;
}

static void *move(void *p, size_t from, size_t to)
{
	/* room for a page in the way of what the kernel might join */
	char *room = mmap(NULL, to + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *q = mremap(p, from, to, MREMAP_MAYMOVE | MREMAP_FIXED, room + PAGE);

	if (q == MAP_FAILED)
		die("mremap: %s", strerror(errno));
	return q;
}

static void make_parts(void)
{
	holes = filled(BYTES, 40);
	munmap(holes, PAGE);
	munmap(holes + 3 * PAGE, 2 * PAGE);
	mmap(holes + 3 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	striped = filled(BYTES, 41);
	mprotect(striped + PAGE, PAGE, PROT_READ);
	mprotect(striped + 3 * PAGE, PAGE, PROT_NONE);
	mprotect(striped + 5 * PAGE, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
	mlock(striped + 6 * PAGE, PAGE);
	madvise(striped + 7 * PAGE, PAGE, MADV_DONTDUMP);
	moved = filled(BYTES, 42);
	moved = move(moved + 2 * PAGE, 4 * PAGE, 4 * PAGE);
	grown = filled(2 * PAGE, 43);
	grown = move(grown, 2 * PAGE, 5 * PAGE);
}

static void make_huge(void)
{
	int id = shmget(IPC_PRIVATE, HUGE_SIZE + 5000, IPC_CREAT | 0600 | SHM_HUGETLB);

	if (id < 0)
		skip("no huge pages: %s", strerror(errno));
	huge = shmat(id, NULL, 0);
	if (huge == (void *)-1)
		skip("no huge pages to attach: %s", strerror(errno));
	fill(huge, HUGE_SIZE + 5000, 50);
	id = make_segment(IPC_PRIVATE, 2 * HUGE_SIZE, 0600 | SHM_HUGETLB);
	huge_part = attach(id, 0);
	fill(huge_part + HUGE_SIZE, HUGE_SIZE, 51);
	munmap(huge_part, HUGE_SIZE);
	be_user(1000);
	id = shmget(IPC_PRIVATE, HUGE_SIZE, IPC_CREAT | 0600 | SHM_HUGETLB);
	be_user(0);
	if (id < 0)	/* who may have one is a matter of vm.hugetlb_shm_group and RLIMIT_MEMLOCK */
		id = make_segment(IPC_PRIVATE, HUGE_SIZE, 0600 | SHM_HUGETLB);
	leave_unattached("a segment of huge pages", id, HUGE_SIZE);
}

static void check_huge(void)
{
	same_fill("a segment of huge pages", huge, HUGE_SIZE + 5000, 50);
	same_fill("a part of such a segment", huge_part + HUGE_SIZE, HUGE_SIZE, 51);
}

static void make_private(void)
{
	size_t size = param_long("private");

	if (!size)
		return;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	fill(memory, size, 80);
}

/* ---- the child ---- */

static void answer(void)
{
	unsigned char *own = whole + PAGE;

	board[1] = verify(own, BYTES - PAGE, 20) < 0 && verify(odd, ODD_BYTES, 21) < 0 &&
				   inherited[0] == (unsigned char)board[0]
			   ? board[0]
			   : -1;
}

static void leave(void)
{
	_exit(9);
}

static void be_child(void)
{
	setsid();
	shmdt(again);
	shmdt(odd);
	odd = attach(odd_id, SHM_RDONLY);
	if (need("fork", fork()) == 0) {	/* gone in no time, and its attachments with it */
		shmdt(odd);
		_exit(0);
	}
	wait(NULL);
	board[1] = 1;
	serve_signals(answer, leave);
}

static bool has_answered(void *arg)
{
	(void)arg;
	return board[1] == board[0] || board[1] < 0;
}

/* ---- all ---- */

static void make(void)
{
	need_own_ipc();
	if (param_long("unattached"))
		make_unattached();
	board = (volatile int *)attach(make_segment(IPC_PRIVATE, PAGE, 0600), 0);
	whole_id = make_segment(KEY + 9, BYTES, 0600);
	whole = attach(whole_id, 0);
	fill(whole + PAGE, BYTES - PAGE, 20);
	again = attach(whole_id, 0);
	odd_id = make_segment(IPC_PRIVATE, ODD_BYTES, 0600);
	odd = attach(odd_id, 0);
	fill(odd, 3 * PAGE, 21);	/* behind its end, too */
	read_only = attach(whole_id, SHM_RDONLY);
	code = attach(whole_id, SHM_EXEC);
	locked = filled(3 * PAGE, 22);
	mlock(locked, 3 * PAGE);
	inherited = filled(PAGE, 23);
	if (param_long("parts")) {
		make_removed();
		make_sparse();
		anonymous = map_with_id(false, 60);
		in_memfd = map_with_id(true, 61);
		make_parts();
	}
	if (param_long("huge"))
		make_huge();
	make_private();
	board[0] = 1;
	child = need("fork", fork());
	if (!child)
		be_child();
	if (!wait_until(has_answered, NULL))
		die("the child does not come up");
	if (param_long("limits"))
		change_ipc_limits();
	note_ipc();
}

static void check_parts(void)
{
	unsigned char all[BYTES];

	same_fill("a segment marked for removal", removed, PAGE, 30);
	same_fill("one with its key", replaced, PAGE, 31);
	same_fill("anonymous memory", anonymous, PAGE, 60);
	same_fill("a memfd", in_memfd, PAGE, 61);
	check_sparse();
	fill(all, BYTES, 40);
	if (memcmp(holes + PAGE, all + PAGE, 2 * PAGE) || memcmp(holes + 5 * PAGE, all + 5 * PAGE, 3 * PAGE))
		bad("parts of a segment differ");
	mprotect(striped + 3 * PAGE, PAGE, PROT_READ);
	same_fill("a segment of many protections", striped, BYTES, 41);
	mprotect(striped + 3 * PAGE, PAGE, PROT_NONE);
	fill(all, BYTES, 42);
	if (memcmp(moved, all + 2 * PAGE, 4 * PAGE))
		bad("a moved part of a segment differs");
	same_fill("a segment that is smaller than its mapping", grown, 2 * PAGE, 43);
}

static void check_unattached(void)
{
	int i;

	for (i = 0; i < nr_unattached; i++) {
		unsigned char *p = shmat(unattached[i].id, NULL, SHM_RDONLY);

		if (p == (void *)-1) {
			bad_errno(unattached[i].what);
			continue;
		}
		same_fill(unattached[i].what, p, unattached[i].size, i);
		shmdt(p);
	}
}

/* Nobody may write to what was attached to be read only. */
static void check_read_only(void)
{
	if (mprotect(read_only, PAGE, PROT_READ | PROT_WRITE) == 0 || errno != EACCES)
		bad("what was attached read-only can be made writable");
}

/* shmdt() finds all parts of an attachment. */
static void check_detach(void)
{
	struct shmid_ds before, after;

	shmctl(whole_id, IPC_STAT, &before);
	unsigned char *p = attach(whole_id, 0);
	if (shmdt(again) < 0)
		bad_errno("shmdt");
	shmctl(whole_id, IPC_STAT, &after);
	if (before.shm_nattch != after.shm_nattch)
		bad("detached: %ld attachments, then %ld", (long)before.shm_nattch, (long)after.shm_nattch);
	again = mremap(p, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, again);
	if (!striped)
		return;
	if (shmdt(striped) < 0 || mprotect(striped + 2 * PAGE, PAGE, PROT_READ) == 0 || errno != ENOMEM)
		bad("shmdt() does not find all parts of a segment");
}

static void check(void)
{
	check_ipc();
	same_fill("a segment", whole + PAGE, BYTES - PAGE, 20);
	same_fill("a segment attached again", again + PAGE, BYTES - PAGE, 20);
	same_fill("a segment of odd size", odd, 3 * PAGE, 21);
	same_fill("a locked segment", locked, 3 * PAGE, 22);
	whole[0]++;
	if (again[0] != whole[0] || read_only[0] != whole[0] || code[0] != whole[0])
		bad("attachments are not of one segment");
	if (param_long("parts"))
		check_parts();
	check_unattached();
	check_read_only();
	same_fill("private memory", memory, param_long("private"), 80);
	if (huge)
		check_huge();
	board[0]++;
	inherited[0] = board[0];
	kill(child, SIGUSR1);
	if (!wait_until(has_answered, NULL) || board[1] < 0)
		bad("the child: %d", board[1]);
}

static void stop(void)
{
	struct shmid_ds ds;

	check_detach();
	end_child(child, 9);
	if (!removed)
		return;
	shmdt(removed);
	if (shmctl(removed_id, IPC_STAT, &ds) == 0)
		bad("a segment marked for removal outlives its attachments");
}

struct factory ipcshm_factory = {
	.name	= "ipcshm",
	.about	= "System V shared memory in an IPC namespace of its own",
	.params	= {
		{ "limits", "0", "1: limits of the namespace are lower than what is there" },
		{ "parts", "1", "0: only whole attachments, none of what is marked for removal" },
		{ "unattached", "1", "0: none that nobody has attached" },
		{ "private", "0", "so many bytes of private memory, too" },
		{ "huge", "0", "1: segments of huge pages, too" },
	},
	.make	= make,
	.check	= check,
	.stop	= stop,
};
