/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How a process gets the stub, and how it is rid of it.
 *
 * Before a register changes, two signal frames are written into pages at the bottom of the main
 * stack that were never touched: `context` loads the true registers and mask, `way_out` unmaps
 * the region and then returns into `context`. Every call that we make in the stopped task
 * returns, if nobody stops it, into one of the two; the stub jumps to `way_out` when the kernel
 * tells that criu died. So there is no instant at which the task depends on us.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "remote/inject.h"

#define PAGE	     4096ull
#define ALL_SIGNALS  (~0ull)
#define RED_ZONE     128
#define SCAN_MAX     (64u << 20) /* of code that is searched for a return from a handler */
#define STORE_CHUNK  (64u << 10)
#define STORE_SCAN   (2u << 20) /* of code that is searched for one that stores a result */
#define VDSO_MAX     (64u << 10)
#define SYSCALL_STOP (SIGTRAP | 0x80)

/* Reads code of the task. Returns bytes in *ret (freed by the caller) or NULL. */
static uint8_t *read_code(struct process *p, uint64_t start, size_t size)
{
	int mem = process_mem(p);
	autofree uint8_t *code = xmalloc(size);

	if (mem < 0 || pread_all(mem, code, size, start) < 0)
		return NULL;
	return take_ptr(code);
}

static int find_call_insn(struct inject *in, const struct maps *maps)
{
	const struct mapping *vdso = maps_named(maps, "[vdso]");

	if (!vdso || vdso->end - vdso->start > VDSO_MAX)
		return refuse(EOPNOTSUPP, "pid %d: it has no vDSO to run calls through",
			      in->process->pid);
	size_t size = vdso->end - vdso->start;
	autofree uint8_t *code = read_code(in->process, vdso->start, size);
	if (!code)
		return refuse(EIO, "pid %d: its vDSO cannot be read", in->process->pid);

	if ((code[EI_CLASS] == ELFCLASS32) != in->is_compat)
		return refuse(EOPNOTSUPP, "pid %d: it is a %s program in the middle of %s code",
			      in->process->pid, in->is_compat ? "64-bit" : "32-bit",
			      in->is_compat ? "32-bit" : "64-bit");
	ssize_t at = find_call_gadget(code, size, in->is_compat, &in->site.gadget_pops);
	in->site.is_gadget = at >= 0;
	if (at < 0) {
		in->why_unprotected = "its vDSO has no call that returns";
		at = find_syscall(code, size, in->is_compat);
	}
	if (at < 0)
		return refuse(EOPNOTSUPP, "pid %d: its vDSO has no system call instruction",
			      in->process->pid);
	in->site.call_insn = vdso->start + at;
	/* That of a 32-bit task has the way back from signal handlers, too. */
	ssize_t restorer = in->is_compat ? find_sigreturn(code, size, true) : -ENOENT;
	in->site.restorer = restorer < 0 ? 0 : vdso->start + restorer;
	return 0;
}

/* Tasks nearly always use the C library that criu uses: then the place is known. */
static uint64_t restorer_as_ours(struct inject *in, const struct maps *maps)
{
	int mem = process_mem(in->process);
	uint8_t code[16];

	for (size_t i = 0; i < maps->n && in->engine->own_sigreturn.ino; i++) {
		const struct mapping *m = &maps->m[i];
		uint64_t offset = in->engine->own_sigreturn.offset - m->pgoff;

		if (m->ino != in->engine->own_sigreturn.ino || !(m->prot & PROT_EXEC) ||
		    m->dev_major != in->engine->own_sigreturn.dev_major ||
		    m->dev_minor != in->engine->own_sigreturn.dev_minor ||
		    offset >= m->end - m->start)
			continue;
		if (pread_all(mem, code, sizeof(code), m->start + offset) == 0 &&
		    find_sigreturn(code, sizeof(code), false) == 0)
			return m->start + offset;
	}
	return 0;
}

static uint64_t restorer_by_search(struct process *p, const struct maps *maps)
{
	size_t budget = SCAN_MAX;

	for (size_t i = 0; i < maps->n; i++) {
		const struct mapping *m = &maps->m[i];
		size_t size = min(m->end - m->start, (uint64_t)budget);

		if (!(m->prot & PROT_EXEC) || !(m->prot & PROT_READ) || !size || m->path[0] == '[')
			continue;
		autofree uint8_t *code = read_code(p, m->start, size);
		ssize_t at = code ? find_sigreturn(code, size, false) : -1;
		if (at >= 0)
			return m->start + at;
		budget -= size;
	}
	return 0;
}

static void find_restorer(struct inject *in, const struct maps *maps)
{
	if (in->is_compat)
		return; /* it was looked for in the vDSO */
	in->site.restorer = restorer_as_ours(in, maps);
	if (!in->site.restorer)
		in->site.restorer = restorer_by_search(in->process, maps);
}

