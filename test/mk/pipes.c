/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Anonymous pipes: empty and with data, of all capacities, packets, one end
 * missing, several open file descriptions of an end, ends in different
 * processes, and threads that wait in read() and write().
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fd.h"
#include "mk.h"

#define DEFAULT_SIZE	65536
#define MAX_SIZE	(1 << 20)
#define MANY_BYTES	100	/* in each of the n= pipes */
#define SPARE_FDS	200
#define CHILD_CODE	12

struct kind {
	const char *what;
	long bytes;
	long capacity;
	int flags;
};

static const struct kind kinds[] = {
	{ "empty",		0,		DEFAULT_SIZE,	0 },
	{ "one byte",		1,		DEFAULT_SIZE,	0 },
	{ "two pages",		5000,		DEFAULT_SIZE,	0 },
	{ "full",		DEFAULT_SIZE,	DEFAULT_SIZE,	0 },
	{ "one page",		100,		4096,		0 },
	{ "one page, full",	4096,		4096,		O_CLOEXEC },
	{ "large",		300000,		MAX_SIZE,	0 },
	{ "large, empty",	0,		MAX_SIZE,	O_NONBLOCK },
	{ "does not block",	10,		DEFAULT_SIZE,	O_NONBLOCK | O_CLOEXEC },
};

struct pipe {
	int r, w;	/* -1: not made, or closed */
	long bytes;
};

static struct pipe pipes[ARRAY_SIZE(kinds)];
static struct pipe several, packets, no_reader, no_writer, round_about;
static struct pipe *many;
static long nr_many;
static int r_dup, w_dup, r_nonblock, w_nonblock, both, only_both;
static unsigned char scratch[MAX_SIZE];
static const size_t packet_sizes[] = { 1, 100, 4096 };

static long unread(int fd)
{
	int n = -1;

	ioctl(fd, FIONREAD, &n);
	return n;
}

static long wanted_bytes(long bytes)
{
	return param_long("data") ? bytes : 0;
}

static void make_pipe(struct pipe *ret_pipe, int flags)
{
	int fds[2];

	need("pipe2", pipe2(fds, flags));
	ret_pipe->r = fds[0];
	ret_pipe->w = fds[1];
	ret_pipe->bytes = 0;
}

static void put_data(struct pipe *p, long bytes, uint64_t seed)
{
	p->bytes = wanted_bytes(bytes);
	fill(scratch, p->bytes, seed);
	if (p->bytes && write(p->w, scratch, p->bytes) != p->bytes)
		die("filling a pipe: %s", strerror(errno));
}

/* Takes all that is there and compares it; never waits. */
static bool take_data(const char *what, int r, long bytes, uint64_t seed)
{
	char text[96];
	long got = 0, n;
	ssize_t at;

	snprintf(text, sizeof(text), "pipe '%s': bytes in it", what);
	if (!same_long(text, bytes, unread(r)))
		return false;
	while (got < bytes && (n = read(r, scratch + got, bytes - got)) > 0)
		got += n;
	snprintf(text, sizeof(text), "pipe '%s': bytes read", what);
	if (!same_long(text, bytes, got))
		return false;
	at = verify(scratch, bytes, seed);
	if (at >= 0)
		bad("pipe '%s': wrong data at byte %zd", what, at);
	return true;
}

static void put_back(const char *what, int w, long bytes, uint64_t seed)
{
	fill(scratch, bytes, seed);
	if (bytes && write(w, scratch, bytes) != bytes)
		bad_errno(what);
}

/* ---- one process, both ends ---- */

static bool set_capacity(const struct pipe *p, long capacity)
{
	if (capacity == DEFAULT_SIZE || fcntl(p->w, F_SETPIPE_SZ, capacity) >= 0)
		return true;
	if (errno == EPERM && capacity == MAX_SIZE)
		return false;
	die("F_SETPIPE_SZ %ld: %s", capacity, strerror(errno));
}

static void make_kinds(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		make_pipe(&pipes[i], kinds[i].flags);
		if (!set_capacity(&pipes[i], kinds[i].capacity)) {
			close(pipes[i].r);
			close(pipes[i].w);
			pipes[i].r = pipes[i].w = -1;
			continue;
		}
		put_data(&pipes[i], kinds[i].bytes, i);
		remember_fd(kinds[i].what, pipes[i].r);
		remember_fd(kinds[i].what, pipes[i].w);
	}
}

