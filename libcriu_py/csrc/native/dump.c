/*
 * A process dumps itself: all of its threads stand still, their registers are in its memory, and that is written to a
 * file. A copy goes on where lcp_save_context was called (resume.c).
 *
 * From the first thread that stands still no lock may be taken: no malloc, no stdio, no libc that might.
 */
#define _GNU_SOURCE
#include "native/native.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__x86_64__)
#include "common/process.h"
#include "native/scratch.h"
#include "native/timers.h"

#define MEMBARRIER_CMD_GET_REGISTRATIONS 512 /* Linux 6.3; before, nobody can tell */

extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));

static int dumped_pid;

/* ---- before ----------------------------------------------------------- */

static void note_numbers(const char *stat, struct prctl_mm_map *map)
{
	uint64_t fields[52] = { 0 };
	const char *text = stat;

	for (const char *at = stat; *at; at++)
		if (*at == ')')
			text = at + 2; /* the last one ends the name; the third field follows */
	for (int field = 3; field < 52 && *text; field++) {
		fields[field] = lcp_take_decimal(&text);
		while (*text && *text != ' ')
			text++;
		text += *text == ' ';
	}
	map->start_code = fields[26];
	map->end_code = fields[27];
	map->start_stack = fields[28];
	map->start_data = fields[45];
	map->end_data = fields[46];
	map->start_brk = fields[47];
	map->arg_start = fields[48];
	map->arg_end = fields[49];
	map->env_start = fields[50];
	map->env_end = fields[51];
}

/* Note what the kernel knows of this process, in its memory. */
static long note_process(struct standing *this, struct scratch *scratch)
{
	long size = lcp_slurp("/proc/self/stat", scratch->room, sizeof(scratch->room));

	if (size < 0)
		return size;
	note_numbers(scratch->room, &this->mm);
	size = lcp_slurp("/proc/self/auxv", (char *)this->auxv, sizeof(this->auxv));
	if (size < 0)
		return size;
	this->mm.brk = (uint64_t)SYSCALL1(brk, 0);
	this->mm.auxv = (void *)this->auxv;
	this->mm.auxv_size = (uint32_t)size;
	this->mm.exe_fd = ~0u;
	this->rseq_size = &__rseq_size && __rseq_size ? (__rseq_size + 31) / 32 * 32 : 0;
	this->rseq_offset = &__rseq_size && __rseq_size ? (uint64_t)__rseq_offset : 0;
	for (int number = 1; number <= 64; number++)
		if (number != PARKING_SIGNAL)
			SYSCALL4(rt_sigaction, number, NULL, &this->actions[number], 8);
	for (int which = 0; which < 3; which++)
		SYSCALL2(getitimer, which, this->timers[which]);
	this->barriers = SYSCALL3(membarrier, MEMBARRIER_CMD_GET_REGISTRATIONS, 0, 0);
	return 0;
}

static struct standing *make_standing(void)
{
	void *at = lcp_standing;