/* In the code where handlers return to, mostly the C library. */
static void find_store(struct inject *in, const struct maps *maps)
{
	const struct mapping *m = maps_find(maps, in->site.restorer);
	int mem = process_mem(in->process);
	autofree uint8_t *code = xmalloc(STORE_CHUNK);

	if (!m || in->site.gadget_pops)
		return; /* what is popped behind the call may be where the result has to go */
	for (uint64_t at = m->start; at < min(m->end, m->start + STORE_SCAN); at += STORE_CHUNK) {
		size_t size = min(m->end - at, (uint64_t)STORE_CHUNK);
		ssize_t found = -ENOENT;

		if (pread_all(mem, code, size, at) == 0)
			found = find_store_gadget(code, size, &in->site.store_pops);
		if (found >= 0) {
			in->site.store = at + found;
			return;
		}
	}
}

int inject_find_site(struct inject *in, struct engine *e, struct process *p,
		     const struct maps *maps, bool has_shadow_stack)
{
	*in = (struct inject){ .engine = e,
			       .process = p,
			       .has_shadow_stack = has_shadow_stack,
			       .is_compat = regs_is_compat(&p->threads[0].regs) };
	if (process_mem(p) < 0)
		return -EIO;
	int rc = find_call_insn(in, maps);
	if (rc < 0)
		return rc;
	find_restorer(in, maps);
	if (!in->site.restorer)
		in->why_unprotected = "no code that returns from a signal handler was found";
	if (p->n_threads > 1 && in->site.restorer && !in->is_compat)
		find_store(in, maps);
	if (has_shadow_stack) {
		in->site.is_gadget = false;
		in->why_unprotected = "its shadow stack forbids prepared returns";
	}
	const struct mapping *stack = maps_named(maps, "[stack]");
	if (stack) {
		in->site.stack_start = stack->start;
		in->site.stack_end = stack->end;
	}
	in->site.region = maps_hole(maps, INJECT_REGION_SIZE);
	if (!in->site.region ||
	    (in->is_compat && in->site.region + INJECT_REGION_SIZE > COMPAT_END))
		return refuse(ENOMEM, "pid %d: no hole of %u KiB in its address space", p->pid,
			      INJECT_REGION_SIZE >> 10);
	return 0;
}

/*
 * Finds the places for frames at the bottom of the stack, memory that belongs to nobody: what is
 * below the leader's stack pointer (any signal handler would overwrite it), or, if that is not in
 * [stack] (goroutines, alternate stacks), pages that were never touched. What they hold is saved
 * and put back all the same. A thread with its stack pointer there is in a signal handler that
 * came in between when it was on its way back from a criu that died: its frames are needed.
 */
static void find_dead_places(struct inject *in)
{
	const uint64_t start = in->site.stack_start, size = INJECT_DEAD_PAGES * PAGE;
	uint64_t sp = regs_sp(&in->process->threads[0].regs) - RED_ZONE;
	bool is_on_stack = sp >= start && sp < in->site.stack_end;
	int places = in->process->n_threads > 1 ? 1 + INJECT_THREADS_MAX : 1;
	uint64_t entry[(1 + INJECT_THREADS_MAX) * INJECT_DEAD_PAGES];
	size_t n = places * INJECT_DEAD_PAGES;
	autoclose int fd = openat(in->process->proc_fd, "pagemap", O_RDONLY | O_CLOEXEC);

	if (!start || fd < 0 || pread_all(fd, entry, n * sizeof(*entry), start / PAGE * 8) < 0)
		return;
	in->saved = calloc(n, PAGE);
	for (int place = 0; in->saved && place < places; place++) {
		uint64_t at = start + place * size;
		bool is_dead = at + size <= (is_on_stack ? sp : in->site.stack_end);
		bool is_touched = false;

		for (size_t i = 0; i < in->process->n_threads; i++)
			is_dead = is_dead && regs_sp(&in->process->threads[i].regs) - at >= size;
		for (int i = 0; i < INJECT_DEAD_PAGES; i++)
			is_touched = is_touched || entry[place * INJECT_DEAD_PAGES + i];
		if (is_dead && is_touched)
			is_dead = is_on_stack && pread_all(process_mem(in->process),
							   in->saved + (at - start), size, at) == 0;
		if (is_dead)
			in->dead_places |= 1u << place;
	}
}

/* The highest address in a place for a frame; a signal handler may need the room below. */
static uint64_t frame_place(struct inject *in, int place, size_t size)
{
	uint64_t start = in->site.stack_start + place * INJECT_DEAD_PAGES * PAGE;

	if (!in->site.restorer || !in->site.is_gadget || !(in->dead_places >> place & 1) ||
	    size > (INJECT_DEAD_PAGES - 1) * PAGE)
		return 0;
	return (start + INJECT_DEAD_PAGES * PAGE - size) & ~15ull;
}

/* Stack pointer for a call at the gadget so that it returns into the frame. */
static uint64_t sp_into(const struct inject *in, uint64_t frame)
{
	return frame - in->site.gadget_pops;
}

/* The same for any thread; without a frame, where its own stack is free. */
static uint64_t call_sp(const struct inject *in, const struct thread *t, uint64_t frame)
{
	return frame ? sp_into(in, frame) : (regs_sp(&t->regs) - RED_ZONE) & ~15ull;
}

