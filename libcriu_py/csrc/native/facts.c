#define _GNU_SOURCE
#include "native/scratch.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <errno.h>
#include <linux/kcmp.h>
#include <linux/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include "native/resume.h"
#include "native/timers.h"

#define COMPONENTS 32
#define MOST_NUMBERS 128
#define F_DUPFD_QUERY 1027
#define DESCRIPTORS 4096

/* ---- writing ---------------------------------------------------------- */

static void append(struct scratch *this, const char *data, size_t size)
{
	if (this->text_size + size > sizeof(this->text))
		lcp_write_facts(this);
	if (size > sizeof(this->text)) {
		this->error = this->error ? this->error : -E2BIG;
		return;
	}
	for (size_t i = 0; i < size; i++)
		this->text[this->text_size++] = data[i];
}

void lcp_write_facts(struct scratch *this)
{
	for (size_t done = 0; done < this->text_size;) {
		long n = SYSCALL3(write, this->native->facts, this->text + done, this->text_size - done);

		if (n <= 0) {
			this->error = this->error ? this->error : n ? n : -EIO;
			break;
		}
		done += (size_t)n;
	}
	this->text_size = 0;
}

void lcp_fact(struct scratch *this, const char *name, const char *text, size_t size)
{
	char head[64], *end = lcp_put(lcp_put(head, name), " ");

	end = lcp_put(lcp_put_number(end, size, 10), "\n");
	append(this, head, (size_t)(end - head));
	append(this, text, size);
	append(this, "\n", 1);
}

static char *put_numbers(char *end, const uint64_t *numbers, int count)
{
	for (int i = 0; i < count; i++) {
		if (i)
			*end++ = ' ';
		end = lcp_put_number(end, numbers[i], 16);
	}
	return end;
}

void lcp_fact_numbers(struct scratch *this, const char *name, const uint64_t *numbers, int count)
{
	char text[17 * MOST_NUMBERS];

	lcp_fact(this, name, text, (size_t)(put_numbers(text, numbers, count) - text));
}

#define NUMBERS(this, name, ...)                                                                  \
	lcp_fact_numbers(this, name, (const uint64_t[]){ __VA_ARGS__ },                            \
			 (int)(sizeof((const uint64_t[]){ __VA_ARGS__ }) / sizeof(uint64_t)))

static void put_file(struct scratch *this, const char *name, const char *path)
{
	long size = lcp_slurp(path, this->room, sizeof(this->room));

	lcp_fact(this, name, this->room, size < 0 ? 0 : (size_t)size);
}

/* ---- the processor ---------------------------------------------------- */

static void put_processor(struct scratch *this)
{
	uint64_t numbers[1 + 3 * COMPONENTS];
	unsigned int a, b, c, d;
	int count = 1;

	__asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
	numbers[0] = (uint64_t)d << 32 | a;
	for (unsigned int i = 2; i < COMPONENTS; i++) {
		if (!(numbers[0] >> i & 1))
			continue;
		__cpuid_count(0xd, i, a, b, c, d);
		numbers[count++] = i;
		numbers[count++] = b;
		numbers[count++] = a;
	}
	lcp_fact_numbers(this, "xsave", numbers, count);
}

/* ---- threads ---------------------------------------------------------- */

static void put_threads(struct scratch *this)
{
	const struct standing *standing = lcp_standing;

	for (int i = 0; i < standing->thread_count; i++) {
		const struct thread *thread = &standing->threads[i];
		uint64_t numbers[] = { (uint64_t)thread->tid, thread->interrupted_at, thread->pending, thread->gs,
				       thread->robust ? *(const uint64_t *)thread->robust != thread->robust : 0 };
		char text[128], *end;

		if (thread->state == THREAD_GONE)
			continue;
		end = put_numbers(text, numbers, 5);
		*end++ = ' ';
		end = lcp_put(end, thread->name);
		lcp_fact(this, "thread", text, (size_t)(end - text));
	}
}

