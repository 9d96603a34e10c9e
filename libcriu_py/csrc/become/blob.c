/*
 * All of this file is in a section of its own, of whole pages. It has no constants: a string would be elsewhere, and so
 * would be a jump table. It uses general registers only, because it has no need of others.
 */
#include "become/blob.h"

#ifdef __x86_64__

#include <asm/prctl.h>
#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "become/reader.h"

#pragma GCC target("general-regs-only")
#ifndef __clang__
#pragma GCC optimize("no-tree-loop-distribute-patterns", "no-jump-tables")
#endif

#define BLOB __attribute__((section("lcp_blob"), no_stack_protector))
#define MOST_AT_ONCE ((uint64_t)1 << 30)
#define GUARD_INSTALL 102 /* MADV_GUARD_INSTALL of Linux 6.13 */
#define FAILED 125
#define NSIGNALS 64

struct blob_action {
	uint64_t handler, flags, restorer, mask; /* struct kernel_sigaction */
};

/* The section ends with whole pages, and what it knows follows where it is moved to. */
__asm__(".pushsection lcp_blob, 1, \"ax\", @progbits\n"
	".balign 4096, 0xcc\n"
	".globl lcp_blob_end\n"
	".hidden lcp_blob_end\n"
	"lcp_blob_end:\n"
	".Lblob_end:\n"
	".popsection\n");

/* ---- system calls ------------------------------------------------------------ */

static inline __attribute__((always_inline)) long call6(long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
							 uint64_t e, uint64_t f)
{
	register uint64_t r10 __asm__("r10") = d;
	register uint64_t r8 __asm__("r8") = e;
	register uint64_t r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall" : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return result;
}

#define call1(number, a) call6(number, (uint64_t)(a), 0, 0, 0, 0, 0)
#define call2(number, a, b) call6(number, (uint64_t)(a), (uint64_t)(b), 0, 0, 0, 0)
#define call3(number, a, b, c) call6(number, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), 0, 0, 0)
#define call4(number, a, b, c, d) call6(number, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d), 0, 0)

/* ---- the conventional start --------------------------------------------------- */

static inline __attribute__((always_inline)) struct blob_context *own_context(void)
{
	struct blob_context *context;

	__asm__("lea .Lblob_end(%%rip), %0" : "=r"(context));
	return context;
}

static BLOB char *put(char *to, const char *end, const char *text)
{
	while (*text && to < end)
		*to++ = *text++;
	return to;
}

static BLOB char *put_number(char *to, unsigned long number)
{
	char digits[24], *at = digits + sizeof(digits);

	do
		*--at = (char)('0' + number % 10);
	while (number /= 10);
	while (at < digits + sizeof(digits))
		*to++ = *at++;
	return to;
}

/* Write "first" and "why (errno 12)" to a descriptor, or send them. */
static BLOB void tell(const struct blob_context *context, int fd, const char *first, const char *why, long error)
{
	char line[512], *end = line + sizeof(line) - 32, *to;

	to = put(put(line, end, first), end, why);
	if (error) {
		to = put(to, end, context->text[BLOB_STAGES]);
		to = put_number(to, (unsigned long)(error < 0 ? -error : error));
		*to++ = ')';
	}
	if (context->flags & BLOB_TELL) {
		call6(__NR_sendto, (uint64_t)fd, (uint64_t)line, (uint64_t)(to - line), MSG_NOSIGNAL, 0, 0);
		return;
	}
	*to++ = '\n';
	call3(__NR_write, fd, line, to - line);
}

/* Make this process what it was when it was started, as far as an exec does not. */
static BLOB void undo(const struct blob_context *context)
{
	plan_for_each(struct plan_descriptor, row, context->plan, context->plan->descriptors)
		call1(__NR_close, row->fd);
	for (uint32_t i = 0; i < context->kept_count; i++)
		call3(__NR_dup3, context->kept[i].kept, context->kept[i].fd, 0);
	for (int fd = 0; fd < 3; fd++)
		if (context->absent & 1u << fd)
			call1(__NR_close, fd);
	for (int i = 0; i < NSIGNALS; i++) {
		struct blob_action action;

		action.handler = context->ignored >> i & 1; /* SIG_IGN, or SIG_DFL */
		action.flags = action.restorer = action.mask = 0;
		call4(__NR_rt_sigaction, i + 1, &action, 0, 8);
	}
	call4(__NR_rt_sigprocmask, SIG_SETMASK, &context->blocked, 0, 8);
}

