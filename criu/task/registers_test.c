/* SPDX-License-Identifier: GPL-2.0-only */
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/test.h"
#include "image/image.h"
#include "task/registers.h"

/* The extended state of a real child that has used its vector registers. */
static struct xstate real_xstate(struct arena *a)
{
	struct xstate x = { .data = arena_alloc(a, XSTATE_MAX) };
	int status;
	pid_t pid = ASSERT_OK(fork());

	if (pid == 0) {
		double d[2] = { 1.5, -2.25 };

		__asm__ volatile("movupd %0, %%xmm7\n\tfldl %0" : : "m"(d));
		for (;;)
			pause();
	}
	ASSERT_OK(ptrace(PTRACE_SEIZE, pid, NULL, NULL));
	usleep(1000);
	ASSERT_OK(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL));
	ASSERT_OK(waitpid(pid, &status, __WALL));
	x.size = ASSERT_OK(xstate_get(pid, x.data));
	ASSERT_OK(kill(pid, SIGKILL));
	ASSERT_OK(waitpid(pid, &status, __WALL));
	return x;
}

static CoreEntry *make_core(struct arena *a, struct xstate_layout *l, struct xstate *x)
{
	CoreEntry *core = MESSAGE(a, CoreEntry, core_entry);
	struct regs regs = { 0 };

	regs.gp.rip = 0x1234;
	regs.gp.ss = 0x2b;
	regs.gp.r15 = ~0ull;
	regs.gp.fs_base = 0x7f0000000000;
	xstate_layout_read(l);
	*x = real_xstate(a);
	registers_to_core(a, l, core, &regs, x, 0x4711, NULL);
	return core;
}

TEST(registers, all_come_back_from_the_image)
{
	struct arena a = { 0 };
	struct xstate_layout l;
	struct xstate x;
	struct regs regs;
	CoreEntry *core = make_core(&a, &l, &x);
	uint8_t back[XSTATE_MAX];

	ASSERT_OK(registers_check(&l, core, "pid 1"));
	registers_from_core(core, &regs);
	ASSERT_EQ(regs.gp.rip, 0x1234);
	ASSERT_EQ(regs.gp.r15, ~0ull);
	ASSERT_EQ(regs.gp.fs_base, 0x7f0000000000);
	ASSERT_EQ(registers_clear_tid_addr(core), 0x4711);
	memcpy(back, x.data, x.size);
	ASSERT_OK(registers_xstate_from_core(&l, core, back, x.size));
	/* x87 and SSE registers, and what is behind the header, component by component */
	ASSERT(!memcmp(back + 32, x.data + 32, 416 - 32));
	for (int i = 2; i < 20; i++)
		if (x.data[512] >> i & 1 && l.size[i])
			ASSERT(!memcmp(back + l.offset[i], x.data + l.offset[i], l.size[i]));
	arena_done(&a);
}

TEST(registers, a_cpu_without_a_feature_of_the_image_is_named)
{
	struct arena a = { 0 };
	struct xstate_layout l;
	struct xstate x;
	CoreEntry *core = make_core(&a, &l, &x);

	core->thread_info->fpregs->xsave->xstate_bv |= 1ull << 40;
	ASSERT_EQ(registers_check(&l, core, "pid 1"), -ENOEXEC);
	ASSERT(strstr(log_first_error(), "this CPU lacks"));
	log_clear_first_error();
	UserX86XsaveEntry *xsave = core->thread_info->fpregs->xsave;
	uint32_t ymmh[64] = { [63] = 1 };
	xsave->xstate_bv = 7;
	xsave->ymmh_space = ymmh;
	xsave->n_ymmh_space = 64;
	l.features = 3;
	ASSERT_EQ(registers_check(&l, core, "pid 1"), -ENOEXEC);
	ASSERT(strstr(log_first_error(), "AVX"));
	arena_done(&a);
}

/* As the bit of AVX after VZEROALL on some CPUs, and that of protection keys always. */
TEST(registers, a_component_in_its_first_state_can_be_missing)
{
	struct arena a = { 0 };
	struct xstate_layout l;
	struct xstate x;
	CoreEntry *core = make_core(&a, &l, &x);
	UserX86XsaveEntry *xsave = core->thread_info->fpregs->xsave;
	uint32_t ymmh[64] = { 0 }, pkru[2] = { 0x55555554 };
	uint8_t back[XSTATE_MAX];
	uint64_t bv;

	xsave->xstate_bv = 7 | 1 << 9;
	xsave->ymmh_space = ymmh;
	xsave->n_ymmh_space = 64;
	xsave->pkru = pkru;
	xsave->n_pkru = 2;
	l.features = 3;
	ASSERT_OK(registers_check(&l, core, "pid 1"));
	memcpy(back, x.data, x.size);
	ASSERT_OK(registers_xstate_from_core(&l, core, back, x.size));
	memcpy(&bv, back + 512, sizeof(bv));
	ASSERT_EQ(bv, 3);
	pkru[0] = 0;
	ASSERT_OK(registers_check(&l, core, "pid 1"));
	pkru[0] = 0x55555544; /* a key is in use */
	ASSERT_EQ(registers_check(&l, core, "pid 1"), -ENOEXEC);
	ASSERT(strstr(log_first_error(), "protection keys"));
	arena_done(&a);
}