	if (!at)
		at = mmap(NULL, sizeof(struct standing), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		return NULL;
	lcp_standing = at;
	lcp_standing->parked = lcp_standing->released = 0;
	lcp_standing->arrived = lcp_standing->may_go = 0;
	lcp_standing->pid = (int)SYSCALL0(getpid);
	lcp_standing->own_tid = (int)SYSCALL0(gettid);
	return lcp_standing;
}

/* ---- the standing process --------------------------------------------- */

static void close_stages(struct lcp_native *native)
{
	for (int i = 0; i < 2; i++) {
		if (native->stages[i] >= 0)
			SYSCALL1(close, native->stages[i]);
		native->stages[i] = -1;
	}
}

/* Have the memory written and published; the publisher's wait status, or -errno. No memory of the program may change. */
static long write_and_publish(struct scratch *scratch)
{
	const struct lcp_native *native = scratch->native;
	long result;

	lcp_fact_numbers(scratch, "ids",
			 (const uint64_t[]){ (uint64_t)lcp_standing->pid, (uint64_t)SYSCALL0(getpid) }, 2);
	lcp_hand_over(scratch);
	/* A twin stands until the original kills it, which alone can wait for the publisher, or is gone. */
	while (SYSCALL0(getpid) != lcp_standing->pid && SYSCALL0(getppid) == lcp_standing->pid)
		lcp_sleep_us(100000);
	if (SYSCALL0(getpid) != lcp_standing->pid)
		return 0;
	result = lcp_reap_publisher(native);
	return scratch->error ? scratch->error : result;
}

/* Call it on the scratch's stack, and come back. */
static __attribute__((noinline)) long stand_still(struct scratch *scratch)
{
	char *stack = scratch->stack + sizeof(scratch->stack);
	long result;

	__asm__ volatile("mov %%rsp, %%rbx\n\t"
			 "mov %[stack], %%rsp\n\t"
			 "call *%[function]\n\t"
			 "mov %%rbx, %%rsp"
			 : "=a"(result), "+D"(scratch)
			 : [stack] "r"(stack), [function] "r"(write_and_publish)
			 : "rbx", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "memory", "cc");
	return result;
}

/* The same in a twin, whose memory is that of this moment, while the program goes on. */
static long stand_in_twin(struct scratch *scratch, int64_t begun)
{
	struct lcp_native *native = scratch->native;
	long pid = SYSCALL5(clone, 0, NULL, NULL, NULL, 0), result;

	if (!pid) {
		stand_still(scratch);
		for (;;)
			SYSCALL1(exit_group, 0);
	}
	lcp_release(0);
	native->stood_ns = lcp_clock(1) - begun;
	if (pid < 0)
		return pid;
	close_stages(native); /* or the publisher would not notice that the twin is gone */
	result = lcp_reap_publisher(native);
	SYSCALL2(kill, pid, 9);
	lcp_await_child(pid, native->deadline_ms);
	return scratch->error ? scratch->error : result;
}

static int dump(struct scratch *scratch)
{
	struct lcp_native *native = scratch->native;
	struct standing *this = lcp_standing;
	int64_t begun = lcp_clock(1);
	long result;
	int is_held;

	result = lcp_park_all(scratch->room, sizeof(scratch->room), &native->failed_thread);
	native->parked_ns = lcp_clock(1) - begun;
	is_held = 1;
	if (!result) {
		if (lcp_save_context(&this->threads[0].context)) {
			lcp_arrive(&lcp_standing->threads[0]);
			return 1;
		}
		/* Or the kernel notes in it on which processor this thread is (rseq(2)), and memory would change. */
		lcp_register_rseq(&this->threads[0], RSEQ_UNREGISTER);
		lcp_collect_facts(scratch);
		lcp_write_shared_memory(scratch);
		result = scratch->error;
		if (!result && native->then_exit) {
			result = stand_still(scratch);
			/* No thread has done anything since the dump, or does. */
			while (!result)
				SYSCALL1(exit_group, 0);
		} else if (!result) {
			result = stand_in_twin(scratch, begun);
			is_held = 0;
		}
		lcp_register_rseq(&this->threads[0], 0);
	}
	if (is_held)
		lcp_release((int)result);
	if (!native->stood_ns)
		native->stood_ns = lcp_clock(1) - begun;
	native->status = result > 0 ? (int)result : 0;
	return result > 0 ? -ECHILD : (int)result;
}

int lcp_native_dump(struct lcp_native *native)
{
	uint64_t all = ALL_SIGNALS, mask;
	int result = -ENOMEM;

	SYSCALL4(rt_sigprocmask, 2, &all, &mask, 8);
	if (make_standing()) {
		dumped_pid = lcp_standing->pid;
		lcp_find_timer_data();
		result = (int)note_process(lcp_standing, native->scratch);
	}
	if (!result)
		result = dump(native->scratch);
	if (result != 1) { /* a copy has none of it */
		close_stages(native);
		lcp_native_stop(native);
	}
	SYSCALL4(rt_sigprocmask, 2, &mask, NULL, 8);
	if (result == 1 && lcp_on_arrival)
		lcp_on_arrival();
	return result;
}

int lcp_native_dumped_pid(void)
{
	return dumped_pid;
}
#else
int lcp_native_start(struct lcp_native *native)
{
	(void)native;
	return -ENOTSUP;
}

void lcp_native_stop(struct lcp_native *native)
{
	(void)native;
}

int lcp_native_dump(struct lcp_native *native)
{
	(void)native;
	return -ENOTSUP;
}

int lcp_native_dumped_pid(void)
{
	return 0;
}
#endif