static BLOB __attribute__((noreturn)) void fall_back(const char *why, long error)
{
	const struct blob_context *context = own_context();

	if (context->flags & BLOB_TELL) {
		tell(context, context->slot, context->first, why, error);
	} else {
		if (!(context->flags & BLOB_QUIET) || context->flags & BLOB_NO_FALLBACK)
			tell(context, 2, context->first, why, error);
		if (!(context->flags & BLOB_NO_FALLBACK)) {
			undo(context);
			error = call3(__NR_execve, context->program, context->argv, context->envp);
			tell(context, 2, context->last, context->program, error);
		}
	}
	for (;;)
		call1(__NR_exit_group, FAILED);
}

BLOB void lcp_blob_settle(void)
{
	const struct blob_context *context = own_context();

	for (uint32_t i = 0; i < context->kept_count; i++)
		call1(__NR_close, context->kept[i].kept);
}

BLOB void lcp_blob_fall_back(const char *why, long error)
{
	fall_back(why, error);
}

static BLOB void must(long result, enum blob_stage stage)
{
	if (result < 0 && result > -4096)
		fall_back(own_context()->text[stage], result);
}

/* ---- memory ------------------------------------------------------------------- */

static BLOB void unmap_all_else(const struct plan_arrival *arrival)
{
	uint64_t end = arrival->region + arrival->region_size;

	must(call2(__NR_munmap, PLAN_PAGE, arrival->region - PLAN_PAGE), BLOB_UNMAP);
	must(call2(__NR_munmap, end, HIGHEST_ADDRESS - end), BLOB_UNMAP);
}

static BLOB void place_vdso(const struct blob_context *context)
{
	const struct plan_header *plan = context->plan;
	unsigned char resident;

	if (!plan->vdso_start)
		return;
	must(call2(__NR_arch_prctl, ARCH_MAP_VDSO_64, context->special), BLOB_VDSO);
	must(call3(__NR_mincore, context->vdso, PLAN_PAGE, &resident), BLOB_VDSO); /* the kernel took it for a hint */
	if (context->vdso_copy >= 0)
		must(call6(__NR_mmap, plan->vdso_start, plan->vdso_end - plan->vdso_start, PROT_READ | PROT_EXEC,
			   MAP_PRIVATE | MAP_FIXED, (uint64_t)context->vdso_copy, 0), BLOB_VDSO);
}

static BLOB void map(const struct plan_area *area, const int *files)
{
	int flags = MAP_FIXED | (area->flags & PLAN_SHARED ? MAP_SHARED : MAP_PRIVATE);
	int protection = area->protection, fd = -1;

	if (area->file == PLAN_NO_FILE)
		flags |= MAP_ANONYMOUS;
	else
		fd = files[area->file];
	if (area->flags & PLAN_GROWS_DOWN)
		flags |= MAP_GROWSDOWN;
	if (area->flags & PLAN_NO_RESERVE)
		flags |= MAP_NORESERVE;
	if (area->flags & PLAN_PROTECT)
		protection = PROT_READ | PROT_WRITE;
	must(call6(__NR_mmap, area->start, area->end - area->start, (uint64_t)protection, (uint64_t)flags, (uint64_t)fd,
		   area->offset), BLOB_MAP);
}

/* Read all of what is adjacent in the file; the kernel may read less at a time. */
static BLOB void fill(int memory, struct blob_vector *vector, uint64_t count, uint64_t offset)
{
	while (count) {
		long got = call6(__NR_preadv, (uint64_t)memory, (uint64_t)vector, count, offset, 0, 0);

		if (got == -EINTR)
			continue;
		must(got ? got : -EIO, BLOB_READ);
		offset += (uint64_t)got;
		for (; count && (uint64_t)got >= vector->size; vector++, count--)
			got -= (long)vector->size;
		if (count) {
			vector->start += (uint64_t)got;
			vector->size -= (uint64_t)got;
		}
	}
}