static int write_frames(struct inject *in)
{
	struct thread *t = &in->process->threads[0];
	size_t context_size = frame_size(&in->engine->layout, &t->xstate),
	       out_size = frame_size(&in->engine->layout, NULL);
	/* The way out is below the context: a gadget may take words off between. */
	size_t size = context_size + in->site.gadget_pops + out_size + in->site.gadget_pops;
	uint64_t at = frame_place(in, 0, size);
	const uint64_t unmap[6] = { in->site.region, INJECT_REGION_SIZE };

	if (!at) {
		if (!in->why_unprotected)
			in->why_unprotected = "the bottom of its stack is in use";
		return 0;
	}
	size = in->site.stack_start + INJECT_DEAD_PAGES * PAGE - at;
	autofree uint8_t *buf = calloc(1, size);
	if (!buf)
		return fail(ENOMEM, "pid %d: frames", in->process->pid);
	regs_fill_mark(buf, size);
	uint64_t out = at + ((in->site.gadget_pops + 15) & ~15ull);
	uint64_t context = (out + out_size + in->site.gadget_pops + 15) & ~15ull;
	if (context + context_size > at + size)
		return 0;
	struct regs alone = thread_regs_alone(t);
	struct regs leave = regs_for_call(&t->regs, in->site.call_insn, sp_into(in, context),
					  SYS_munmap, unmap);
	if (frame_build(&in->engine->layout, buf + (context - at), context, in->site.restorer,
			&alone, &t->xstate, t->mask) < 0 ||
	    frame_build(&in->engine->layout, buf + (out - at), out, in->site.restorer, &leave, NULL,
			ALL_SIGNALS) < 0) {
		in->why_unprotected = "its extended state does not fit into a frame";
		return 0;
	}
	in->dirty_start = at;
	in->dirty_end = at + size;
	int rc = pwrite_all(process_mem(in->process), buf, size, at);
	if (rc < 0)
		return fail(-rc, "pid %d: write to the bottom of its stack", in->process->pid);
	in->context = context;
	in->way_out = out;
	in->is_protected = true;
	engine_point(in->engine, "frames written");
	return 0;
}

static int to_next_call_stop(struct thread *t)
{
	if (ptrace(PTRACE_SYSCALL, t->tid, NULL, NULL) < 0)
		return fail(errno, "pid %d: continue to a system call", t->tid);
	t->is_running = true;
	return 0;
}

/*
 * Waits for the next system call stop of the thread. Other stops are passed over: signals are
 * blocked, so it is a SIGSTOP, kept for later, or news about a group stop.
 */
static int wait_call_stop(struct engine *e, struct thread *t)
{
	for (;;) {
		int status;
		int rc = engine_wait(e, t->tid, &status);

		if (rc < 0)
			return rc;
		t->is_running = false;
		if (!WIFSTOPPED(status))
			return tracee_died(t->tid, status, "criu made a call in it");
		if (status >> 16 == 0 && WSTOPSIG(status) == SYSCALL_STOP) {
			t->is_in_call = !t->is_in_call;
			return 0;
		}
		rc = tracee_check_signal(t->tid, status, "criu made a call in it");
		if (rc < 0)
			return rc;
		if (status >> 16 == 0 && WSTOPSIG(status) == SIGSTOP && t->process)
			t->process->stop_again = true;
		rc = to_next_call_stop(t);
		if (rc < 0)
			return rc;
	}
}

/* After an error between the two stops of a call. */
static int finish_call(struct engine *e, struct thread *t)
{
	int rc = t->is_in_call ? to_next_call_stop(t) : 0;

	return rc < 0 || !t->is_in_call ? rc : wait_call_stop(e, t);
}

/* Runs the call that the registers of the stopped thread are set up for. */
static int run_call(struct engine *e, struct thread *t, int64_t *ret_result)
{
	struct regs regs;

	for (int stop = 0; stop < 2; stop++) {
		int rc = to_next_call_stop(t);
		if (rc < 0)
			return rc;
		engine_point(e, "in a call");
		rc = wait_call_stop(e, t);
		if (rc < 0)
			return rc;
		engine_point(e, "at a call stop");
	}
	int rc = regs_get(t->tid, &regs);
	if (rc < 0)
		return fail(-rc, "pid %d: read registers", t->tid);
	*ret_result = regs_result(&regs);
	return 0;
}

static int set_mask(pid_t tid, uint64_t mask)
{
	if (ptrace(PTRACE_SETSIGMASK, tid, sizeof(mask), &mask) < 0)
		return fail(errno, "pid %d: set the signal mask", tid);
	return 0;
}

static int set_regs(pid_t tid, const struct regs *regs)
{
	int rc = regs_set(tid, regs);

	return rc < 0 ? fail(-rc, "pid %d: set registers", tid) : 0;
}

int tracee_call(struct engine *e, pid_t tid, const struct regs *base, uint64_t insn, uint64_t sp,
		struct thread_call *call)
{
	struct regs r = regs_for_call(base, insn, sp, call->nr, call->arg);
	struct thread blank = { .tid = tid };
	int rc = set_regs(tid, &r);

	return rc < 0 ? rc : run_call(e, &blank, &call->ret);
}

