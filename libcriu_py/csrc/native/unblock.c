#define _GNU_SOURCE
#include "native/threads.h"

#if defined(__x86_64__)
#include <errno.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include "native/scratch.h"

#define PATIENCE_NS 1000000000
#define NO_HANG 1 /* WNOHANG */

/* What a process of its own is to do, which has our memory: a thread may not trace one of its own process. */
struct job {
	int thread;
	volatile uint32_t may_begin;
	volatile long result;
};

static long trace(long request, int thread, uint64_t address, const void *data)
{
	return SYSCALL4(ptrace, request, thread, address, data);
}

/* Wait until a thread stands still where it was interrupted; signals that it gets before are its own. */
static long await_stop(int thread)
{
	int64_t until = lcp_clock(1) + PATIENCE_NS;

	while (lcp_clock(1) < until) {
		int status = 0;
		long result = SYSCALL4(wait4, thread, &status, NO_HANG | KERNEL_WAIT_ALL, NULL);

		if (result < 0)
			return result;
		if (!result)
			lcp_sleep_us(50);
		else if ((status & 0xff) != 0x7f)
			return -ESRCH;
		else if (status >> 16 == PTRACE_EVENT_STOP)
			return 0;
		else
			trace(PTRACE_CONT, thread, 0, (const void *)(long)(status >> 8 & 0xff));
	}
	return -ETIMEDOUT;
}

static long unblock(int thread)
{
	long result = trace(PTRACE_SEIZE, thread, 0, NULL);
	uint64_t mask;

	if (!result)
		result = trace(PTRACE_INTERRUPT, thread, 0, NULL);
	if (!result)
		result = await_stop(thread);
	if (!result)
		result = trace(PTRACE_GETSIGMASK, thread, sizeof(mask), &mask);
	if (result)
		return result;
	mask &= ~(1ull << (PARKING_SIGNAL - 1));
	result = trace(PTRACE_SETSIGMASK, thread, sizeof(mask), &mask);
	trace(PTRACE_DETACH, thread, 0, NULL);
	return result;
}

static __attribute__((noreturn)) void work(void *given)
{
	struct job *job = given;

	while (!job->may_begin)
		lcp_futex_wait(&job->may_begin, 0, NULL);
	job->result = unblock(job->thread);
	for (;;)
		SYSCALL1(exit_group, 0); /* a thread that is still traced goes on */
}

long lcp_unblock(int thread, char *room, size_t size)
{
	struct job *job = (struct job *)room;
	long pid;

	/* Where Yama lets processes trace their descendants only, they may allow another one. */
	for (int is_allowed = 0; is_allowed < 2; is_allowed++) {
		*job = (struct job){ .thread = thread, .result = -ECHILD };
		pid = lcp_start_here(0, (char *)((uint64_t)(room + size) & ~15ull), work, job);
		if (pid < 0)
			return pid;
		if (is_allowed)
			SYSCALL2(prctl, PR_SET_PTRACER, pid);
		job->may_begin = 1;
		lcp_futex_wake(&job->may_begin);
		lcp_await_child(pid, 2 * PATIENCE_NS / 1000000);
		if (is_allowed)
			SYSCALL2(prctl, PR_SET_PTRACER, 0);
		if (job->result != -EPERM)
			break;
	}
	return job->result;
}
#endif