/* ---- descriptors ------------------------------------------------------ */

static void put_children(struct scratch *this)
{
	const struct standing *standing = lcp_standing;
	char path[64], text[4096];
	size_t size = 0;

	for (int i = 0; i < standing->thread_count && size < sizeof(text) - 1; i++) {
		long count;

		if (standing->threads[i].state == THREAD_GONE)
			continue;
		lcp_task_path(path, standing->threads[i].tid, "/children");
		count = lcp_slurp(path, text + size, sizeof(text) - size);
		size += count < 0 ? 0 : (size_t)count;
	}
	lcp_fact(this, "children", text, size);
}

struct open_file {
	int fd;
	uint64_t device, inode, rdev;
};

static void put_socket(int fd, uint64_t numbers[4])
{
	static const int options[] = { 39 /* SO_DOMAIN */, 3 /* SO_TYPE */, 38 /* SO_PROTOCOL */, 30 /* SO_ACCEPTCONN */ };

	for (int i = 0; i < 4; i++) {
		int value = 0, size = sizeof(value);

		SYSCALL5(getsockopt, fd, 1, options[i], &value, &size);
		numbers[i] = (uint64_t)value;
	}
}

/* Options that a new pair would not have; times in us. */
static void put_socket_options(struct scratch *this, int fd)
{
	static const int options[] = { 20 /* SO_RCVTIMEO */, 21 /* SO_SNDTIMEO */, 8 /* SO_RCVBUF */, 7 /* SO_SNDBUF */,
				       16 /* SO_PASSCRED */ };
	uint64_t numbers[5];

	for (int i = 0; i < 5; i++) {
		int64_t value[2] = { 0, 0 };
		int size = i < 2 ? sizeof(value) : sizeof(int);

		SYSCALL5(getsockopt, fd, 1, options[i], value, &size);
		numbers[i] = (uint64_t)(i < 2 ? value[0] * 1000000 + value[1] : value[0]);
	}
	lcp_fact_numbers(this, "socket", numbers, 5);
}

/* What a read of a socket would find, which stays there; -1 if that is not all of it, or descriptors are with it. */
static long peek(struct scratch *this, int fd)
{
	struct iovec place = { this->room, sizeof(this->room) };
	struct msghdr message = { .msg_iov = &place, .msg_iovlen = 1 };
	long size = SYSCALL3(recvmsg, fd, &message, MSG_PEEK | MSG_DONTWAIT);

	return message.msg_flags & (MSG_CTRUNC | MSG_TRUNC) ? -1 : size;
}

/* The same of a pipe. */
static long peek_into_pipe(struct scratch *this, int fd, size_t size)
{
	int other[2];
	long copied;

	if (SYSCALL2(pipe2, other, 02000000 /* O_CLOEXEC */))
		return -1;
	copied = SYSCALL4(tee, fd, other[1], size, 2 /* SPLICE_F_NONBLOCK */);
	if (copied > 0)
		copied = SYSCALL3(read, other[0], this->room, sizeof(this->room));
	SYSCALL1(close, other[0]);
	SYSCALL1(close, other[1]);
	return copied;
}

/* Add what is in a pipe, at the end that reads, or in a stream of bytes; nothing where not all of it can be had. */
static void put_queued(struct scratch *this, const uint64_t *numbers, size_t queued)
{
	int fd = (int)numbers[0], is_pipe = S_ISFIFO((mode_t)numbers[1]);
	long size = -1;

	if (is_pipe && !(numbers[7] & 3))
		size = peek_into_pipe(this, fd, queued);
	else if (numbers[12] == SOCK_STREAM)
		size = peek(this, fd);
	if (size == (long)queued)
		lcp_fact(this, "queued", this->room, queued);
}

struct option {
	int level, number;
};

static uint64_t option_of(int fd, struct option option)
{
	int value = 0, size = sizeof(value);

	SYSCALL5(getsockopt, fd, option.level, option.number, &value, &size);
	return (unsigned int)value;
}