/* What can be seen without touching the data. */
static bool check_ends(const char *what, const struct pipe *p, long capacity)
{
	char text[96];
	bool room = p->bytes < capacity;
	bool good;

	snprintf(text, sizeof(text), "pipe '%s': capacity", what);
	good = same_long(text, capacity, fcntl(p->r, F_GETPIPE_SZ));
	good = same_long(text, capacity, fcntl(p->w, F_GETPIPE_SZ)) && good;
	snprintf(text, sizeof(text), "pipe '%s': inode of the other end", what);
	good = same_long(text, inode_of(p->r), inode_of(p->w)) && good;
	snprintf(text, sizeof(text), "pipe '%s': poll for reading", what);
	same_long(text, p->bytes ? POLLIN : 0, ready_events(p->r));
	/* a page that is partly filled may count as full */
	if (capacity > 4096 || !p->bytes || !room) {
		snprintf(text, sizeof(text), "pipe '%s': poll for writing", what);
		same_long(text, room ? POLLOUT : 0, ready_events(p->w));
	}
	return good;
}

/* Something comes through, even where nothing was in it. */
static void check_passage(const char *what, int r, int w)
{
	uint64_t sent = mix(r), got = 0;

	if (write(w, &sent, sizeof(sent)) != sizeof(sent) || unread(r) != sizeof(sent) ||
	    read(r, &got, sizeof(got)) != sizeof(got) || got != sent)
		bad("pipe '%s': nothing comes through from %d to %d", what, w, r);
}

static void check_pipe(const char *what, const struct pipe *p, long capacity, uint64_t seed)
{
	if (p->r < 0 || !check_ends(what, p, capacity))
		return;
	check_other_file(what, p->r, p->w);
	if (!take_data(what, p->r, p->bytes, seed))
		return;
	check_passage(what, p->r, p->w);
	put_back(what, p->w, p->bytes, seed);
}

static void check_kinds(void)
{
	size_t i, j;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		check_pipe(kinds[i].what, &pipes[i], kinds[i].capacity, i);
		for (j = 0; j < i && pipes[i].r >= 0; j++)
			if (inode_of(pipes[i].r) == inode_of(pipes[j].r))
				bad("pipes '%s' and '%s' are one", kinds[i].what, kinds[j].what);
	}
}

/* ---- several open file descriptions of each end ---- */

static void make_several(void)
{
	struct pipe p;

	make_pipe(&several, 0);
	put_data(&several, 777, 100);
	remember_fd("first reader", several.r);
	remember_fd("first writer", several.w);
	r_dup = remember_fd("dup of a reader", fcntl(several.r, F_DUPFD_CLOEXEC, 0));
	w_dup = remember_fd("dup of a writer", dup(several.w));
	r_nonblock = remember_fd("second reader", reopen(several.r, O_RDONLY | O_NONBLOCK));
	w_nonblock = remember_fd("second writer",
				 reopen(several.w, O_WRONLY | O_NONBLOCK | O_CLOEXEC));
	both = remember_fd("reader and writer", reopen(several.r, O_RDWR));
	make_pipe(&p, 0);
	only_both = remember_fd("reader and writer, the only one", reopen(p.r, O_RDWR));
	put_data(&p, 33, 101);
	close(p.r);
	close(p.w);
}

static void check_several(void)
{
	const int fds[] = { several.r, several.w, r_nonblock, w_nonblock, both };
	size_t i, j;

	check_pipe("several", &several, DEFAULT_SIZE, 100);
	check_same_file("readers", several.r, r_dup);
	check_same_file("writers", several.w, w_dup);
	for (i = 0; i < ARRAY_SIZE(fds); i++) {
		same_long("inode of an end", inode_of(several.r), inode_of(fds[i]));
		for (j = 0; j < i; j++)
			check_other_file("ends of a pipe", fds[i], fds[j]);
	}
	if (!take_data("second reader", r_nonblock, several.bytes, 100))
		return;
	if (never_waits(r_nonblock))
		same_long("reading without data", -1, read(r_nonblock, scratch, 1));
	check_passage("second ends", r_nonblock, w_nonblock);
	check_passage("first and third", several.r, both);
	put_back("second writer", w_nonblock, several.bytes, 100);
}

static void check_only_both(void)
{
	long bytes = wanted_bytes(33);

	if (!take_data("one for both", only_both, bytes, 101))
		return;
	check_passage("one for both", only_both, only_both);
	put_back("one for both", only_both, bytes, 101);
}

/* ---- an end is missing ---- */

static void make_halves(void)
{
	make_pipe(&no_reader, 0);
	put_data(&no_reader, 100, 102);
	close(no_reader.r);
	remember_fd("without a reader", no_reader.w);
	make_pipe(&no_writer, 0);
	put_data(&no_writer, 6000, 103);
	close(no_writer.w);
	remember_fd("without a writer", no_writer.r);
}