static BLOB void read_all(struct blob_context *context)
{
	const struct plan_read *read = plan_at(context->plan, context->plan->reads.offset);
	const struct plan_read *end = read + context->plan->reads.count;

	while (read < end) {
		uint64_t offset = read->offset, size = 0, count = 0;

		for (; read < end && count < BLOB_VECTORS && size < MOST_AT_ONCE && read->offset == offset + size; read++) {
			context->vectors[count].start = read->start;
			context->vectors[count++].size = read->end - read->start;
			size += read->end - read->start;
		}
		fill(context->memory, context->vectors, count, offset);
	}
}

/* Give an area what it gets only once it is filled. */
static BLOB void finish(const struct plan_area *area)
{
	const uint64_t needed = 1ull << MADV_DONTFORK | 1ull << MADV_WIPEONFORK; /* the others make it faster or smaller */
	uint64_t size = area->end - area->start;

	if (area->flags & PLAN_PROTECT)
		must(call3(__NR_mprotect, area->start, size, area->protection), BLOB_PROTECT);
	if (area->flags & PLAN_GUARD)
		must(call3(__NR_madvise, area->start, size, GUARD_INSTALL), BLOB_GUARD);
	for (uint64_t left = area->advice, number = 0; left; left >>= 1, number++) {
		long result = left & 1 ? call3(__NR_madvise, area->start, size, number) : 0;

		if (needed >> number & 1)
			must(result, BLOB_ADVISE);
	}
	if (area->flags & PLAN_LOCKED)
		must(call2(__NR_mlock, area->start, size), BLOB_LOCK);
}

/* ---- all of it ------------------------------------------------------------------ */

static BLOB void close_files(const struct blob_context *context)
{
	for (uint32_t i = 0; i < context->plan->files.count; i++)
		call1(__NR_close, context->files[i]);
	if (context->memory >= 0)
		call1(__NR_close, context->memory);
	if (context->vdso_copy >= 0)
		call1(__NR_close, context->vdso_copy);
	call1(__NR_close, context->request);
	if (context->report >= 0)
		call1(__NR_close, context->report);
}

/* Once more for those that the process loses when it closes any descriptor of their file (fcntl(2)). */
static BLOB void take_locks(const struct plan_header *plan)
{
	plan_for_each(struct plan_lock, lock, plan, plan->locks) {
		struct flock range;

		range.l_type = lock->is_exclusive ? F_WRLCK : F_RDLCK;
		range.l_whence = SEEK_SET;
		range.l_start = (off_t)lock->start;
		range.l_len = (off_t)lock->length;
		if (lock->kind == PLAN_POSIX)
			must(call3(__NR_fcntl, lock->fd, F_SETLK, &range), BLOB_TAKE);
	}
}

static BLOB __attribute__((used, noreturn)) void run(struct blob_context *context)
{
	const struct plan_header *plan = context->plan;

	unmap_all_else(&context->arrival);
	place_vdso(context);
	plan_for_each(struct plan_area, area, plan, plan->areas)
		map(area, context->files);
	read_all(context);
	plan_for_each(struct plan_area, area, plan, plan->areas)
		if (area->flags & (PLAN_PROTECT | PLAN_GUARD | PLAN_LOCKED) || area->advice)
			finish(area);
	must(call2(__NR_arch_prctl, ARCH_SET_FS, plan->fs), BLOB_ENTER);
	close_files(context);
	take_locks(plan);
	__asm__ volatile("mov %1, %%rsp\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "cld\n\t"
			 "jmp *%2"
			 : : "D"(&context->arrival), "a"(plan->stack), "d"(plan->resume) : "memory");
	__builtin_unreachable();
}

BLOB void lcp_blob_enter(struct blob_context *context)
{
	__asm__ volatile("mov %0, %%rsp\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "call run\n\t"
			 : : "r"(context->stack + BLOB_STACK), "D"(context) : "memory");
	__builtin_unreachable();
}

#endif
