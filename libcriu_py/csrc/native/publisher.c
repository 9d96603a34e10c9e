#define _GNU_SOURCE
#include "native/scratch.h"

#if defined(__x86_64__)
#include <errno.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/process.h"

#define FIRST 3 /* the publisher's descriptors: order, facts, result, staging, and how far the dump is */
#define GIVEN 5

/* The new process, which has our memory until it is another program. */
static __attribute__((noreturn)) void exec_publisher(void *argument)
{
	const struct scratch *scratch = argument;
	const struct lcp_native *native = scratch->native;
	const int given[GIVEN] = { native->order, native->facts, native->result, native->staging, native->stages[0] };
	const struct kernel_action standard = { 0 };
	uint64_t none = 0;
	long moved[GIVEN];

	for (int number = 1; number <= 64; number++)
		SYSCALL4(rt_sigaction, number, &standard, NULL, 8);
	SYSCALL2(prctl, PR_SET_PDEATHSIG, 9);
	/* The program's own limits may be too low for who writes a snapshot of it. */
	lcp_raise_limit(RLIMIT_FSIZE);
	lcp_raise_limit(RLIMIT_NOFILE);
	for (int i = 0; i < GIVEN; i++)
		moved[i] = SYSCALL3(fcntl, given[i], 0 /* F_DUPFD */, FIRST + GIVEN);
	for (int i = 0; i < GIVEN; i++)
		SYSCALL3(dup3, moved[i], FIRST + i, 0);
	SYSCALL3(close_range, FIRST + GIVEN, ~0u, 0);
	SYSCALL4(rt_sigprocmask, 2, &none, NULL, 8);
	SYSCALL3(execve, native->argv[0], native->argv, environ);
	for (;;)
		SYSCALL1(exit_group, 127);
}

long lcp_start_here(uint64_t flags, char *stack, void (*function)(void *), void *given)
{
	register void *argument __asm__("r12") = given;
	register uint64_t r10 __asm__("r10") = 0;
	register uint64_t r8 __asm__("r8") = 0;
	register void (*entry)(void *) __asm__("r13") = function;
	long result;

	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "mov %%r12, %%rdi\n\t"
			 "call *%%r13\n"
			 "1:"
			 : "=a"(result)
			 : "a"(__NR_clone), "D"(CLONE_VM | flags), "S"(stack), "d"(0ull), "r"(r10), "r"(r8), "r"(argument),
			   "r"(entry)
			 : "rcx", "r11", "memory");
	return result;
}

/* Whether a child has ended, which is still to be reaped. */
static int has_ended(long pid)
{
	siginfo_t found;

	found.si_pid = 0;
	while (SYSCALL5(waitid, P_PID, pid, &found, KERNEL_WAIT_ALL | WEXITED | WNOWAIT | WNOHANG, NULL) == -EINTR)
		;
	return found.si_pid == pid;
}

/* Wait for the end of the publisher, which is still to be reaped; if it is stopped, it is continued: it holds the program. */
static void await_publisher(long pid)
{
	siginfo_t found;

	do {
		found.si_code = 0;
		SYSCALL5(waitid, P_PID, pid, &found, KERNEL_WAIT_ALL | WEXITED | WSTOPPED | WNOWAIT, NULL);
		if (found.si_code == CLD_STOPPED)
			SYSCALL2(kill, pid, SIGCONT);
	} while (!found.si_code || found.si_code == CLD_STOPPED);
}

/* The keeper: it waits for the publisher, and ends with it. */
static __attribute__((noreturn)) void keep(void *given)
{
	struct scratch *scratch = given;
	char *stack = scratch->publisher_stack + sizeof(scratch->publisher_stack);
	long pid;

	SYSCALL2(prctl, PR_SET_PDEATHSIG, 9);
	SYSCALL2(prctl, PR_SET_NAME, "libcriu_py");
	pid = lcp_start_here(CLONE_VFORK, stack, exec_publisher, scratch);
	/* The program's descriptors are not to be open in another process. */
	SYSCALL3(close_range, 0, ~0u, 0);
	scratch->publisher = pid > 0 ? (uint32_t)pid : 0;
	scratch->started = (uint32_t)pid;
	lcp_futex_wake(&scratch->started);
	if (pid > 0) {
		await_publisher(pid);
		scratch->publisher = 0; /* nobody may kill it any more: from here on the number is another's */
		SYSCALL4(wait4, pid, &scratch->status, KERNEL_WAIT_ALL, NULL);
	}
	for (;;)
		SYSCALL1(exit_group, 0);
}

