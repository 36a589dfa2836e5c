/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * x86-64 registers in images: general ones by name, extended state cut into its XSAVE
 * components (Intel SDM volume 1, chapter 13; standard format).
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/own.h"
#include "image/image.h"
#include "remote/arch/x86_64/segments.h"
#include "remote/arch/x86_64/xsave.h"
#include "task/registers.h"

/* XSAVE components that images have a field for. */
struct component {
	unsigned bit;
	const char *name;
	size_t n_offset, data_offset; /* of the repeated field in UserX86XsaveEntry */
	size_t elem_size, count;
};

#define REPEATED(member)                                                                           \
	offsetof(UserX86XsaveEntry, n_##member), offsetof(UserX86XsaveEntry, member)

/* clang-format off */
static const struct component components[] = {
	{ 2, "AVX",		      REPEATED(ymmh_space),   4, 64 },
	{ 3, "MPX bound registers",   REPEATED(bndreg_state), 8, 8 },
	{ 4, "MPX bound configuration", REPEATED(bndcsr_state), 8, 8 },
	{ 5, "AVX-512 mask registers", REPEATED(opmask_reg),  8, 8 },
	{ 6, "AVX-512 upper halves",  REPEATED(zmm_upper),    8, 64 },
	{ 7, "AVX-512 upper registers", REPEATED(hi16_zmm),   8, 128 },
	{ XSTATE_PKRU, "protection keys",	      REPEATED(pkru),	      4, 2 },
};
/* clang-format on */

static bool component_place(const struct xstate_layout *l, unsigned bit, size_t area,
			    size_t *ret_offset, size_t *ret_size)
{
	if (!(l->features >> bit & 1) || (size_t)l->offset[bit] + l->size[bit] > area)
		return false;
	*ret_offset = l->offset[bit];
	*ret_size = l->size[bit];
	return true;
}

static void put_u32s(struct arena *a, uint32_t **field, size_t *n, const uint32_t *from,
		     size_t count)
{
	*field = arena_memdup(a, from, count * sizeof(*from));
	*n = count;
}

static UserX86XsaveEntry *xsave_to_image(struct arena *a, const struct xstate_layout *l,
					 const struct xstate *x)
{
	UserX86XsaveEntry *e = MESSAGE(a, UserX86XsaveEntry, user_x86_xsave_entry);

	memcpy(&e->xstate_bv, x->data + XSTATE_BV_AT, sizeof(e->xstate_bv));
	for (size_t i = 0; i < ARRAY_SIZE(components); i++) {
		const struct component *c = &components[i];
		size_t offset, size, bytes = c->elem_size * c->count;

		if (!component_place(l, c->bit, x->size, &offset, &size))
			continue;
		uint8_t *data = arena_alloc(a, bytes);
		if (e->xstate_bv >> c->bit & 1)
			memcpy(data, x->data + offset, min(bytes, size));
		*(size_t *)((char *)e + c->n_offset) = c->count;
		*(void **)((char *)e + c->data_offset) = data;
	}
	return e;
}

static UserX86FpregsEntry *fpregs_to_image(struct arena *a, const struct xstate_layout *l,
					   const struct xstate *x)
{
	UserX86FpregsEntry *e = MESSAGE(a, UserX86FpregsEntry, user_x86_fpregs_entry);
	struct fxsave f = { .cwd = FCW_INIT, .mxcsr = MXCSR_INIT };
	struct fxsave stored;
	uint64_t bv = X87_AND_SSE;

	memcpy(&stored, x->data, sizeof(stored));
	if (x->size >= HEADER_END) {
		memcpy(&bv, x->data + XSTATE_BV_AT, sizeof(bv));
		e->xsave = xsave_to_image(a, l, x);
		/* Readers load the legacy area whatever the bits say: it is filled in here. */
		e->xsave->xstate_bv |= X87_AND_SSE;
	}
	f.mxcsr = stored.mxcsr;
	f.mxcsr_mask = stored.mxcsr_mask;
	if (bv & 1) {
		memcpy(&f, &stored, offsetof(struct fxsave, mxcsr));
		memcpy(f.st, stored.st, sizeof(f.st));
	}
	if (bv & 2)
		memcpy(f.xmm, stored.xmm, sizeof(f.xmm));
	e->cwd = f.cwd;
	e->swd = f.swd;
	e->twd = f.twd;
	e->fop = f.fop;
	e->rip = f.rip;
	e->rdp = f.rdp;
	e->mxcsr = f.mxcsr;
	e->mxcsr_mask = f.mxcsr_mask;
	put_u32s(a, &e->st_space, &e->n_st_space, f.st, ARRAY_SIZE(f.st));
	put_u32s(a, &e->xmm_space, &e->n_xmm_space, f.xmm, ARRAY_SIZE(f.xmm));
	e->padding = arena_array(a, uint32_t, 24);
	e->n_padding = 24;
	return e;
}

/* General registers: the same names in the kernel's structure and the message, nearly. */
/* clang-format off */
#define FOR_ALL_REGS(X)                                                                        \
	X(r15, r15) X(r14, r14) X(r13, r13) X(r12, r12) X(bp, rbp) X(bx, rbx) X(r11, r11)      \
	X(r10, r10) X(r9, r9) X(r8, r8) X(ax, rax) X(cx, rcx) X(dx, rdx) X(si, rsi)            \
	X(di, rdi) X(orig_ax, orig_rax) X(ip, rip) X(cs, cs) X(flags, eflags) X(sp, rsp)       \
	X(ss, ss) X(fs_base, fs_base) X(gs_base, gs_base) X(ds, ds) X(es, es) X(fs, fs) X(gs, gs)
/* clang-format on */

static UserDescT **tls_to_image(struct arena *a, const struct tls *tls)
{
	UserDescT **list = arena_array(a, UserDescT *, TLS_SEGMENTS);

	for (size_t i = 0; i < TLS_SEGMENTS; i++) {
		const struct user_desc *d = &tls->segment[i];
		UserDescT *e = list[i] = MESSAGE(a, UserDescT, user_desc_t);

		e->entry_number = d->entry_number;
		e->base_addr = d->base_addr;
		e->limit = d->limit;
		e->seg_32bit = d->seg_32bit;
		e->contents_h = d->contents & 2;
		e->contents_l = d->contents & 1;
		e->read_exec_only = d->read_exec_only;
		e->limit_in_pages = d->limit_in_pages;
		e->seg_not_present = d->seg_not_present;
		e->usable = d->useable;
	}
	return list;
}

static struct user_desc segment_from_image(const UserDescT *e)
{
	return (struct user_desc){
		.entry_number = e->entry_number,
		.base_addr = e->base_addr,
		.limit = e->limit,
		.seg_32bit = e->seg_32bit,
		.contents = (e->contents_h ? 2 : 0) | (e->contents_l ? 1 : 0),
		.read_exec_only = e->read_exec_only,
		.limit_in_pages = e->limit_in_pages,
		.seg_not_present = e->seg_not_present,
		.useable = e->usable,
	};
}

#define IS_LOCAL 4u /* of a selector: its segment is in the local descriptor table */

/* An i386 has fewer registers, and its segments say where they start. */
static void strip_to_i386(UserX86RegsEntry *e)
{
	e->mode = USER_X86_REGS_MODE__COMPAT;
	e->r8 = e->r9 = e->r10 = e->r11 = e->r12 = e->r13 = e->r14 = e->r15 = 0;
	e->fs_base = e->fs & IS_LOCAL ? e->fs_base : 0;
	e->gs_base = e->gs & IS_LOCAL ? e->gs_base : 0;
}

void registers_to_core(struct arena *a, const struct xstate_layout *l, CoreEntry *core,
		       const struct regs *regs, const struct xstate *x, uint64_t clear_tid_addr,
		       const struct tls *tls)
{
	ThreadInfoX86 *info = MESSAGE(a, ThreadInfoX86, thread_info_x86);
	UserX86RegsEntry *e = MESSAGE(a, UserX86RegsEntry, user_x86_regs_entry);

#define TO_IMAGE(field, reg) e->field = regs->gp.reg;
	FOR_ALL_REGS(TO_IMAGE)
#undef TO_IMAGE
	e->has_mode = true;
	e->mode = USER_X86_REGS_MODE__NATIVE;
	if (regs_is_compat(regs))
		strip_to_i386(e);
	if (tls) {
		info->n_tls = TLS_SEGMENTS;
		info->tls = tls_to_image(a, tls);
	}
	info->clear_tid_addr = clear_tid_addr;
	info->gpregs = e;
	info->fpregs = fpregs_to_image(a, l, x);
	core->mtype = REGISTERS_MACHINE;
	core->thread_info = info;
}

static const char *component_name(uint64_t missing)
{
	for (size_t i = 0; i < ARRAY_SIZE(components); i++)
		if (missing >> components[i].bit & 1)
			return components[i].name;
	return "an extended register set";
}

#define PKRU_INIT 0x55555554u /* with which Linux starts programs: no key but 0 */

static bool is_initial(const struct component *c, const void *data)
{
	const uint32_t *words = data;

	if (c->bit == XSTATE_PKRU && words[0] == PKRU_INIT)
		return true;
	for (size_t i = 0; i < c->elem_size * c->count / sizeof(*words); i++)
		if (words[i])
			return false;
	return true;
}

/*
 * Components that hold something. A CPU may say that one is in use though it holds what it starts
 * with; a CPU that lacks it is as good then.
 */
static uint64_t used_components(const UserX86XsaveEntry *e)
{
	uint64_t used = e->xstate_bv;

	for (size_t i = 0; i < ARRAY_SIZE(components); i++) {
		const struct component *c = &components[i];

		if (used >> c->bit & 1 &&
		    is_initial(c, *(void *const *)((const char *)e + c->data_offset)))
			used &= ~(1ull << c->bit);
	}
	return used;
}

/* Every field of an image has to have the length that the CPU's area has. */
static int check_lengths(const UserX86FpregsEntry *f, const char *who)
{
	if (f->n_st_space != 32 || f->n_xmm_space != 64)
		return refuse(EINVAL, "%s: its floating-point registers have a wrong length", who);
	if (!f->xsave)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(components); i++) {
		size_t n = *(size_t *)((char *)f->xsave + components[i].n_offset);

		if (n && n != components[i].count)
			return refuse(EINVAL, "%s: its %s have a wrong length", who,
				      components[i].name);
		if (!n && f->xsave->xstate_bv >> components[i].bit & 1)
			return refuse(EINVAL, "%s: its %s are missing", who, components[i].name);
	}
	return 0;
}

