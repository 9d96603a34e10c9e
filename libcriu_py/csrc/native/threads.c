#define _GNU_SOURCE
#include "native/threads.h"

#if defined(__x86_64__)
#include <errno.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>

#define PATIENCE_NS 1000000000
#define BLOCKED_NS 50000000 /* glibc blocks everything for a moment where a thread begins and where it ends */
#define LENGTH_OF_SYSCALL 2
#define SA_KERNEL_RESTORER 0x04000000

struct standing *lcp_standing;

__asm__(".text\n"
	".globl lcp_save_context\n.hidden lcp_save_context\n.type lcp_save_context, @function\n"
	"lcp_save_context:\n"
	"	mov %rbx, 0(%rdi)\n	mov %rbp, 8(%rdi)\n	mov %r12, 16(%rdi)\n	mov %r13, 24(%rdi)\n"
	"	mov %r14, 32(%rdi)\n	mov %r15, 40(%rdi)\n"
	"	lea 8(%rsp), %rax\n	mov %rax, 48(%rdi)\n	mov (%rsp), %rax\n	mov %rax, 56(%rdi)\n"
	"	stmxcsr 64(%rdi)\n	fnstcw 68(%rdi)\n"
	"	xor %eax, %eax\n	ret\n"
	".globl lcp_continue_context\n.hidden lcp_continue_context\n.type lcp_continue_context, @function\n"
	"lcp_continue_context:\n"
	"	ldmxcsr 64(%rdi)\n	fldcw 68(%rdi)\n"
	"	mov 0(%rdi), %rbx\n	mov 8(%rdi), %rbp\n	mov 16(%rdi), %r12\n	mov 24(%rdi), %r13\n"
	"	mov 32(%rdi), %r14\n	mov 40(%rdi), %r15\n	mov 48(%rdi), %rsp\n"
	"	mov $1, %eax\n	jmp *56(%rdi)\n"
	".local lcp_return_from_signal\n"
	"lcp_return_from_signal:\n"
	"	mov $15, %eax\n	syscall\n");
extern char lcp_return_from_signal[] __attribute__((visibility("hidden")));

long lcp_slurp(const char *path, char *text, size_t room)
{
	long fd = SYSCALL3(open, path, 02000000 /* O_CLOEXEC */, 0), size = 0, count = 0;

	text[0] = '\0';
	if (fd < 0)
		return fd;
	while ((size_t)size < room - 1 && (count = SYSCALL3(read, fd, text + size, room - 1 - (size_t)size)) > 0)
		size += count;
	SYSCALL1(close, fd);
	text[size] = '\0';
	return count < 0 ? count : count ? -E2BIG : size;
}

char *lcp_task_path(char *to, int thread, const char *name)
{
	to = lcp_put(to, "/proc/self/");
	if (thread)
		to = lcp_put_number(lcp_put(to, "task/"), (uint64_t)thread, 10);
	return lcp_put(to, name);
}

struct thread *lcp_find_thread(int tid)
{
	for (int i = 0; i < lcp_standing->thread_count; i++)
		if (lcp_standing->threads[i].tid == tid)
			return &lcp_standing->threads[i];
	return NULL;
}

void lcp_describe_thread(struct thread *thread)
{
	const struct standing *this = lcp_standing;

	SYSCALL2(arch_prctl, 0x1003 /* ARCH_GET_FS */, &thread->fs);
	SYSCALL2(arch_prctl, 0x1004 /* ARCH_GET_GS */, &thread->gs);
	SYSCALL3(get_robust_list, 0, &thread->robust, &thread->robust_size);
	SYSCALL2(prctl, PR_GET_TID_ADDRESS, &thread->tid_address);
	SYSCALL2(prctl, PR_GET_NAME, thread->name);
	SYSCALL2(sigaltstack, NULL, thread->signal_stack);
	SYSCALL2(rt_sigpending, &thread->pending, 8);
	thread->pending &= ~(1ull << (PARKING_SIGNAL - 1));
	if (thread->tid == this->pid)
		lcp_standing->leader = (int)(thread - this->threads);
}

/*
 * Begin anew a system call that the kernel would end with EINTR in spite of SA_RESTART (signal(7)): program code knows
 * nothing of this signal. A relative time limit begins anew too.
 */
static void restart_call(struct thread *thread, greg_t *registers)
{
	if (thread->call < 0 || (uint64_t)registers[REG_RSP] != thread->call_sp)
		return;
	if (registers[REG_RAX] == -EINTR && (uint64_t)registers[REG_RIP] == thread->call_pc) {
		registers[REG_RAX] = thread->call;
		registers[REG_RIP] -= LENGTH_OF_SYSCALL;
	}
	thread->begins_anew = registers[REG_RAX] == thread->call &&
			      (uint64_t)registers[REG_RIP] == thread->call_pc - LENGTH_OF_SYSCALL;
}

/*
 * Count this thread and wait for the release. From the count on nothing of its memory may change, not even its stack,
 * however late it comes to run again: hence registers only.
 */