/* The task's own limits hold for the region, too. */
static const char *remedy_of(const struct thread_call *call)
{
	if (call->nr == SYS_mmap && call->ret == -EAGAIN)
		return " (it locks new memory, for which its RLIMIT_MEMLOCK leaves no room: raise "
		       "that by prlimit(1), or let it call munlockall)";
	if (call->nr == SYS_mmap && call->ret == -ENOMEM)
		return " (its RLIMIT_AS or the limit of mappings, vm.max_map_count, leaves no "
		       "room)";
	return "";
}

/*
 * A call in the leader. frame is where it returns if nobody stops it. Registers first, then the
 * mask: at no instant does the task run its own code with the wrong mask.
 */
static int leader_call(struct inject *in, uint64_t frame, const char *what,
		       struct thread_call *call)
{
	struct thread *t = &in->process->threads[0];
	struct regs r = regs_for_call(&t->regs, in->site.call_insn, call_sp(in, t, frame), call->nr,
				      call->arg);

	int rc = finish_call(in->engine, t);
	if (rc < 0)
		return rc;
	t->regs_changed = true;
	rc = set_regs(t->tid, &r);
	engine_point(in->engine, "registers set");
	if (rc == 0)
		rc = set_mask(t->tid, ALL_SIGNALS);
	engine_point(in->engine, "mask set");
	if (rc == 0)
		rc = run_call(in->engine, t, &call->ret);
	if (rc < 0)
		return rc;
	if (call->ret < 0 && call->ret > -4096)
		return fail(-call->ret, "pid %d: %s%s", t->tid, what, remedy_of(call));
	return 0;
}