bool registers_are_compat(const CoreEntry *core)
{
	const ThreadInfoX86 *info = core->thread_info; /* NULL in images of other machines */

	return info && info->gpregs->has_mode && info->gpregs->mode == USER_X86_REGS_MODE__COMPAT;
}

/* The kernel's own, one of thread-local storage, or a local one: with another no task can run. */
static bool is_stack_segment(const ThreadInfoX86 *info)
{
	uint64_t ss = info->gpregs->ss;

	if (ss == USER_DS || (ss & IS_LOCAL && (ss & USER_RPL) == USER_RPL))
		return true;
	for (size_t i = 0; i < info->n_tls; i++)
		if (ss == ((uint64_t)info->tls[i]->entry_number << 3 | USER_RPL))
			return true;
	return false;
}

static int check_mode(const CoreEntry *core, const char *who)
{
	const ThreadInfoX86 *info = core->thread_info;
	struct regs regs;

	if (info->n_tls && info->n_tls != TLS_SEGMENTS)
		return refuse(EINVAL, "%s: it has %zu segments for thread-local storage, not %d",
			      who, info->n_tls, TLS_SEGMENTS);
	if (!is_stack_segment(info))
		return refuse(EINVAL, "%s: its stack segment (%#lx) is none of a program", who,
			      (long)info->gpregs->ss);
	registers_from_core(core, &regs);
	if (regs_is_compat(&regs) != registers_are_compat(core))
		return refuse(EINVAL, "%s: its code segment (%#lx) is not that of a %s program",
			      who, (long)info->gpregs->cs,
			      registers_are_compat(core) ? "32-bit" : "64-bit");
	return 0;
}