int lcp_native_start(struct lcp_native *native)
{
	struct scratch *scratch =
		mmap(NULL, sizeof(*scratch), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	const struct kernel_time moment = { 0, 10000000 };
	uint64_t all = ALL_SIGNALS, mask;
	long pid;

	if (scratch == MAP_FAILED)
		return -ENOMEM;
	scratch->native = native;
	scratch->status = 9; /* as if killed, until the keeper knows better */
	native->scratch = scratch;
	/* No handler of the program may run in the new processes. */
	SYSCALL4(rt_sigprocmask, 2, &all, &mask, 8);
	pid = lcp_start_here(0, scratch->keeper_stack + sizeof(scratch->keeper_stack), keep, scratch);
	native->keeper = pid > 0 ? (int)pid : 0;
	while (pid > 0 && !scratch->started && !has_ended(pid))
		lcp_futex_wait(&scratch->started, 0, &moment);
	native->publisher = (int)scratch->started;
	if (native->publisher <= 0) {
		pid = pid < 0 ? pid : native->publisher ? native->publisher : -ECHILD;
		if (pid == -ECHILD)
			native->scratch = NULL; /* the keeper was killed: what it has started may use this memory still */
		lcp_native_stop(native);
	}
	SYSCALL4(rt_sigprocmask, 2, &mask, NULL, 8);
	return pid < 0 ? (int)pid : 0;
}

static void kill_publisher(const struct lcp_native *native)
{
	const struct scratch *scratch = native->scratch;
	int pid = (int)scratch->publisher;

	if (pid > 0)
		SYSCALL2(kill, pid, 9);
}

void lcp_native_stop(struct lcp_native *native)
{
	const struct scratch *scratch = native->scratch;

	if (!scratch)
		return;
	if (native->keeper && !scratch->is_reaped) {
		kill_publisher(native);
		lcp_reap_publisher(native);
	}
	munmap(native->scratch, sizeof(*scratch));
	native->scratch = NULL;
}

/* Wait for the end of a process until a deadline; 0 or -ETIME. */
static long await_end(long pid, int deadline_ms)
{
	struct pollfd ended = { (int)SYSCALL2(pidfd_open, pid, 0), POLLIN, 0 };
	int64_t until = lcp_clock(1) + (int64_t)deadline_ms * 1000000;
	int is_late = 0;

	while (ended.fd >= 0 && !ended.revents && !is_late) {
		int64_t left = until - lcp_clock(1);
		struct kernel_time limit = { left / 1000000000, left % 1000000000 };

		if (left <= 0)
			is_late = 1;
		else
			SYSCALL5(ppoll, &ended, 1, &limit, NULL, 0);
	}
	if (ended.fd >= 0)
		SYSCALL1(close, ended.fd);
	return is_late ? -ETIME : 0;
}

static long reap(long pid)
{
	long result;
	int status = 0;

	while ((result = SYSCALL4(wait4, pid, &status, KERNEL_WAIT_ALL, 0)) == -EINTR)
		;
	return result < 0 ? result : status;
}

long lcp_await_child(long pid, int deadline_ms)
{
	long late = await_end(pid, deadline_ms), status;

	if (late)
		SYSCALL2(kill, pid, 9);
	status = reap(pid);
	return late ? late : status;
}

long lcp_reap_publisher(const struct lcp_native *native)
{
	struct scratch *scratch = native->scratch;
	long late = await_end(native->keeper, native->deadline_ms), result;

	if (late) {
		kill_publisher(native);
		SYSCALL2(kill, native->keeper, 9); /* it may be stopped */
	}
	result = reap(native->keeper);
	scratch->is_reaped = 1;
	return late ? late : result < 0 ? result : scratch->status;
}

/* Tell the publisher that the dump has come to its next stage. */
static void tell(const struct lcp_native *native, int number)
{
	/* There is a reader, this process, even where the publisher has ended: no SIGPIPE. */
	SYSCALL3(write, native->stages[1], &number, sizeof(number));
}

void lcp_hand_over(struct scratch *scratch)
{
	const struct lcp_native *native = scratch->native;

	/* Where Yama rules (ptrace_scope 1), it could not look at this process; EINVAL where it does not. */
	SYSCALL2(prctl, PR_SET_PTRACER, native->publisher);
	tell(native, (int)SYSCALL0(getpid));
	lcp_write_memory(scratch);
	if (scratch->error)
		kill_publisher(native);
	tell(native, 0);
}
#endif