static void count_and_wait(void)
{
	struct standing *this = lcp_standing;
	register const void *limit __asm__("r10") = NULL;

	__asm__ volatile("lock incl %[parked]\n\t"
			 "lea %[parked], %%rdi\n\t"
			 "mov %[wake], %%esi\n\t"
			 "mov $0x40000000, %%edx\n\t"
			 "mov %[futex], %%eax\n\t"
			 "syscall\n"
			 "1:\n\t"
			 "cmpl $0, %[released]\n\t"
			 "jne 2f\n\t"
			 "lea %[released], %%rdi\n\t"
			 "mov %[wait], %%esi\n\t"
			 "xor %%edx, %%edx\n\t"
			 "mov %[futex], %%eax\n\t"
			 "syscall\n\t"
			 "jmp 1b\n"
			 "2:"
			 : [parked] "+m"(this->parked)
			 : [released] "m"(this->released), [wake] "i"(FUTEX_WAKE_PRIVATE), [wait] "i"(FUTEX_WAIT_PRIVATE),
			   [futex] "i"(__NR_futex), "r"(limit)
			 : "rax", "rcx", "rdx", "rsi", "rdi", "r11", "memory", "cc");
}

static void stand_still(struct thread *thread)
{
	struct standing *this = lcp_standing;

	if (lcp_save_context(&thread->context)) {
		lcp_arrive(thread);
		return;
	}
	thread->state = THREAD_PARKED;
	/* Or the kernel notes in its memory on which processor it is, when it comes to run again (rseq(2)). */
	lcp_register_rseq(thread, RSEQ_UNREGISTER);
	count_and_wait();
	lcp_register_rseq(thread, 0);
	__atomic_sub_fetch(&this->parked, 1, __ATOMIC_SEQ_CST);
	lcp_futex_wake(&this->parked);
}

static void handle(int number, siginfo_t *info, void *data)
{
	const struct standing *this = lcp_standing;
	const struct kernel_action *old = &this->actions[PARKING_SIGNAL];
	ucontext_t *interrupted = data;
	struct thread *thread;

	/* glibc's own, for setuid(2) in all threads */
	if (info->si_code != SI_QUEUE || info->si_value.sival_ptr != this) {
		if (old->handler > 1)
			((void (*)(int, siginfo_t *, void *))old->handler)(number, info, data);
		return;
	}
	thread = lcp_find_thread((int)SYSCALL0(gettid));
	if (!thread || thread->state != THREAD_ASKED)
		return;
	if (thread->blocks_signal)
		*(uint64_t *)&interrupted->uc_sigmask |= 1ull << (PARKING_SIGNAL - 1);
	restart_call(thread, interrupted->uc_mcontext.gregs);
	thread->interrupted_at = (uint64_t)interrupted->uc_mcontext.gregs[REG_RIP];
	lcp_describe_thread(thread);
	stand_still(thread);
}

static long queue_to(int tid)
{
	siginfo_t info;

	for (size_t i = 0; i < sizeof(info); i++)
		((volatile char *)&info)[i] = 0;
	info.si_signo = PARKING_SIGNAL;
	info.si_code = SI_QUEUE;
	info.si_pid = lcp_standing->pid;
	info.si_uid = (uid_t)SYSCALL0(getuid);
	info.si_value.sival_ptr = lcp_standing;
	return SYSCALL4(rt_tgsigqueueinfo, lcp_standing->pid, tid, PARKING_SIGNAL, &info);
}

/* Add the threads that are not known yet; how many, or -errno. */
static int find_new(char *room, size_t size)
{
	struct standing *this = lcp_standing;
	long fd = SYSCALL3(open, "/proc/self/task", 02200000 /* O_DIRECTORY | O_CLOEXEC */, 0), count;
	int found = 0;

	if (fd < 0)
		return (int)fd;
	while ((count = SYSCALL3(getdents64, fd, room, size)) > 0)
		for (long at = 0; at < count; at += *(unsigned short *)(room + at + 16)) {
			const char *name = room + at + 19;
			int tid = *name >= '0' && *name <= '9' ? (int)lcp_take_decimal(&name) : 0;

			if (!tid || lcp_find_thread(tid))
				continue;
			if (this->thread_count == MOST_THREADS) {
				SYSCALL1(close, fd);
				return -E2BIG;
			}
			this->threads[this->thread_count] = (struct thread){ .tid = tid, .state = THREAD_NEW, .call = -1 };
			this->thread_count++;
			found++;
		}
	SYSCALL1(close, fd);
	return found;
}

static int is_gone(const struct thread *thread)
{
	return SYSCALL3(tgkill, lcp_standing->pid, thread->tid, 0) == -ESRCH;
}

/* Note where in which system call a thread is, if it is in one. */
static void note_call(struct thread *thread, char *room, size_t size)
{
	char path[64];
	const char *text = room;

	lcp_task_path(path, thread->tid, "/syscall");
	if (lcp_slurp(path, room, size) <= 0 || *text < '0' || *text > '9')
		return;
	thread->call = (long)lcp_take_decimal(&text);
	for (int field = 0; field < 8 && *text == ' '; field++) {
		uint64_t value;

		text += 3; /* and 0x */
		value = lcp_take_hex(&text);
		if (field < 6)
			thread->arguments[field] = value;
		else if (field == 6)
			thread->call_sp = value;
		else
			thread->call_pc = value;
	}
}