/* Backlog, connections that nobody has accepted yet, options that are kept, whether there are others; the address. */
static void put_listener(struct scratch *this, int fd)
{
	/* As in enum plan_listener_options. */
	static const struct option kept[] = { { 1, 2 /* SO_REUSEADDR */ }, { 1, 15 /* SO_REUSEPORT */ },
					      { 41, 26 /* IPV6_V6ONLY */ }, { 1, 9 /* SO_KEEPALIVE */ },
					      { 6, 1 /* TCP_NODELAY */ } };
	static const struct option others[] = { { 1, 13 /* SO_LINGER */ }, { 1, 12 /* SO_PRIORITY */ },
						{ 1, 36 /* SO_MARK */ }, { 1, 25 /* SO_BINDTODEVICE */ },
						{ 6, 9 /* TCP_DEFER_ACCEPT */ }, { 6, 23 /* TCP_FASTOPEN */ },
						{ 0, 1 /* IP_TOS */ }, { 0, 15 /* IP_FREEBIND */ },
						{ 0, 19 /* IP_TRANSPARENT */ } };
	struct tcp_info info = { 0 };
	uint64_t numbers[4] = { 0 };
	char address[128];
	int size = sizeof(info), length = sizeof(address);

	SYSCALL5(getsockopt, fd, 6, TCP_INFO, &info, &size);
	numbers[0] = info.tcpi_sacked;
	numbers[1] = info.tcpi_unacked;
	for (unsigned int i = 0; i < sizeof(kept) / sizeof(*kept); i++)
		numbers[2] |= (uint64_t)!!option_of(fd, kept[i]) << i;
	for (unsigned int i = 0; i < sizeof(others) / sizeof(*others); i++)
		numbers[3] |= option_of(fd, others[i]);
	SYSCALL3(getsockname, fd, address, &length);
	lcp_fact_numbers(this, "listener", numbers, 4);
	lcp_fact(this, "address", address, (size_t)length < sizeof(address) ? (size_t)length : 0);
}

static void put_descriptor(struct scratch *this, int fd, struct open_file *file)
{
	char path[48], text[5000], *end;
	struct stat status;
	uint64_t numbers[15];
	int queued = 0;
	long size;

	SYSCALL2(fstat, fd, &status);
	*file = (struct open_file){ fd, status.st_dev, status.st_ino, status.st_rdev };
	if (S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode))
		SYSCALL3(ioctl, fd, 0x541b /* FIONREAD */, &queued);
	numbers[0] = (uint64_t)fd;
	numbers[1] = status.st_mode;
	numbers[2] = status.st_rdev;
	numbers[3] = status.st_dev;
	numbers[4] = status.st_ino;
	numbers[5] = (uint64_t)status.st_size;
	numbers[6] = (uint64_t)status.st_mtim.tv_sec * 1000000000 + (uint64_t)status.st_mtim.tv_nsec;
	numbers[7] = (uint64_t)SYSCALL2(fcntl, fd, 3 /* F_GETFL */);
	numbers[8] = (uint64_t)SYSCALL2(fcntl, fd, 1 /* F_GETFD */);
	numbers[9] = S_ISREG(status.st_mode) || S_ISDIR(status.st_mode) ? (uint64_t)SYSCALL3(lseek, fd, 0, 1) : 0;
	numbers[10] = (uint64_t)queued;
	numbers[11] = numbers[12] = numbers[13] = numbers[14] = 0;
	if (S_ISSOCK(status.st_mode))
		put_socket(fd, numbers + 11);
	end = put_numbers(text, numbers, 15);
	*end++ = ' ';
	lcp_put_number(lcp_put(path, "/proc/self/fd/"), (uint64_t)fd, 10);
	size = SYSCALL3(readlink, path, end, 4096);
	end[size < 0 ? 0 : size] = '\0';
	lcp_fact(this, "fd", text, (size_t)(end - text) + (size_t)(size < 0 ? 0 : size));
	lcp_put_number(lcp_put(path, "/proc/self/fdinfo/"), (uint64_t)fd, 10);
	put_file(this, "fdinfo", path);
	if (S_ISSOCK(status.st_mode))
		put_socket_options(this, fd);
	else if (lcp_begins(end, "/memfd:"))
		lcp_write_memfd(this, fd);
	if (numbers[14])
		put_listener(this, fd);
	else if (queued)
		put_queued(this, numbers, (size_t)queued);
}

