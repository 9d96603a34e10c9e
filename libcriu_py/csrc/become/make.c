/* One descriptor of each kind. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <time.h>
#include <unistd.h>

#include "become/places.h"
#include "become/reader.h"
#include "become/why.h"
#include "common/cleanup.h"

#define SECOND 1000000000LL
#define SET_TICKS _IOW('T', 0, uint64_t) /* TFD_IOC_SET_TICKS of linux/timerfd.h */
#define NO_EXEC 8u     /* MFD_NOEXEC_SEAL and MFD_EXEC of Linux 6.3 */
#define EXECUTABLE 16u
#define SEAL_EXEC 32u  /* F_SEAL_EXEC */
#define TRIES 100      /* of 10 ms, to lock a directory */
#define DEFAULT_CAPACITY 65536

/* ---- files -------------------------------------------------------------------- */

static int open_path(const struct places *places, const struct plan_descriptor *row, struct why *why)
{
	const char *path = plan_at(places->plan, row->data.offset);
	/* A FIFO in the place of a file must not make us wait. */
	AUTO_CLOSE int fd = open(path, (int)row->flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat status;

	if (fd < 0 || fstat(fd, &status))
		return lcp_why(why, "%s, which the program has open, cannot be opened: %s", path, strerror(errno));
	if ((status.st_mode & S_IFMT) != row->form)
		return lcp_why(why, "%s, which the program has open, is not what it was", path);
	if (row->other_offset != PLAN_ANY_SIZE && (uint64_t)status.st_size != row->other_offset)
		return lcp_why(why, "%s, which the program has open, has not the size that it had", path);
	if (!(row->flags & (O_PATH | O_NONBLOCK)) && fcntl(fd, F_SETFL, row->flags))
		return lcp_why(why, "%s cannot be used as it was: %s", path, strerror(errno));
	if (row->value && lseek(fd, (off_t)row->value, SEEK_SET) < 0)
		return lcp_why(why, "%s cannot be read on where it was: %s", path, strerror(errno));
	return lcp_keep_fd(&fd);
}

/* Copy from memory.img what is no hole; 0, or -1 with errno. */
static int copy_content(int memory, const struct plan_memory *from, int fd)
{
	off_t at = (off_t)from->offset, end = at + (off_t)from->size, hole;
	struct stat status;

	if (fstat(memory, &status) || status.st_size < end) {
		errno = EIO;
		return -1;
	}
	while ((at = lseek(memory, at, SEEK_DATA)) >= 0 && at < end) {
		hole = lseek(memory, at, SEEK_HOLE);
		hole = hole < end ? hole : end;
		lseek(fd, at - (off_t)from->offset, SEEK_SET);
		while (at < hole) {
			ssize_t n = sendfile(fd, memory, &at, (size_t)(hole - at));

			if (n <= 0 && errno != EINTR)
				return -1;
		}
	}
	return 0;
}

static int open_again(int fd, uint32_t flags)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, (int)flags | O_CLOEXEC);
}

/* With its content, and whoever may execute it; older kernels do not ask for that. */
static int new_memory(const struct places *places, const struct plan_memory *memory)
{
	unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	unsigned int rights = memory->seals & SEAL_EXEC && !(memory->mode & 0111) ? NO_EXEC : EXECUTABLE;
	AUTO_CLOSE int fd = memfd_create((const char *)(memory + 1), flags | rights);

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create((const char *)(memory + 1), flags);
	if (fd < 0 || ftruncate(fd, (off_t)memory->size) || copy_content(places->memory, memory, fd) ||
	    fchmod(fd, memory->mode) || fcntl(fd, F_ADD_SEALS, memory->seals))
		return -1;
	return lcp_keep_fd(&fd);
}

static int make_memory(const struct places *places, const struct plan_descriptor *row)
{
	AUTO_CLOSE int made = row->other < 0 ? new_memory(places, plan_at(places->plan, row->data.offset)) : -1, fd = -1;

	if (row->other < 0 && made < 0)
		return -1;
	fd = row->other < 0 && (row->flags & O_ACCMODE) == O_RDWR ? lcp_keep_fd(&made) :
								      open_again(made < 0 ? row->other : made, row->flags);
	if (fd < 0 || fcntl(fd, F_SETFL, row->flags) || lseek(fd, (off_t)row->value, SEEK_SET) < 0)
		return -1;
	return lcp_keep_fd(&fd);
}

/* ---- what counts and waits ------------------------------------------------------- */