static CoreEntry *make_i386_core(struct arena *a, struct xstate_layout *l)
{
	CoreEntry *core = MESSAGE(a, CoreEntry, core_entry);
	struct regs regs = {
		.gp = { .cs = 0x23, .ss = 0x2b, .gs = 0x63, .r15 = 1, .gs_base = 0x1111 }
	};
	struct tls tls = { .segment = { { .entry_number = 12,
					  .base_addr = 0xf7c4b000,
					  .limit = 0xfffff,
					  .seg_32bit = 1,
					  .contents = 2,
					  .limit_in_pages = 1,
					  .useable = 1 },
					{ .entry_number = 13, .read_exec_only = 1 },
					{ .entry_number = 14, .seg_not_present = 1 } } };
	struct xstate x = real_xstate(a);

	xstate_layout_read(l);
	registers_to_core(a, l, core, &regs, &x, 0, &tls);
	return core;
}

TEST(registers, of_an_i386_have_the_base_of_their_segment)
{
	struct arena a = { 0 };
	struct xstate_layout l;
	CoreEntry *core = make_i386_core(&a, &l);
	const UserDescT *e = core->thread_info->tls[0];
	struct regs regs;

	ASSERT(registers_are_compat(core));
	ASSERT_EQ(core->thread_info->gpregs->r15, 0);
	ASSERT_EQ(core->thread_info->gpregs->gs_base, 0);
	ASSERT(e->contents_h && !e->contents_l && e->usable && !e->read_exec_only);
	registers_from_core(core, &regs);
	ASSERT(regs_is_compat(&regs));
	ASSERT_EQ(regs.gp.gs_base, 0xf7c4b000);
	ASSERT_EQ(regs.gp.fs_base, 0);
	arena_done(&a);
}

TEST(registers, of_an_i386_that_contradict_themselves_are_refused)
{
	struct arena a = { 0 };
	struct xstate_layout l;
	CoreEntry *core = make_i386_core(&a, &l);

	core->thread_info->gpregs->cs = 0x33;
	ASSERT_EQ(registers_check(&l, core, "pid 1"), -EINVAL);
	ASSERT(strstr(log_first_error(), "code segment"));
	core->thread_info->gpregs->cs = 0x23;
	core->thread_info->n_tls = 2;
	ASSERT_EQ(registers_check(&l, core, "pid 1"), -EINVAL);
	core->thread_info->n_tls = TLS_SEGMENTS;
	core->thread_info->gpregs->mode = USER_X86_REGS_MODE__NATIVE;
	ASSERT_EQ(registers_check(&l, core, "pid 1"), -EINVAL);
	arena_done(&a);
}

TEST(registers, with_a_stack_segment_that_no_task_can_run_on_are_refused)
{
	struct arena a = { 0 };
	struct xstate_layout l;
	CoreEntry *core = make_i386_core(&a, &l);
	UserX86RegsEntry *e = core->thread_info->gpregs;

	e->ss = 0x6b; /* the kernel's second one of thread-local storage */
	ASSERT_EQ(registers_check(&l, core, "pid 1"), 0);
	e->ss = 0x2f; /* a local one */
	ASSERT_EQ(registers_check(&l, core, "pid 1"), 0);
	e->ss = 0x7b;
	ASSERT_EQ(registers_check(&l, core, "pid 1"), -EINVAL);
	ASSERT(strstr(log_first_error(), "stack segment (0x7b)"));
	e->ss = 0;
	ASSERT_EQ(registers_check(&l, core, "pid 1"), -EINVAL);
	arena_done(&a);
}

TEST(registers, fields_of_a_wrong_length_are_refused)
{
	struct arena a = { 0 };
	struct xstate_layout l;
	struct xstate x;
	CoreEntry *core = make_core(&a, &l, &x);

	core->thread_info->fpregs->n_xmm_space--;
	ASSERT_EQ(registers_check(&l, core, "pid 1"), -EINVAL);
	core->thread_info->fpregs->n_xmm_space++;
	core->thread_info->fpregs->xsave->n_ymmh_space = 1;
	ASSERT_EQ(registers_check(&l, core, "pid 1"), -EINVAL);
	core->thread_info->fpregs->xsave->n_ymmh_space = 0;
	core->thread_info->fpregs->xsave->xstate_bv = 4;
	ASSERT_EQ(registers_check(&l, core, "pid 1"), -EINVAL);
	arena_done(&a);
}

TEST(registers, another_machine_is_refused)
{
	struct arena a = { 0 };
	struct xstate_layout l;
	struct xstate x;
	CoreEntry *core = make_core(&a, &l, &x);

	core->mtype = CORE_ENTRY__MARCH__AARCH64;
	ASSERT_EQ(registers_check(&l, core, "pid 1"), -ENOEXEC);
	core->mtype = REGISTERS_MACHINE;
	core->thread_info = NULL;
	ASSERT(!registers_are_compat(core));
	ASSERT_EQ(registers_check(&l, core, "pid 1"), -EINVAL);
	arena_done(&a);
}