/* Whether a thread blocks the signal up to a point in time, or now. */
static int blocks_signal(const struct thread *thread, int64_t until, char *room, size_t size)
{
	char path[64];

	lcp_task_path(path, thread->tid, "/status");
	for (;;) {
		const char *text = room;

		if (lcp_slurp(path, room, size) <= 0)
			return 0; /* it is gone */
		while (*text && !lcp_begins(text, "SigBlk:\t"))
			text++;
		text += *text ? 8 : 0;
		if (!(lcp_take_hex(&text) >> (PARKING_SIGNAL - 1) & 1))
			return 0;
		if (lcp_clock(1) > until)
			return 1;
		lcp_sleep_us(200);
	}
}

/* Without a point in time, nothing is done about threads that block the signal. */
static int ask(struct thread *thread, int64_t until, char *room, size_t size)
{
	long result;

	thread->blocks_signal = blocks_signal(thread, until, room, size);
	if (thread->blocks_signal && !until)
		return 0;
	note_call(thread, room, size);
	thread->state = THREAD_ASKED;
	result = queue_to(thread->tid);
	/* It waits for that thread now, whatever comes. */
	if (!result && thread->blocks_signal)
		return lcp_unblock(thread->tid, room, size) && !is_gone(thread) ? -ETIMEDOUT : 0;
	if (!result)
		return 0;
	thread->state = result == -ESRCH ? THREAD_GONE : THREAD_NEW;
	return result == -ESRCH ? 0 : (int)result;
}

static int ask_new(int first, int64_t until, char *room, size_t size, int *failed)
{
	for (int i = first; i < lcp_standing->thread_count; i++) {
		struct thread *thread = &lcp_standing->threads[i];
		int result = thread->state == THREAD_NEW ? ask(thread, until, room, size) : 0;

		if (result)
			return *failed = thread->tid, result;
	}
	return 0;
}

/* Wait until all that were asked stand still; 0 or -errno. */
static int await_parked(char *room, size_t size, int *failed)
{
	struct standing *this = lcp_standing;
	int64_t until = lcp_clock(1) + PATIENCE_NS, soon = until - PATIENCE_NS + BLOCKED_NS;
	const struct kernel_time moment = { 0, 2000000 };

	for (;;) {
		uint32_t parked = this->parked, wanted = 0;

		for (int i = 0; i < this->thread_count; i++)
			wanted += this->threads[i].state >= THREAD_ASKED;
		if (parked >= wanted)
			return 0;
		lcp_futex_wait(&this->parked, parked, &moment);
		for (int i = 0; i < this->thread_count; i++) {
			struct thread *thread = &this->threads[i];

			if (thread->state != THREAD_ASKED)
				continue;
			if (is_gone(thread))
				thread->state = THREAD_GONE;
			else if (lcp_clock(1) > until)
				return *failed = thread->tid, -ETIMEDOUT;
			/* It has begun to block the signal right before that came. */
			else if (!thread->blocks_signal && lcp_clock(1) > soon && blocks_signal(thread, 0, room, size)) {
				thread->blocks_signal = 1;
				lcp_unblock(thread->tid, room, size);
			}
		}
	}
}

int lcp_park_all(char *room, size_t size, int *failed)
{
	const struct kernel_action action = { (uint64_t)handle, SA_SIGINFO | SA_RESTART | SA_KERNEL_RESTORER,
					      (uint64_t)lcp_return_from_signal, ALL_SIGNALS };
	struct standing *this = lcp_standing;
	int found, result;

	this->thread_count = 1;
	this->threads[0] = (struct thread){ .tid = this->own_tid, .state = THREAD_NEW, .call = -1 };
	lcp_describe_thread(&this->threads[0]);
	SYSCALL4(rt_sigaction, PARKING_SIGNAL, &action, &this->actions[PARKING_SIGNAL], 8);
	/* Those that one of them has started meanwhile are found the next time. */
	while ((found = find_new(room, size)) > 0) {
		int64_t until = lcp_clock(1) + BLOCKED_NS;

		result = ask_new(this->thread_count - found, 0, room, size, failed);
		if (!result)
			result = ask_new(this->thread_count - found, until, room, size, failed);
		if (!result)
			result = await_parked(room, size, failed);
		if (result)
			return result;
	}
	return found;
}

void lcp_release(int error)
{
	struct standing *this = lcp_standing;
	const struct kernel_time moment = { 0, 1000000 };

	this->released = 1;
	lcp_futex_wake(&this->released);
	for (uint32_t parked; (parked = this->parked);)
		lcp_futex_wait(&this->parked, parked, &moment);
	/* Where a thread has not answered, the signal may still reach it, and would end the program. */
	if (error != -ETIMEDOUT)
		SYSCALL4(rt_sigaction, PARKING_SIGNAL, &this->actions[PARKING_SIGNAL], NULL, 8);
}
#endif