static void check_no_reader(void)
{
	int r;

	errno = 0;
	same_long("write without a reader", -1, write(no_reader.w, "x", 1));
	same_long("errno without a reader", EPIPE, errno);
	r = reopen(no_reader.w, O_RDONLY | O_CLOEXEC);
	if (r < 0) {
		bad_errno("opening the missing reader");
		return;
	}
	if (take_data("without a reader", r, no_reader.bytes, 102))
		put_back("without a reader", no_reader.w, no_reader.bytes, 102);
	close(r);
}

static void check_no_writer(void)
{
	int w;

	same_long("poll without a writer", POLLHUP | (no_writer.bytes ? POLLIN : 0),
		  ready_events(no_writer.r));
	if (!take_data("without a writer", no_writer.r, no_writer.bytes, 103))
		return;
	if (!(ready_events(no_writer.r) & POLLHUP)) {
		bad("there is a writer where there was none");
		return;
	}
	same_long("end of file", 0, read(no_writer.r, scratch, 1));
	w = reopen(no_writer.r, O_WRONLY | O_CLOEXEC);
	put_back("without a writer", w, no_writer.bytes, 103);
	close(w);
}

/* ---- packets: each read() gives one of them ---- */

static void put_packets(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(packet_sizes) && wanted_bytes(1); i++)
		put_back("packet", packets.w, packet_sizes[i], 200 + i);
}

static void make_packets(void)
{
	make_pipe(&packets, O_DIRECT);
	put_packets();
	remember_fd("reader of packets", packets.r);
	remember_fd("writer of packets", packets.w);
}

static void check_packets(void)
{
	size_t i;

	same_long("inodes of the packet pipe", inode_of(packets.r), inode_of(packets.w));
	for (i = 0; i < ARRAY_SIZE(packet_sizes) && wanted_bytes(1); i++) {
		if (unread(packets.r) <= 0) {
			bad("packet %zu is lost", i);
			break;
		}
		same_long("size of a packet", packet_sizes[i],
			  read(packets.r, scratch, DEFAULT_SIZE));
		if (verify(scratch, packet_sizes[i], 200 + i) >= 0)
			bad("wrong data in packet %zu", i);
	}
	if (same_long("bytes behind the packets", 0, unread(packets.r)))
		put_packets();
}

/* ---- many ---- */

static void make_many(void)
{
	long i;

	nr_many = param_long("n");
	allow_fds(2 * nr_many + SPARE_FDS);
	many = calloc(nr_many + 1, sizeof(*many));
	if (!many)
		die("no memory");
	for (i = 0; i < nr_many; i++) {
		make_pipe(&many[i], 0);
		put_data(&many[i], MANY_BYTES, 1000 + i);
	}
}

static void check_many(void)
{
	char what[32];
	long i;

	for (i = 0; i < nr_many; i++) {
		snprintf(what, sizeof(what), "number %ld", i);
		check_pipe(what, &many[i], DEFAULT_SIZE, 1000 + i);
	}
}

/* ---- a child: it has the one end, we the other; questions and answers are under way ---- */

static struct pipe questions, answers;
static uint64_t question = 1;
static pid_t child;

static void child_answers(void)
{
	uint64_t number;

	if (read(questions.r, &number, sizeof(number)) != sizeof(number))
		_exit(1);
	number = mix(number);
	if (write(answers.w, &number, sizeof(number)) != sizeof(number))
		_exit(1);
}

static void child_leaves(void)
{
	_exit(CHILD_CODE);
}

static void ask(void)
{
	if (write(questions.w, &question, sizeof(question)) != sizeof(question))
		bad_errno("asking the child");
}

static bool has_answer(void *arg)
{
	(void)arg;
	return unread(answers.r) == sizeof(uint64_t);
}

static void start_child(void)
{
	make_pipe(&questions, 0);
	make_pipe(&answers, 0);
	make_pipe(&round_about, 0);
	remember_fd("questions", questions.w);
	remember_fd("answers", answers.r);
	child = need("fork", fork());
	if (!child) {
		close(questions.w);
		close(answers.r);
		serve_signals(child_answers, child_leaves);
	}
	close(questions.r);
	close(answers.w);
}

static void let_child_answer(void)
{
	kill(child, SIGUSR1);
	if (!wait_until(has_answer, NULL))
		bad("the child does not answer");
	question++;
}

/* With data, a question waits in its pipe, and the answer to the last one in the other. */
static void prepare_child(void)
{
	if (!wanted_bytes(1))
		return;
	ask();
	let_child_answer();
	ask();
}