static int make_counter(const struct plan_descriptor *row)
{
	AUTO_CLOSE int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | (row->flags & 1 ? EFD_SEMAPHORE : 0));

	if (fd < 0 || (row->value && write(fd, &row->value, sizeof(row->value)) < 0) ||
	    (!(row->flags & O_NONBLOCK) && fcntl(fd, F_SETFL, 0)))
		return -1;
	return lcp_keep_fd(&fd);
}

static struct timespec in_ns(int64_t ns)
{
	return (struct timespec){ ns / SECOND, ns % SECOND };
}

static int make_timer(const struct places *places, const struct plan_descriptor *row)
{
	const struct plan_timer *timer = plan_at(places->plan, row->data.offset);
	AUTO_CLOSE int fd = timerfd_create((int)row->value, TFD_CLOEXEC | (row->flags & O_NONBLOCK ? TFD_NONBLOCK : 0));
	struct itimerspec when = { in_ns(timer->interval_ns), in_ns(timer->value_ns) };

	if (fd < 0 || timerfd_settime(fd, 0, &when, NULL) || (timer->expired && ioctl(fd, SET_TICKS, &timer->expired)))
		return -1;
	return lcp_keep_fd(&fd);
}

static int make_signals(const struct plan_descriptor *row)
{
	sigset_t mask;

	sigemptyset(&mask);
	memcpy(&mask, &row->value, sizeof(row->value)); /* glibc's begins as the kernel's */
	return signalfd(-1, &mask, SFD_CLOEXEC | (row->flags & O_NONBLOCK ? SFD_NONBLOCK : 0));
}

/* ---- sockets and pipes ------------------------------------------------------------ */

static int has_option(int fd, int level, int option, int wanted)
{
	const int on = 1;

	return !wanted || !setsockopt(fd, level, option, &on, sizeof(on));
}

/* Whether somebody listens at a path, where the program did. */
static int is_taken(const struct sockaddr_un *address, socklen_t length, int type)
{
	AUTO_CLOSE int probe = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return probe < 0 || !connect(probe, (const void *)address, length) || (errno != ECONNREFUSED && errno != ENOENT);
}

/* Listen at a path in the place of a socket on which nobody does, as the dumped process leaves; one copy at a time. */
static int listen_at_path(int fd, const struct plan_descriptor *row, const struct plan_listener *listener, socklen_t length)
{
	const struct sockaddr_un *address = (const void *)(listener + 1);
	const struct timespec moment = { 0, 10000000 };
	char directory[sizeof(address->sun_path) + 1] = "";
	AUTO_CLOSE int lock = -1;
	struct stat status;
	int result = -1;

	memcpy(directory, address->sun_path, length - offsetof(struct sockaddr_un, sun_path));
	*(strrchr(directory, '/') + 1) = '\0';
	lock = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int tries = 0; lock >= 0 && tries < TRIES && (result = flock(lock, LOCK_EX | LOCK_NB)); tries++)
		nanosleep(&moment, NULL);
	if (result)
		return -1;
	if (is_taken(address, length, (int)(row->value >> 16 & 0xFFFF))) {
		errno = EADDRINUSE;
		return -1;
	}
	if (!lstat(address->sun_path, &status) && S_ISSOCK(status.st_mode))
		unlink(address->sun_path);
	return bind(fd, (const void *)address, length) || chmod(address->sun_path, (mode_t)row->other_offset) ||
			       listen(fd, (int)listener->backlog) ? -1 : 0;
}

static int make_listener(const struct places *places, const struct plan_descriptor *row)
{
	const struct plan_listener *listener = plan_at(places->plan, row->data.offset);
	int domain = (int)(row->value >> 32), type = (int)(row->value >> 16 & 0xFFFF), protocol = (int)(row->value & 0xFFFF);
	socklen_t length = (socklen_t)(row->data.length - sizeof(*listener));
	AUTO_CLOSE int fd = socket(domain, type | SOCK_CLOEXEC | (row->flags & O_NONBLOCK ? SOCK_NONBLOCK : 0), protocol);

	if (fd < 0 || !has_option(fd, SOL_SOCKET, SO_REUSEADDR, listener->options & PLAN_REUSE_ADDRESS) ||
	    !has_option(fd, SOL_SOCKET, SO_REUSEPORT, listener->options & PLAN_REUSE_PORT) ||
	    !has_option(fd, SOL_SOCKET, SO_KEEPALIVE, listener->options & PLAN_KEEPALIVE) ||
	    !has_option(fd, IPPROTO_TCP, TCP_NODELAY, listener->options & PLAN_NO_DELAY) ||
	    (domain == AF_INET6 &&
	     setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){ !!(listener->options & PLAN_ONLY_V6) }, sizeof(int))) ||
	    (domain == AF_UNIX && ((const struct sockaddr_un *)(listener + 1))->sun_path[0] ?
		     listen_at_path(fd, row, listener, length) :
		     bind(fd, (const void *)(listener + 1), length) || listen(fd, (int)listener->backlog)))
		return -1;
	return lcp_keep_fd(&fd);
}

