/*
 * The first steps of a copy: the loader has made memory and descriptors, and jumps here. This is code of the dumped
 * process, on the stack of the thread that leads it.
 */
#define _GNU_SOURCE
#include "native/resume.h"

#if defined(__x86_64__)
#include <errno.h>
#include <linux/prctl.h>
#include "common/plan.h"
#include "native/native.h"
#include "native/threads.h"
#include "native/timers.h"

#define RSEQ_SIGNATURE 0x53053053
#define BILLION 1000000000
#define ROOM 512 /* below a thread's saved stack pointer */
/* VM FS FILES SIGHAND THREAD SYSVSEM SETTLS CHILD_CLEARTID */
#define THREAD_FLAGS 0x2d0f00
#define GLIBC_TID 0x2d0 /* of struct pthread, where fs points to (nptl/descr.h); every version has it there */

__asm__(".text\n"
	".globl lcp_native_resume\n.hidden lcp_native_resume\n.type lcp_native_resume, @function\n"
	"lcp_native_resume:\n"
	"	xor %ebp, %ebp\n	and $-16, %rsp\n	call lcp_begin_copy\n	hlt\n");

uint64_t lcp_resume_stack(const struct thread *leader)
{
	return (leader->context.rsp - ROOM) & ~15ull;
}

void lcp_register_rseq(const struct thread *thread, int flags)
{
	const struct standing *this = lcp_standing;
	uint64_t area = thread->fs + this->rseq_offset;

	if (!this->rseq_size)
		return;
	if (!flags)
		*(volatile uint64_t *)(area + 8) = 0; /* rseq_cs: no section was interrupted */
	SYSCALL4(rseq, area, this->rseq_size, flags, RSEQ_SIGNATURE);
}

void lcp_arrive(const struct thread *thread)
{
	struct standing *this = lcp_standing;

	if (thread->robust)
		SYSCALL2(set_robust_list, thread->robust, thread->robust_size);
	lcp_register_rseq(thread, 0);
	SYSCALL2(prctl, PR_SET_NAME, thread->name);
	/* That of other threads comes from their signal frames (sigreturn(2)). */
	if (thread->tid == this->own_tid)
		SYSCALL2(sigaltstack, thread->signal_stack, NULL);
	if (thread == &this->threads[this->leader])
		return;
	__atomic_add_fetch(&this->arrived, 1, __ATOMIC_SEQ_CST);
	lcp_futex_wake(&this->arrived);
	while (!this->may_go)
		lcp_futex_wait(&this->may_go, 0, NULL);
}

/*
 * Where glibc has a thread's id; NULL if it is not known. Up to 2.41 that is what the kernel clears when the thread ends;
 * 2.43 has the thread's state there instead.
 */
static volatile uint32_t *id_place(const struct thread *thread)
{
	volatile uint32_t *cleared = (uint32_t *)thread->tid_address, *kept = (uint32_t *)(thread->fs + GLIBC_TID);

	if (cleared && *cleared == (uint32_t)thread->tid)
		return cleared;
	return thread->fs && *kept == (uint32_t)thread->tid ? kept : NULL;
}

static long start_thread(const struct thread *thread)
{
	register uint64_t r10 __asm__("r10") = thread->tid_address;
	register uint64_t r8 __asm__("r8") = thread->fs;
	register const struct context *context __asm__("r12") = &thread->context;
	long result;

	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "mov %%r12, %%rdi\n\t"
			 "call lcp_continue_context\n"
			 "1:"
			 : "=a"(result)
			 : "a"(__NR_clone), "D"((uint64_t)THREAD_FLAGS), "S"(lcp_resume_stack(thread)),
			   "d"(0ul), "r"(r10), "r"(r8), "r"(context)
			 : "rcx", "r11", "memory");
	return result;
}

/*
 * Shift a thread's wait for a point in time, which begins anew, by as much as the monotonic clock is ahead: the time
 * between dump and restore does not count, as it does not in a time namespace (time_namespaces(7)).
 */
static void shift_deadline(const struct thread *thread, int64_t jump)
{
	const uint64_t *arguments = thread->arguments;
	struct kernel_time *deadline = NULL;

	if (!thread->begins_anew)
		return;
	if (thread->call == __NR_futex && (arguments[1] & 0x7f) == 9 /* FUTEX_WAIT_BITSET */ && !(arguments[1] & 256))
		deadline = (struct kernel_time *)arguments[3];
	else if (thread->call == __NR_clock_nanosleep && arguments[1] & 1 && (arguments[0] == 1 || arguments[0] == 7))
		deadline = (struct kernel_time *)arguments[2];
	if (!deadline)
		return;
	jump += deadline->nanoseconds;
	deadline->seconds += jump / BILLION - (jump % BILLION < 0);
	deadline->nanoseconds = (jump % BILLION + BILLION) % BILLION;
}