/* Whether two descriptors share what is open; negative: nobody can tell. */
static long is_same(int a, int b)
{
	long result = SYSCALL3(fcntl, a, F_DUPFD_QUERY, b);

	if (result >= 0)
		return result;
	result = SYSCALL5(kcmp, lcp_standing->pid, lcp_standing->pid, KCMP_FILE, a, b);
	return result < 0 ? result : !result;
}

static int is_ours(const struct lcp_native *native, int fd)
{
	return fd == native->order || fd == native->facts || fd == native->memory || fd == native->result ||
	       fd == native->staging || fd == native->stages[0] || fd == native->stages[1];
}

static int list_descriptors(struct scratch *this, int *found)
{
	long fd = SYSCALL3(open, "/proc/self/fd", 02200000, 0), count;
	int all = 0;

	if (fd < 0)
		return (int)fd;
	while ((count = SYSCALL3(getdents64, fd, this->room, 65536)) > 0)
		for (long at = 0; at < count; at += *(unsigned short *)(this->room + at + 16)) {
			const char *name = this->room + at + 19;
			int number = *name >= '0' && *name <= '9' ? (int)lcp_take_decimal(&name) : (int)fd;

			if (number == fd || is_ours(this->native, number))
				continue;
			if (all == DESCRIPTORS) {
				all = -EMFILE;
				break;
			}
			found[all++] = number;
		}
	SYSCALL1(close, fd);
	return all;
}

static void put_descriptors(struct scratch *this)
{
	int *found = (int *)this->pages, count = list_descriptors(this, found), is_unknown = 0;
	struct open_file *files = (struct open_file *)(found + DESCRIPTORS);

	if (count < 0) {
		this->error = count;
		return;
	}
	for (int i = 0; i < count; i++)
		put_descriptor(this, found[i], &files[i]);
	for (int i = 0; i < count; i++)
		for (int k = i + 1; k < count; k++) {
			long same;

			if (files[i].device != files[k].device || files[i].inode != files[k].inode ||
			    files[i].rdev != files[k].rdev)
				continue;
			same = is_same(files[i].fd, files[k].fd);
			if (same > 0)
				NUMBERS(this, "same", (uint64_t)files[i].fd, (uint64_t)files[k].fd);
			is_unknown |= same < 0;
		}
	if (is_unknown)
		NUMBERS(this, "cannot_compare", 1);
}

/* ---- all of it -------------------------------------------------------- */

void lcp_collect_facts(struct scratch *this)
{
	const struct lcp_native *native = this->native;
	const struct standing *standing = lcp_standing;
	const struct thread *leader = &standing->threads[standing->leader];

	lcp_fact(this, "format", "1", 1);
	NUMBERS(this, "resume", (uint64_t)lcp_native_resume, lcp_resume_stack(leader), leader->fs);
	NUMBERS(this, "slot", (uint64_t)native->slot);
	NUMBERS(this, "scratch", (uint64_t)this, ((uint64_t)this + sizeof(*this) + 4095) & ~4095ull);
	NUMBERS(this, "clocks", (uint64_t)lcp_clock(1), (uint64_t)lcp_clock(7));
	put_processor(this);
	put_threads(this);
	put_children(this);
	lcp_note_timers(this); /* before signals that may be pending of them */
	put_file(this, "auxv", "/proc/self/auxv");
	put_file(this, "status", "/proc/self/status");
	put_file(this, "stat", "/proc/self/stat");
	put_descriptors(this);
}
#endif