int registers_check(const struct xstate_layout *l, const CoreEntry *core, const char *who)
{
	if (core->mtype != REGISTERS_MACHINE)
		return refuse(ENOEXEC, "%s: the image is of another machine (type %d, here %d)",
			      who, core->mtype, REGISTERS_MACHINE);
	if (!core->thread_info)
		return refuse(EINVAL, "%s: its registers are missing", who);
	const ThreadInfoX86 *info = core->thread_info;
	int rc = check_mode(core, who);
	if (rc < 0)
		return rc;
	rc = check_lengths(info->fpregs, who);
	if (rc < 0 || !info->fpregs->xsave)
		return rc;
	uint64_t missing = used_components(info->fpregs->xsave) & ~l->features;
	if (missing)
		return refuse(ENOEXEC, "%s: it uses %s, which this CPU lacks (XSAVE features %#lx)",
			      who, component_name(missing), (long)missing);
	return 0;
}

/* By a selector: index, table and privilege. */
static uint64_t segment_base(const ThreadInfoX86 *info, uint64_t selector, uint64_t local_base)
{
	if (selector & IS_LOCAL)
		return local_base;
	for (size_t i = 0; i < info->n_tls; i++)
		if (info->tls[i]->entry_number == selector >> 3)
			return info->tls[i]->base_addr;
	return 0;
}

