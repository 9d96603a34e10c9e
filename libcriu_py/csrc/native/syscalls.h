/*
 * System calls without libc, and what little of it is needed while threads stand still: one of them may hold any lock
 * of libc, and no byte of the program's memory may change.
 */
#ifndef LCP_SYSCALLS_H
#define LCP_SYSCALLS_H

#include <asm/unistd.h>
#include <stddef.h>
#include <stdint.h>

/* Or the compiler makes calls of memset and memcpy from loops. */
#pragma GCC optimize("no-tree-loop-distribute-patterns")

static inline long lcp_syscall6(long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f)
{
	register uint64_t r10 __asm__("r10") = d;
	register uint64_t r8 __asm__("r8") = e;
	register uint64_t r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

#define SYSCALL6(name, a, b, c, d, e, f)                                                                       \
	lcp_syscall6(__NR_##name, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d), (uint64_t)(e), \
		     (uint64_t)(f))
#define SYSCALL5(name, a, b, c, d, e) SYSCALL6(name, a, b, c, d, e, 0)
#define SYSCALL4(name, a, b, c, d) SYSCALL6(name, a, b, c, d, 0, 0)
#define SYSCALL3(name, a, b, c) SYSCALL6(name, a, b, c, 0, 0, 0)
#define SYSCALL2(name, a, b) SYSCALL6(name, a, b, 0, 0, 0, 0)
#define SYSCALL1(name, a) SYSCALL6(name, a, 0, 0, 0, 0, 0)
#define SYSCALL0(name) SYSCALL6(name, 0, 0, 0, 0, 0, 0)

/* As the kernel has it, which is not as libc has it. */
struct kernel_action {
	uint64_t handler, flags, restorer, mask;
};

struct kernel_time {
	int64_t seconds, nanoseconds;
};

#define KERNEL_WAIT_ALL 0x40000000 /* __WALL: also children whose end sends no signal */
#define ALL_SIGNALS (~0ull)

static inline int64_t lcp_clock(int clock)
{
	struct kernel_time now;

	SYSCALL2(clock_gettime, clock, &now);
	return now.seconds * 1000000000 + now.nanoseconds;
}

static inline void lcp_sleep_us(long microseconds)
{
	struct kernel_time time = { 0, microseconds * 1000 };

	SYSCALL2(nanosleep, &time, NULL);
}

static inline void lcp_futex_wait(volatile uint32_t *word, uint32_t value, const struct kernel_time *limit)
{
	SYSCALL4(futex, word, 128 /* FUTEX_WAIT_PRIVATE */, value, limit);
}

static inline void lcp_futex_wake(volatile uint32_t *word)
{
	SYSCALL3(futex, word, 129 /* FUTEX_WAKE_PRIVATE */, 1 << 30);
}

static inline size_t lcp_length(const char *text)
{
	size_t length = 0;

	while (text[length])
		length++;
	return length;
}

static inline int lcp_begins(const char *text, const char *prefix)
{
	while (*prefix)
		if (*text++ != *prefix++)
			return 0;
	return 1;
}

/* Put a text, or a number, at `to`; where the next goes, at the NUL. */
static inline char *lcp_put(char *to, const char *text)
{
	while (*text)
		*to++ = *text++;
	*to = '\0';
	return to;
}

static inline char *lcp_put_number(char *to, uint64_t value, unsigned int base)
{
	char digits[24];
	int count = 0;

	do
		digits[count++] = "0123456789abcdef"[value % base];
	while (value /= base);
	while (count)
		*to++ = digits[--count];
	*to = '\0';
	return to;
}

/* Read a number, and move behind it. */
static inline uint64_t lcp_take_hex(const char **text)
{
	uint64_t value = 0;

	for (;; (*text)++) {
		char c = **text;

		if (c >= '0' && c <= '9')
			value = value * 16 + (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			value = value * 16 + (uint64_t)(c - 'a' + 10);
		else
			return value;
	}
}

static inline uint64_t lcp_take_decimal(const char **text)
{
	uint64_t value = 0;

	for (; **text >= '0' && **text <= '9'; (*text)++)
		value = value * 10 + (uint64_t)(**text - '0');
	return value;
}

/* Read a whole file of /proc as text; its length or -errno, -E2BIG where there is no room. */
long lcp_slurp(const char *path, char *text, size_t room);
/* Put the path of a file of a thread of this process, or of the process itself where that is 0. */
char *lcp_task_path(char *to, int thread, const char *name);

#endif