static int map_here(struct inject *in, int fd)
{
	void *local = mmap(NULL, INJECT_REGION_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (local == MAP_FAILED)
		return fail(errno, "pid %d: map its region", in->process->pid);
	region_init(&in->region, in->site.region, local, INJECT_REGION_SIZE);
	return 0;
}

static int copy_descriptor(const struct process *p, int fd)
{
	int copy = copy_fd_of(p->pid, fd);

	return copy < 0 ? fail(-copy, "pid %d: copy its descriptor %d", p->pid, fd) : copy;
}

static int map_memfd(struct inject *in, int fd)
{
	struct thread_call map = {
		.nr = SYS_mmap,
		.arg = { in->site.region, INJECT_REGION_SIZE, PROT_READ | PROT_EXEC,
			 MAP_SHARED | MAP_FIXED, fd, 0 },
	};
	autoclose int copy = copy_descriptor(in->process, fd);

	if (copy < 0)
		return copy;
	if (ftruncate(copy, INJECT_REGION_SIZE) < 0)
		return fail(errno, "pid %d: make its region", in->process->pid);
	int rc = leader_call(in, in->way_out, "map the shared region again", &map);
	return rc < 0 ? rc : map_here(in, copy);
}

/*
 * Where map_files may not be opened a memfd takes the place of the region. Its descriptor is in
 * the task for some microseconds; should criu be killed just then, it stays there until an exec.
 */
static int replace_region_by_memfd(struct inject *in)
{
	/* The region is empty, and so is the name that it holds. */
	struct thread_call create = { .nr = SYS_memfd_create,
				      .arg = { in->site.region, MFD_CLOEXEC } };
	int rc = leader_call(in, in->way_out, "make a memfd for the shared region", &create);

	if (rc < 0)
		return rc;
	debug("pid %d: its region is a memfd: map_files takes CAP_CHECKPOINT_RESTORE",
	      in->process->pid);
	rc = map_memfd(in, create.ret);
	struct thread_call close = { .nr = SYS_close, .arg = { create.ret } };
	int closed = leader_call(in, in->way_out, "close the memfd of the shared region", &close);
	return rc < 0 ? rc : closed;
}

/* Maps the task's region here too, if possible without a descriptor in the task. */
static int open_region(struct inject *in)
{
	char path[64];

	snprintf(path, sizeof(path), "map_files/%lx-%lx", (long)in->site.region,
		 (long)(in->site.region + INJECT_REGION_SIZE));
	autoclose int fd = openat(in->process->proc_fd, path, O_RDWR | O_CLOEXEC);
	if (fd >= 0)
		return map_here(in, fd);
	if (errno == EPERM)
		return replace_region_by_memfd(in);
	return fail(errno, "pid %d: open /proc/%d/%s", in->process->pid, in->process->pid, path);
}

/* In this order: PR_SET_MDWE lets nothing become executable that was not. */
static int map_region(struct inject *in)
{
	struct thread_call map = {
		.nr = SYS_mmap,
		.arg = { in->site.region, INJECT_REGION_SIZE, PROT_READ | PROT_EXEC,
			 MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1ull, 0 },
	};
	struct thread_call protect = {
		.nr = SYS_mprotect,
		.arg = { in->site.region + PAGE, INJECT_REGION_SIZE - PAGE,
			 PROT_READ | PROT_WRITE },
	};
	/* Whatever goes wrong on the way: to unmap a hole does no harm. */
	in->is_mapped = true;
	int rc = leader_call(in, in->way_out, "map the shared region", &map);

	if (rc < 0)
		return rc;
	if ((uint64_t)map.ret != in->site.region)
		return refuse(EEXIST, "pid %d: the shared region was mapped elsewhere",
			      in->process->pid);
	engine_point(in->engine, "region mapped");
	rc = open_region(in);
	if (rc < 0)
		return rc;
	return leader_call(in, in->way_out, "make the shared region writable", &protect);
}

/*
 * Where the stack has no room the way out of the stub is in the region: the task finds back, but
 * keeps the region, and the calls that map and unmap it stay without protection.
 */
static uint64_t way_out_in_region(struct inject *in)
{
	struct thread *t = &in->process->threads[0];
	const struct xstate_layout *l = &in->engine->layout;
	struct regs alone = thread_regs_alone(t);
	uint8_t *room;

	if (!in->site.restorer || in->has_shadow_stack)
		return 0;
	room = region_alloc(&in->region, frame_size(l, &t->xstate));
	if (!room || frame_build(l, room, region_raddr(&in->region, room), in->site.restorer,
				 &alone, &t->xstate, t->mask) < 0)
		return 0;
	return region_raddr(&in->region, room);
}

static int start_stub(struct inject *in)
{
	struct thread *t = &in->process->threads[0];
	struct slot *s = slot_new(&in->region, in->engine);

	if (!s)
		return -ENOSPC;
	s->frame = in->way_out ? in->way_out : way_out_in_region(in);
	s->is_compat = in->is_compat;
	if (in->process->stop_signal)
		slot_keep_stopped(s, !in->process->has_seccomp);
	in->worker = (struct worker){ .engine = in->engine,
				      .region = &in->region,
				      .slot = s,
				      .tid = t->tid,
				      .stop_again = &in->process->stop_again };
	slot_watch(s, in->engine);
	engine_point(in->engine, "slot watched");
	struct regs r = regs_for_stub(&t->regs, region_stub_entry(&in->region), s->self);
	int rc = set_regs(t->tid, &r);
	if (rc < 0)
		return rc;
	engine_point(in->engine, "before the stub");
	if (ptrace(PTRACE_CONT, t->tid, NULL, NULL) < 0)
		return fail(errno, "pid %d: start the stub", t->tid);
	t->is_running = true;
	return worker_wait(&in->worker);
}

int inject_enter(struct inject *in)
{
	find_dead_places(in);
	int rc = write_frames(in);

	if (rc < 0)
		return rc;
	/* Without criu its filters are in force again: it may return, but hardly unmap anything. */
	if (in->process->has_seccomp)
		in->way_out = in->context;
	if (!in->is_protected)
		info("pid %d: should criu be killed now, it would be lost: %s", in->process->pid,
		     in->why_unprotected);
	rc = map_region(in);
	return rc < 0 ? rc : start_stub(in);
}

/* Waits for the stop that PTRACE_INTERRUPT asked for; see wait_interrupted in tree.c. */
static int await_interrupt(struct inject *in, struct thread *t)
{
	for (;;) {
		int status;
		int rc = engine_wait(in->engine, t->tid, &status);

		if (rc < 0)
			return rc;
		t->is_running = t->is_in_call = false;
		if (!WIFSTOPPED(status))
			return tracee_died(t->tid, status, "criu left it");
		if (status >> 16 == PTRACE_EVENT_STOP)
			return 0;
		if (status >> 16 == 0 && WSTOPSIG(status) == SIGSTOP)
			in->process->stop_again = true;
		if (ptrace(PTRACE_INTERRUPT, t->tid, NULL, NULL) < 0 ||
		    ptrace(PTRACE_CONT, t->tid, NULL, NULL) < 0)
			return fail(errno, "pid %d: interrupt again", t->tid);
		t->is_running = true;
	}
}

static int interrupt_thread(struct inject *in, struct thread *t)
{
	if (ptrace(PTRACE_INTERRUPT, t->tid, NULL, NULL) < 0)
		return fail(errno, "pid %d: interrupt", t->tid);
	return await_interrupt(in, t);
}

static void put_back(struct inject *in, uint64_t start, uint64_t end)
{
	if (start < end)
		(void)pwrite_all(in->process->mem_fd, in->saved + (start - in->site.stack_start),
				 end - start, start);
}

/* The first page of each place was left for signal handlers. */
static void put_thread_places_back(struct inject *in)
{
	const uint64_t size = INJECT_DEAD_PAGES * PAGE;

	for (int place = 1; in->site.stack_start + place * size < in->frames_end; place++) {
		uint64_t start = in->site.stack_start + place * size;

		if (in->dead_places >> place & 1)
			put_back(in, start + PAGE, start + size);
	}
	in->frames_end = 0;
}

/* Should one not have come back from its calls, it needs its frames. */
static bool are_threads_back(const struct inject *in)
{
	for (size_t i = 1; i < in->process->n_threads; i++)
		if (in->process->threads[i].regs_changed)
			return false;
	return true;
}

static void put_stack_back(struct inject *in)
{
	put_back(in, in->dirty_start, in->dirty_end);
	if (are_threads_back(in))
		put_thread_places_back(in);
	in->dirty_start = in->dirty_end = 0;
	free(in->saved);
	in->saved = NULL;
}

static int leave(struct inject *in)
{
	struct thread *t = &in->process->threads[0];
	int rc = 0;

	if (t->is_running) {
		rc = interrupt_thread(in, t);
		if (rc < 0)
			return rc;
		engine_point(in->engine, "stopped in the stub");
	}
	if (in->is_mapped) {
		struct thread_call unmap = { .nr = SYS_munmap,
					     .arg = { in->site.region, INJECT_REGION_SIZE } };

		rc = leader_call(in, in->context, "unmap the shared region", &unmap);
		if (rc < 0)
			return rc;
		in->is_mapped = false;
	}
	if (t->regs_changed) {
		rc = set_mask(t->tid, t->mask);
		engine_point(in->engine, "mask back");
		if (rc == 0)
			rc = set_regs(t->tid, &t->resume);
		if (rc < 0)
			return rc;
		t->regs_changed = false;
		engine_point(in->engine, "registers back");
	}
	if (in->worker.slot)
		slot_unwatch(in->worker.slot, in->engine);
	put_stack_back(in);
	return 0;
}

int inject_leave(struct inject *in)
{
	int rc = leave(in);

	/* A task that cannot be left hangs. What was refused for want of memory may work now. */
	if (rc < 0)
		rc = leave(in);
	/* Else it stands where a way back begins, and that takes the death of criu. */
	if (rc < 0 && in->is_protected)
		in->process->threads[0].regs_changed = false;
	in->is_lost = rc < 0;
	return rc;
}

void inject_done(struct inject *in)
{
	/* The kernel follows the robust list through it, if it still is on that. */
	if (in->region.local && !in->is_lost)
		(void)munmap(in->region.local, in->region.size);
	free(in->saved); /* of a task that was killed */
	*in = (struct inject){ 0 };
}

/*
 * Other threads never run code of ours and never enter the region. They run a chain of prepared
 * frames: each call returns, by way of code that stores its result, into a frame that makes the
 * next one, the last two ring `done` and wait on the bell of a slot, and behind the wait is the
 * thread's true context. So the leader may unmap the region at any instant, and should criu die,
 * the bell lets the thread go on.
 *
 * Frames make an interrupted nanosleep, poll or timed futex fail with EINTR. A thread in one of
 * these makes its calls step by step, and a frame is only its way back should criu die. So does
 * one whose program has no code that stores a result, and one of a process that was stopped: at
 * each step it stops again, and never runs on while a criu that was killed is being torn down.
 */
struct chain {
	struct inject *in;
	struct thread *thread;
	struct worker worker; /* slot with bell and done */
	uint64_t first;	      /* frame that the first call returns into; 0: no room for any */
	uint64_t results; /* int32_t for each call, in the stack: it stays when the region goes */
	bool is_stepped;
	uint8_t buf[(INJECT_DEAD_PAGES - 1) * PAGE];
};

static struct thread_call wait_call(const struct chain *c)
{
	uint64_t bell = region_raddr(&c->in->region, &c->worker.slot->bell);

	return (struct thread_call){ .nr = SYS_futex,
				     .arg = { bell, FUTEX_WAIT, c->in->engine->tid | BELL_IDLE } };
}

static struct thread_call done_call(const struct chain *c)
{
	uint64_t done = region_raddr(&c->in->region, &c->worker.slot->done);
	uint32_t op = FUTEX_OP(FUTEX_OP_SET, 1, FUTEX_OP_CMP_EQ, 0);

	return (struct thread_call){ .nr = SYS_futex,
				     .arg = { done, FUTEX_WAKE_OP, 1, 0, done, op } };
}

/* Bytes below a frame for the way through the code that stores a result. */
static size_t store_room(const struct inject *in)
{
	return sizeof(uint64_t) + in->site.store_pops;
}

/* Registers for call i of the chain, which returns into the frame at address frame. */
static struct regs regs_of_call(const struct chain *c, size_t i, const struct thread_call *call,
				uint64_t frame)
{
	struct regs r = regs_for_call(&c->thread->regs, c->in->site.call_insn,
				      frame - store_room(c->in), call->nr, call->arg);

	regs_set_store(&r, c->results + i * sizeof(int32_t));
	return r;
}

/* Into the buffer, behind its room: the frames of the calls but the first, and the true context. */
static int build_frames(struct chain *c, size_t room, const struct thread_call *calls, size_t n)
{
	struct inject *in = c->in;
	struct thread *t = c->thread;
	const struct xstate_layout *l = &in->engine->layout;
	size_t step = frame_size(l, NULL);
	uint8_t *buf = c->buf + room;
	uint64_t at = c->first;

	for (size_t i = 1; i < n; i++, buf += step, at += step) {
		struct regs r = regs_of_call(c, i, &calls[i], at + step);

		if (frame_build(l, buf, at, in->site.restorer, &r, NULL, ALL_SIGNALS) < 0)
			return -EOPNOTSUPP;
		memcpy(buf - store_room(in), &in->site.store, sizeof(in->site.store));
	}
	struct regs alone = thread_regs_alone(t);
	if (n)
		memcpy(buf - store_room(in), &in->site.store, sizeof(in->site.store));
	return frame_build(l, buf, at, in->site.restorer, &alone, &t->xstate, t->mask);
}

/* The calls that are made by frames, the wait for criu included. */
static size_t list_calls(const struct chain *c, const struct thread_call *calls, size_t n,
			 struct thread_call list[INJECT_CALLS_MAX + 2])
{
	if (c->is_stepped)
		return 0;
	memcpy(list, calls, n * sizeof(*list));
	list[n] = done_call(c);
	list[n + 1] = wait_call(c);
	return n + 2;
}

/* Without room for frames the calls are made step by step and without a way back. */
static int write_chain(struct chain *c, int place, const struct thread_call *calls, size_t n)
{
	struct inject *in = c->in;
	struct thread_call list[INJECT_CALLS_MAX + 2];
	const struct xstate_layout *l = &in->engine->layout;

	c->is_stepped = !in->site.store || in->process->stop_signal ||
			regs_need_restart_block(&c->thread->regs);
	size_t n_calls = list_calls(c, calls, n, list);
	size_t results = sizeof(int32_t) * ARRAY_SIZE(list);
	size_t room = (results + max(store_room(in), in->site.gadget_pops) + 15) & ~15ul;
	size_t size = room + n_calls * frame_size(l, NULL) + frame_size(l, &c->thread->xstate);
	uint64_t at = frame_place(in, place, size);

	c->results = at;
	c->first = at ? at + room : 0;
	regs_fill_mark(c->buf, min(size, sizeof(c->buf)));
	if (!at || build_frames(c, room, list, n_calls) < 0) {
		c->first = 0;
		c->is_stepped = true;
		return 0;
	}
	in->frames_end = in->site.stack_start + (place + 1) * INJECT_DEAD_PAGES * PAGE;
	int rc = pwrite_all(process_mem(in->process), c->buf, size, at);
	if (rc < 0)
		return fail(-rc, "pid %d: write to the bottom of the stack", c->thread->tid);
	return 0;
}

static int new_chain(struct chain *c, struct inject *in, struct thread *t)
{
	struct slot *s = slot_new(&in->region, in->engine);

	if (!s)
		return -ENOSPC;
	s->bell |= BELL_IDLE;
	c->in = in;
	c->thread = t;
	c->worker = (struct worker){ .engine = in->engine,
				     .region = &in->region,
				     .slot = s,
				     .tid = t->tid,
				     .stop_again = &in->process->stop_again };
	slot_watch(s, in->engine);
	return 0;
}

/* Registers first, then the mask, as in leader_call. */
static int set_up_thread(struct inject *in, struct thread *t, const struct regs *r)
{
	t->regs_changed = true;
	int rc = set_regs(t->tid, r);
	if (rc == 0) {
		engine_point(in->engine, "thread registers set");
		rc = set_mask(t->tid, ALL_SIGNALS);
	}
	return rc;
}

static int start_thread_call(struct chain *c, const struct thread_call *call)
{
	struct inject *in = c->in;
	struct thread *t = c->thread;
	struct regs r = regs_for_call(&t->regs, in->site.call_insn, call_sp(in, t, c->first),
				      call->nr, call->arg);
	int rc = set_up_thread(in, t, &r);

	if (rc == 0)
		rc = to_next_call_stop(t);
	engine_point(in->engine, "thread in a call");
	return rc;
}

/* From the stop before the call to that behind it; its result is in the registers then. */
static int end_thread_call(struct inject *in, struct thread *t, struct thread_call *call)
{
	struct regs regs;
	int rc = wait_call_stop(in->engine, t);

	if (rc < 0)
		return rc;
	rc = regs_get(t->tid, &regs);
	if (rc < 0)
		return fail(-rc, "pid %d: read registers", t->tid);
	call->ret = regs_result(&regs);
	return 0;
}

static int go_on_to_exit(struct inject *in, struct thread *t)
{
	int rc = wait_call_stop(in->engine, t);

	return rc < 0 ? rc : to_next_call_stop(t);
}

/* One call in all that go step by step; each step for all, so that they run side by side. */
static int call_in_step(struct chain *c, struct thread_calls *b, size_t n, size_t i)
{
	int rc = 0;

	for (size_t k = 0; k < n && rc == 0; k++)
		if (c[k].is_stepped)
			rc = start_thread_call(&c[k], &b[k].calls[i]);
	for (size_t k = 0; k < n && rc == 0; k++)
		if (c[k].is_stepped)
			rc = go_on_to_exit(c->in, b[k].thread);
	for (size_t k = 0; k < n && rc == 0; k++)
		if (c[k].is_stepped)
			rc = end_thread_call(c->in, b[k].thread, &b[k].calls[i]);
	return rc;
}

static int let_go_on(struct thread *t)
{
	if (ptrace(PTRACE_CONT, t->tid, NULL, NULL) < 0)
		return fail(errno, "pid %d: continue", t->tid);
	t->is_running = true;
	return 0;
}

static int start_chain(struct chain *c, const struct thread_call *calls)
{
	struct regs r = regs_of_call(c, 0, &calls[0], c->first);
	int rc = set_up_thread(c->in, c->thread, &r);

	if (rc == 0)
		rc = let_go_on(c->thread);
	engine_point(c->in->engine, "thread in its chain");
	return rc;
}

static int take_results(const struct chain *c, struct thread_call *calls, size_t n)
{
	int32_t results[INJECT_CALLS_MAX];
	int rc = pread_all(process_mem(c->in->process), results, n * sizeof(*results), c->results);

	if (rc < 0)
		return fail(-rc, "pid %d: read the results of its calls", c->thread->tid);
	for (size_t i = 0; i < n; i++)
		calls[i].ret = results[i];
	return 0;
}

/* Lets the threads run their chains up to the wait, and stops them there. */
static int run_chains(struct chain *c, struct thread_calls *b, size_t n_threads, size_t n)
{
	int rc = 0;

	for (size_t k = 0; k < n_threads && rc == 0; k++)
		rc = c[k].is_stepped ? 0 : start_chain(&c[k], b[k].calls);
	for (size_t k = 0; k < n_threads && rc == 0; k++)
		rc = c[k].is_stepped ? 0 : worker_wait(&c[k].worker);
	for (size_t k = 0; k < n_threads && rc == 0; k++)
		if (!c[k].is_stepped && ptrace(PTRACE_INTERRUPT, c[k].thread->tid, NULL, NULL) < 0)
			rc = fail(errno, "pid %d: interrupt", c[k].thread->tid);
	for (size_t k = 0; k < n_threads && rc == 0; k++)
		rc = c[k].is_stepped ? 0 : await_interrupt(c->in, c[k].thread);
	for (size_t k = 0; k < n_threads && rc == 0; k++)
		rc = c[k].is_stepped ? 0 : take_results(&c[k], b[k].calls, n);
	return rc;
}

/* The frames of a chain reset the extended state, which only the last one would load again. */
static int put_thread_back(struct chain *c)
{
	struct thread *t = c->thread;
	int rc = c->is_stepped ? 0 : xstate_set(t->tid, t->xstate.data, t->xstate.size);

	if (rc < 0)
		return fail(-rc, "pid %d: set extended registers", t->tid);
	rc = set_mask(t->tid, t->mask);
	engine_point(c->in->engine, "thread mask back");
	if (rc == 0)
		rc = set_regs(t->tid, &t->resume);
	t->regs_changed = rc < 0;
	return rc;
}

/*
 * After an error each is somewhere on its way. None may wait on a bell that nobody watches, nor
 * go on without its extended state.
 */
static void call_back(struct chain *c, size_t n)
{
	for (size_t k = 0; k < n; k++) {
		struct thread *t = c[k].thread;

		if ((t->is_running ? interrupt_thread(c->in, t) : finish_call(c->in->engine, t)) <
		    0)
			warn("pid %d: it could not be stopped again", t->tid);
		if (t->regs_changed && put_thread_back(&c[k]) < 0)
			warn("pid %d: it could not be left as it was", t->tid);
	}
}

static int make_calls(struct chain *c, struct thread_calls *batch, size_t n_threads, size_t n)
{
	int rc = 0;

	for (size_t k = 0; k < n_threads && rc == 0; k++)
		rc = write_chain(&c[k], 1 + k, batch[k].calls, n);
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = call_in_step(c, batch, n_threads, i);
	if (rc == 0)
		rc = run_chains(c, batch, n_threads, n);
	for (size_t k = 0; k < n_threads && rc == 0; k++)
		rc = put_thread_back(&c[k]);
	return rc;
}

int inject_thread_calls(struct inject *in, struct thread_calls *batch, size_t n_threads, size_t n)
{
	autofree struct chain *chains = xmalloc(INJECT_THREADS_MAX * sizeof(*chains));
	size_t mark = in->region.used, made = 0;
	int rc = 0;

	while (made < n_threads && rc == 0) {
		rc = new_chain(&chains[made], in, batch[made].thread);
		made += rc == 0;
	}
	if (rc == 0)
		rc = make_calls(chains, batch, n_threads, n);
	if (rc < 0)
		call_back(chains, made);
	while (made > 0)
		slot_unwatch(chains[--made].worker.slot, in->engine);
	in->region.used = mark;
	if (rc == 0)
		put_thread_places_back(in);
	return rc;
}

int inject_pause(struct inject *in)
{
	return interrupt_thread(in, &in->process->threads[0]);
}

int inject_go_on(struct inject *in)
{
	return let_go_on(&in->process->threads[0]);
}

const uint8_t *inject_saved_page(const struct inject *in, uint64_t addr)
{
	if (addr < (in->dirty_start & ~(PAGE - 1)) || addr >= in->dirty_end)
		return NULL;
	return in->saved + (addr - in->site.stack_start);
}

int inject_clean_copy(const struct inject *in, int mem)
{
	uint64_t start = in->dirty_start, size = in->dirty_end - start;
	int rc =
		size ? pwrite_all(mem, in->saved + (start - in->site.stack_start), size, start) : 0;

	return rc < 0 ? fail(-rc, "pid %d: clean the copy of its stack", in->process->pid) : 0;
}