void registers_from_core(const CoreEntry *core, struct regs *ret)
{
	const UserX86RegsEntry *e = core->thread_info->gpregs;

	memset(ret, 0, sizeof(*ret));
#define FROM_IMAGE(field, reg) ret->gp.reg = e->field;
	FOR_ALL_REGS(FROM_IMAGE)
#undef FROM_IMAGE
	ret->gp.orig_rax = -1;
	if (registers_are_compat(core)) {
		ret->gp.fs_base = segment_base(core->thread_info, e->fs, e->fs_base);
		ret->gp.gs_base = segment_base(core->thread_info, e->gs, e->gs_base);
	}
}

int registers_set_tls(const CoreEntry *core, pid_t tid)
{
	const ThreadInfoX86 *info = core->thread_info;
	struct tls tls;

	if (!info->n_tls)
		return 0;
	for (size_t i = 0; i < TLS_SEGMENTS; i++)
		tls.segment[i] = segment_from_image(info->tls[i]);
	int rc = tls_set(tid, &tls);
	return rc < 0 ? fail(-rc, "pid %d: set its segments for thread-local storage", tid) : 0;
}

int registers_xstate_from_core(const struct xstate_layout *l, const CoreEntry *core, uint8_t *x,
			       size_t size)
{
	const UserX86FpregsEntry *e = core->thread_info->fpregs;
	struct fxsave f = {
		.cwd = e->cwd,
		.swd = e->swd,
		.twd = e->twd,
		.fop = e->fop,
		.rip = e->rip,
		.rdp = e->rdp,
		.mxcsr = e->mxcsr,
		.mxcsr_mask = e->mxcsr_mask,
	};

	if (size < sizeof(f))
		return -EINVAL;
	memcpy(f.st, e->st_space, sizeof(f.st));
	memcpy(f.xmm, e->xmm_space, sizeof(f.xmm));
	memcpy(f.software, x + offsetof(struct fxsave, software), sizeof(f.software));
	memset(x, 0, size);
	memcpy(x, &f, sizeof(f));
	if (size < HEADER_END)
		return 0;
	uint64_t bv = X87_AND_SSE | (e->xsave ? e->xsave->xstate_bv & l->features : 0);
	memcpy(x + XSTATE_BV_AT, &bv, sizeof(bv));
	for (size_t i = 0; e->xsave && i < ARRAY_SIZE(components); i++) {
		const struct component *c = &components[i];
		const void *data = *(void **)((char *)e->xsave + c->data_offset);
		size_t offset, len;

		if (!(bv >> c->bit & 1))
			continue;
		if (!component_place(l, c->bit, size, &offset, &len))
			return -EINVAL;
		memcpy(x + offset, data, min(len, c->elem_size * c->count));
	}
	return 0;
}

uint64_t registers_clear_tid_addr(const CoreEntry *core)
{
	return core->thread_info->clear_tid_addr;
}