/* Queue what a read of the one end is to find, by the other; 0, or -1 with errno. */
static int queue(const struct places *places, struct plan_bytes data, int writer)
{
	const char *at = plan_at(places->plan, data.offset);
	int flags = fcntl(writer, F_GETFL);
	ssize_t n;

	if (!data.length)
		return 0;
	fcntl(writer, F_SETFL, flags | O_NONBLOCK);
	n = write(writer, at, data.length);
	fcntl(writer, F_SETFL, flags);
	if (n < 0 || (size_t)n == data.length)
		return n < 0 ? -1 : 0;
	errno = ENOBUFS;
	return -1;
}

static int make_pair(const struct places *places, const struct plan_descriptor *row, int pair[2])
{
	const struct plan_descriptor *other = row + 1;
	int result;

	if (row->kind == PLAN_PIPE) {
		result = pipe2(pair, O_CLOEXEC | (int)(row->flags & O_DIRECT));
		if (!result && row->value != DEFAULT_CAPACITY)
			result = fcntl(pair[0], F_SETPIPE_SZ, (int)row->value) < 0 ? -1 : 0;
	} else {
		result = socketpair(AF_UNIX, (int)row->value | SOCK_CLOEXEC, 0, pair);
	}
	if (result || queue(places, row->data, pair[1]) || queue(places, other->data, pair[0]) ||
	    (row->flags & O_NONBLOCK && fcntl(pair[0], F_SETFL, row->flags & ~(uint32_t)O_ACCMODE)) ||
	    (other->flags & O_NONBLOCK && fcntl(pair[1], F_SETFL, other->flags & ~(uint32_t)O_ACCMODE)))
		return -1;
	return 0;
}

/* ---- any ----------------------------------------------------------------------------- */

static const char *const names[] = {
	[PLAN_REQUEST] = "the request's socket", [PLAN_DUPLICATE] = "a duplicate", [PLAN_SOCKET_PAIR] = "a pair of sockets",
	[PLAN_PIPE] = "a pipe", [PLAN_EPOLL] = "an epoll instance", [PLAN_EVENTFD] = "an eventfd",
	[PLAN_TIMERFD] = "a timerfd", [PLAN_SIGNALFD] = "a signalfd", [PLAN_MEMFD] = "a memfd",
	[PLAN_LISTENER] = "a listening socket",
};

int lcp_make_descriptor(const struct places *places, const struct plan_descriptor *row, int slot, int pair[2],
			struct why *why)
{
	int result = -1;

	switch (row->kind) {
	case PLAN_OPEN:
		pair[0] = open_path(places, row, why);
		return pair[0] < 0 ? -1 : 0;
	case PLAN_SOCKET_PAIR:
	case PLAN_PIPE:
		result = make_pair(places, row, pair);
		break;
	case PLAN_REQUEST:
		pair[0] = result = fcntl(slot, F_DUPFD_CLOEXEC, 3);
		if (result >= 0 && row->flags & O_NONBLOCK)
			result = fcntl(result, F_SETFL, O_NONBLOCK);
		break;
	case PLAN_DUPLICATE:
		pair[0] = result = fcntl(row->other, F_DUPFD_CLOEXEC, 3);
		break;
	case PLAN_EPOLL:
		pair[0] = result = epoll_create1(EPOLL_CLOEXEC);
		break;
	case PLAN_EVENTFD:
		pair[0] = result = make_counter(row);
		break;
	case PLAN_TIMERFD:
		pair[0] = result = make_timer(places, row);
		break;
	case PLAN_SIGNALFD:
		pair[0] = result = make_signals(row);
		break;
	case PLAN_MEMFD:
		pair[0] = result = make_memory(places, row);
		break;
	case PLAN_LISTENER:
		pair[0] = result = make_listener(places, row);
		break;
	}
	return result < 0 ? lcp_why(why, "%s (descriptor %d of the program) cannot be made: %s", names[row->kind], row->fd,
				    strerror(errno)) : 0;
}
