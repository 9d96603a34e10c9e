#define _GNU_SOURCE
#include "native/scratch.h"

#if defined(__x86_64__)
#include <errno.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <poll.h>

#define FIRST 3 /* the publisher's descriptors: order, facts, result, staging, and the end of a pipe: all is written */
#define GIVEN 5

/* The new process, which has our memory until it is another program. */
static __attribute__((noreturn)) void exec_publisher(const struct scratch *scratch)
{
	const struct lcp_native *native = scratch->native;
	const int given[GIVEN] = { native->order, native->facts, native->result, native->staging, scratch->written[0] };
	const struct kernel_action standard = { 0 };
	uint64_t none = 0;
	long moved[GIVEN];

	for (int number = 1; number <= 64; number++)
		SYSCALL4(rt_sigaction, number, &standard, NULL, 8);
	SYSCALL2(prctl, PR_SET_PDEATHSIG, 9);
	for (int i = 0; i < GIVEN; i++)
		moved[i] = SYSCALL3(fcntl, given[i], 0 /* F_DUPFD */, FIRST + GIVEN);
	for (int i = 0; i < GIVEN; i++)
		SYSCALL3(dup3, moved[i], FIRST + i, 0);
	SYSCALL3(close_range, FIRST + GIVEN, ~0u, 0);
	SYSCALL4(rt_sigprocmask, 2, &none, NULL, 8);
	SYSCALL3(execve, native->argv[0], native->argv, native->env);
	for (;;)
		SYSCALL1(exit_group, 127);
}

static long start_publisher(struct scratch *scratch)
{
	register const struct scratch *argument __asm__("r12") = scratch;
	register uint64_t r10 __asm__("r10") = 0;
	register uint64_t r8 __asm__("r8") = 0;
	register void (*entry)(const struct scratch *) __asm__("r13") = exec_publisher;
	char *stack = scratch->child_stack + sizeof(scratch->child_stack);
	long result;

	/* No signal at its end: whoever waits for any child of the program does not see it. */
	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "mov %%r12, %%rdi\n\t"
			 "call *%%r13\n"
			 "1:"
			 : "=a"(result)
			 : "a"(__NR_clone), "D"((uint64_t)(CLONE_VM | CLONE_VFORK)), "S"(stack), "d"(0ull), "r"(r10), "r"(r8),
			   "r"(argument), "r"(entry)
			 : "rcx", "r11", "memory");
	return result;
}

long lcp_await_child(long pid, int deadline_ms)
{
	struct pollfd ended = { (int)SYSCALL2(pidfd_open, pid, 0), POLLIN, 0 };
	int64_t until = lcp_clock(1) + (int64_t)deadline_ms * 1000000;
	long result, is_late = 0;
	int status = 0;

	while (ended.fd >= 0 && !ended.revents && !is_late) {
		int64_t left = until - lcp_clock(1);
		struct kernel_time limit = { left / 1000000000, left % 1000000000 };

		if (left <= 0)
			is_late = 1;
		else
			SYSCALL5(ppoll, &ended, 1, &limit, NULL, 0);
	}
	if (is_late)
		SYSCALL2(kill, pid, 9);
	if (ended.fd >= 0)
		SYSCALL1(close, ended.fd);
	while ((result = SYSCALL4(wait4, pid, &status, KERNEL_WAIT_ALL, 0)) == -EINTR)
		;
	return is_late ? -ETIME : result < 0 ? result : status;
}

long lcp_publish(struct scratch *scratch)
{
	long pid = SYSCALL2(pipe2, scratch->written, 02000000 /* O_CLOEXEC */);

	/* An interpreter takes as long to start as most memory takes to be written. */
	if (!pid)
		pid = start_publisher(scratch);
	if (pid < 0)
		return pid;
	SYSCALL1(close, scratch->written[0]);
	/* Where Yama rules (ptrace_scope 1), it could not look at this process; EINVAL where it does not. */
	SYSCALL2(prctl, PR_SET_PTRACER, pid);
	lcp_write_memory(scratch);
	if (scratch->error)
		SYSCALL2(kill, pid, 9);
	SYSCALL1(close, scratch->written[1]);
	pid = lcp_await_child(pid, scratch->native->deadline_ms);
	return scratch->error ? scratch->error : pid;
}
#endif
