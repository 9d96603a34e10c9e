/*
 * A process for tests of the loader, without libc: what a plan's `resume` is. It does what the letters at COMMANDS say, and
 * ends with status 7.
 */
#include <asm/unistd.h>
#include "common/plan.h"

#define COMMANDS ((const char *)0x21000000)
#define WHY ((const char *)0x21000800)
#define RANGE ((const char *const *)0x21000c00) /* memory to be printed: start, size */
#define THREAD_WORD 40 /* from the thread pointer, a word that is 0x1234 */

static char buffer[65536];

static long call(long number, long a, long b, long c, long d)
{
	register long r10 __asm__("r10") = d;
	long result;

	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return result;
}

__attribute__((noreturn)) static void end(int status)
{
	for (;;)
		call(__NR_exit_group, status, 0, 0, 0);
}

static void write_out(const char *text, long size)
{
	for (long n; size > 0; text += n, size -= n) {
		n = call(__NR_write, 1, (long)text, size, 0);
		if (n <= 0)
			end(9);
	}
}

static void copy_out(const char *path)
{
	long fd = call(__NR_open, (long)path, 0, 0, 0), n;

	while ((n = call(__NR_read, fd, (long)buffer, sizeof(buffer), 0)) > 0)
		write_out(buffer, n);
	call(__NR_close, fd, 0, 0, 0);
}

/* Print the content of what comes with a message of a socket, or the message itself if nothing comes with it. */
static void receive(int fd)
{
	struct { long size; int level, type, fd, unused; } control = { 0 };
	struct { void *start; long size; } vector = { buffer, sizeof(buffer) };
	struct {
		void *name; long name_size; void *vectors; long count; void *control; long control_size; long flags;
	} message = { 0, 0, &vector, 1, &control, sizeof(control), 0 };
	long n = call(__NR_recvmsg, fd, (long)&message, 0x40 /* MSG_DONTWAIT */, 0);

	if (control.size) {
		n = call(__NR_pread64, control.fd, (long)buffer, sizeof(buffer), 0);
		call(__NR_close, control.fd, 0, 0, 0);
	}
	write_out(buffer, n > 0 ? n : 0);
	write_out("\n", 1);
}

static void read_some(int fd)
{
	long n = call(__NR_read, fd, (long)buffer, sizeof(buffer), 0);

	write_out(buffer, n > 0 ? n : 0);
	write_out("\n", 1);
}

/* Print how many events an epoll instance has, and the first. */
static void poll_events(int fd)
{
	struct { int count; unsigned int events, low, high; } found = { 0 };

	found.count = (int)call(__NR_epoll_wait, fd, (long)&found.events, 1, 0);
	write_out((char *)&found, sizeof(found));
}

static long thread_word(void)
{
	long word;

	__asm__("mov %%fs:%c1, %0" : "=r"(word) : "i"(THREAD_WORD));
	return word;
}

__attribute__((used, noreturn)) void begin(const struct plan_arrival *arrival, long stack)
{
	for (const char *at = COMMANDS; *at; at++) {
		switch (*at) {
		case 'o': write_out("ok\n", 3); break;
		case 'm': copy_out("/proc/self/maps"); break;
		case 's': copy_out("/proc/self/status"); break;
		case 'a': copy_out("/proc/self/smaps"); break;
		case 'w': call(__NR_write, 1, (long)WHY, 64, 0); break;
		case 'r': receive(*++at - '0'); break;
		case 'd': read_some(*++at - '0'); break;
		case 'e': poll_events(*++at - '0'); break;
		case 't': write_out(thread_word() == 0x1234 ? "thread\n" : "none\n", thread_word() == 0x1234 ? 7 : 5); break;
		case 'p': write_out(RANGE[0], (long)RANGE[1]); break;
		case 'k': write_out((char *)&stack, 8); break;
		case 'f': arrival->fall_back(WHY, -12); break;
		case 'c': write_out((const char *)&arrival->monotonic_jump, 16); break;
		case 'x': /* long enough to be interrupted by the scheduler */
			for (volatile long i = 0; i < 100000000; i++)
				;
			break;
		case 'v': /* call a function of the vdso: clock, time */
			((long (*)(long, void *))RANGE[0])((long)RANGE[1], buffer);
			write_out(buffer, 16);
			break;
		case 'u': call(__NR_munmap, (long)arrival->region, (long)arrival->region_size, 0, 0); break;
		case 'l': /* which descriptors are open, how, and whether an exec closes them */
			arrival->settle();
			for (int fd = 0; fd < 64; fd++) {
				long flags = call(__NR_fcntl, fd, 3, 0, 0), close = call(__NR_fcntl, fd, 1, 0, 0);
				int line[3] = { fd, (int)flags, (int)close };

				if (flags >= 0)
					write_out((char *)line, sizeof(line));
			}
			break;
		default: end(8);
		}
	}
	end(7);
}

__asm__(".globl resume\nresume:\n\tmov %rsp, %rsi\n\tand $-16, %rsp\n\tcall begin\n\thlt\n");