static void restore_registrations(void)
{
	const struct standing *this = lcp_standing;

	/* The number of a registration is its bit (linux/membarrier.h). */
	for (int bit = 0; bit < 16 && this->barriers > 0; bit++)
		if (this->barriers >> bit & 1)
			SYSCALL3(membarrier, 1 << bit, 0, 0);
}

static void restore_signals(void)
{
	const struct standing *this = lcp_standing;

	for (int number = 1; number <= 64; number++)
		if (number != 9 && number != 19)
			SYSCALL4(rt_sigaction, number, &this->actions[number], NULL, 8);
}

/* When no conventional start can follow any more: they would go on beyond its exec. */
static void restore_timers(void)
{
	const struct standing *this = lcp_standing;

	for (int which = 0; which < 3; which++)
		if (this->timers[which][2] || this->timers[which][3])
			SYSCALL3(setitimer, which, this->timers[which], NULL);
}

static long restore_memory_fields(void)
{
	struct prctl_mm_map *map = &lcp_standing->mm;

	return SYSCALL5(prctl, PR_SET_MM, PR_SET_MM_MAP, map, sizeof(*map), 0);
}

static int *const *pid_places;
static int pid_count;

void lcp_native_renew_pids(int *const *places, int count)
{
	pid_places = places;
	pid_count = count;
}

/* Called by the loader, with all signals blocked. */
__attribute__((used, noreturn, visibility("hidden"))) void lcp_begin_copy(struct plan_arrival *arrival)
{
	struct standing *this = lcp_standing;
	const struct thread *leader = &this->threads[this->leader];
	int pid = (int)SYSCALL1(set_tid_address, leader->tid_address);
	uint64_t flags = arrival->flags;
	int64_t jump = arrival->monotonic_jump;
	uint32_t others = 0, arrived;
	volatile uint32_t *id;
	long result;

	id = id_place(leader);
	if (id)
		*id = (uint32_t)pid;
	result = restore_memory_fields();
	if (result)
		arrival->fall_back("PR_SET_MM_MAP", result);
	restore_registrations();
	restore_signals();
	this->arrived = this->may_go = 0;
	for (int i = 0; i < this->thread_count; i++) {
		struct thread *thread = &this->threads[i];

		thread->new_tid = pid;
		if (thread->state == THREAD_GONE)
			continue;
		shift_deadline(thread, jump);
		if (thread == leader)
			continue;
		result = start_thread(thread);
		if (result < 0)
			arrival->fall_back("clone", result);
		thread->new_tid = (int)result;
		id = id_place(thread); /* it waits until it may go */
		if (id)
			*id = (uint32_t)result;
		others++;
	}
	while ((arrived = this->arrived) < others)
		lcp_futex_wait(&this->arrived, arrived, NULL);
	result = lcp_restore_timers();
	if (result)
		arrival->fall_back("timer_create", result);
	while (pid_count)
		*pid_places[--pid_count] = pid;
	restore_timers();
	arrival->settle();
	SYSCALL2(munmap, arrival->region, arrival->region_size);
	if (flags & PLAN_STOP)
		SYSCALL2(kill, pid, 19);
	this->may_go = 1;
	lcp_futex_wake(&this->may_go);
	lcp_continue_context(&leader->context);
}

int lcp_native_set_arguments(const char *words, int size)
{
	static char *shown;
	static uint64_t room;
	struct prctl_mm_map *map;
	uint64_t needed = ((uint64_t)size + 4095) & ~4095ull;
	long at, result;

	if (!lcp_standing || size <= 0)
		return -EINVAL;
	map = &lcp_standing->mm;
	if (room < needed) {
		at = SYSCALL6(mmap, NULL, needed, 3, 0x22 /* private, anonymous */, -1, 0);
		if (at < 0 && at > -4096)
			return (int)at;
		shown = (char *)at;
		room = needed;
	}
	for (int i = 0; i < size; i++)
		shown[i] = words[i];
	map->arg_start = (uint64_t)shown;
	map->arg_end = map->arg_start + (uint64_t)size;
	map->brk = (uint64_t)SYSCALL1(brk, 0);
	result = restore_memory_fields();
	return (int)result;
}

int lcp_native_new_tid(int tid)
{
	const struct thread *thread = lcp_standing ? lcp_find_thread(tid) : NULL;

	return thread ? thread->new_tid : 0;
}
#else
int lcp_native_new_tid(int tid)
{
	(void)tid;
	return 0;
}

void lcp_native_renew_pids(int *const *places, int count)
{
	(void)places;
	(void)count;
}

int lcp_native_set_arguments(const char *words, int size)
{
	(void)words;
	(void)size;
	return -ENOTSUP;
}
#endif