static void check_child(void)
{
	uint64_t answer = 0;

	if (!wanted_bytes(1)) {
		ask();
		let_child_answer();
	}
	if (!has_answer(NULL) || read(answers.r, &answer, sizeof(answer)) != sizeof(answer)) {
		bad("the answer of the child is lost");
		return;
	}
	same_long("answer of the child", mix(question - 1), answer);
	if (!is_same_file(getpid(), round_about.r, child, round_about.r) ||
	    !is_same_file(getpid(), round_about.w, child, round_about.w))
		bad("the ends of a pipe are not shared with the child any more");
	check_pipe("shared with the child", &round_about, DEFAULT_SIZE, 0);
	if (wanted_bytes(1)) {
		let_child_answer();
		ask();
	}
}

/* ---- threads that wait: one for data, one for room ---- */

static struct pipe hungry, crowded;
static volatile pid_t reader_tid, writer_tid;
static volatile uint64_t nr_got, last_got;
static uint64_t nr_taken;	/* of the numbers in the crowded pipe */

/* The kernel writes there whenever the thread has moved, see mk.c. */
static void tell_rseq_area(void)
{
	char *area = (char *)__builtin_thread_pointer() + __rseq_offset;

	if (__rseq_size)
		status_line("volatile %lx %zu", (unsigned long)area, sizeof(struct rseq));
}

static void *read_for_ever(void *arg)
{
	uint64_t number;

	tell_rseq_area();
	reader_tid = gettid();
	while (read(hungry.r, &number, sizeof(number)) == sizeof(number)) {
		last_got = number;
		nr_got++;
	}
	return arg;
}

static void *write_for_ever(void *arg)
{
	uint64_t number = 0;

	tell_rseq_area();
	writer_tid = gettid();
	while (write(crowded.w, &number, sizeof(number)) == sizeof(number))
		number++;
	return arg;
}

static bool both_wait(void *arg)
{
	(void)arg;
	if (!reader_tid || !sleeps_in(reader_tid, SYS_read))
		return false;
	return !wanted_bytes(1) || (writer_tid && sleeps_in(writer_tid, SYS_write) &&
				    unread(crowded.r) == DEFAULT_SIZE);
}

static void start_waiting(void)
{
	pthread_t thread;

	make_pipe(&hungry, 0);
	make_pipe(&crowded, 0);
	if (pthread_create(&thread, NULL, read_for_ever, NULL) ||
	    (wanted_bytes(1) && pthread_create(&thread, NULL, write_for_ever, NULL)))
		die("pthread_create");
	if (!wait_until(both_wait, NULL))
		die("the threads do not come to rest");
}

static bool got_number(void *arg)
{
	return nr_got == *(uint64_t *)arg;
}

static void feed_reader(void)
{
	uint64_t number = mix(nr_got), goal = nr_got + 1;

	if (write(hungry.w, &number, sizeof(number)) != sizeof(number) ||
	    !wait_until(got_number, &goal))
		bad("the thread that waits in read() gets nothing");
	else
		same_long("number the waiting thread got", number, last_got);
}

static void make_room(void)
{
	uint64_t page[PAGE / sizeof(uint64_t)];
	size_t i;

	if (read(crowded.r, page, sizeof(page)) != sizeof(page))
		bad_errno("reading the crowded pipe");
	for (i = 0; i < ARRAY_SIZE(page); i++)
		if (!same_long("number in the crowded pipe", nr_taken++, page[i]))
			break;
}

static void check_waiting(void)
{
	if (!both_wait(NULL)) {
		bad("the threads do not wait in read() and write(), %ld bytes in the pipe",
		    unread(crowded.r));
		return;
	}
	feed_reader();
	if (wanted_bytes(1))
		make_room();
	if (!wait_until(both_wait, NULL))
		bad("the threads do not wait again");
}

/* ---- all of it ---- */

static void make(void)
{
	signal(SIGPIPE, SIG_IGN);
	make_many();
	make_kinds();
	make_several();
	make_halves();
	make_packets();
	start_child();
	prepare_child();
	start_waiting();
	note_fds();
}

static void check(void)
{
	check_fds();
	check_kinds();
	check_several();
	check_only_both();
	check_no_reader();
	check_no_writer();
	check_packets();
	check_many();
	check_child();
	check_waiting();
}

static void stop(void)
{
	end_child(child, CHILD_CODE);
}

struct factory pipes_factory = {
	.name	= "pipes",
	.about	= "anonymous pipes: data, capacity, packets, missing ends, waiting threads",
	.params	= {
		{ "data", "1", "0: all are empty" },
		{ "n", "0", "so many more, with 100 bytes each" },
	},
	.make	= make,
	.check	= check,
	.stop	= stop,
};
