/*
 * The launcher's part of a standby pool (libcriu_py/copies/standby/pool.py): ask it for a copy that waits already.
 *
 * A copy inherits from the pool what a restore inherits from its launcher, so a launcher describes itself, and the pool
 * gives a copy only to one that is as the pool is.
 */
#define _GNU_SOURCE
#include "support.h"
#include "parts.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* A pool that does not answer for so long is stopped, or has too much to do. */
#define ANSWER_MS 100
#define IOPRIO_WHO_PROCESS 1

int lcp_standby_name(const char *manifest, char *name, size_t size)
{
	struct stat status;

	if (stat(manifest, &status))
		return -errno;
	/* A manifest is never written to but replaced, so this is one state of one snapshot. */
	return snprintf(name, size, "standby-%llx-%llx-%llx", (unsigned long long)status.st_dev,
			(unsigned long long)status.st_ino,
			(unsigned long long)status.st_mtim.tv_sec * 1000000000ULL +
			(unsigned long long)status.st_mtim.tv_nsec) < (int)size ? 0 : -ENAMETOOLONG;
}

/* ---- who asks --------------------------------------------------------- */

struct words {
	char *text;
	size_t size, room;
};

static void add(struct words *words, const char *format, ...)
{
	size_t left = words->room - words->size;
	va_list arguments;
	int n;

	va_start(arguments, format);
	n = vsnprintf(words->text + words->size, left, format, arguments);
	va_end(arguments);
	words->size += n > 0 && (size_t)n < left ? (size_t)n : left; /* room is used up: all of it counts */
}

/* A small file of /proc as text, without its last line's end; "" where it cannot be read. */
static char *slurp(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);

	if (fd >= 0)
		close(fd);
	while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\0'))
		n--;
	text[n > 0 ? n : 0] = '\0';
	return text;
}

/* Of /proc/self/status what a restore would inherit, or what decides on how it is allowed. */
static void add_status(struct words *words)
{
	static const char *const wanted[] = {
		"Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:",
		"Seccomp_filters:", "Cpus_allowed:", "Mems_allowed:",
	};
	char status[16384], *rest = slurp("/proc/self/status", status, sizeof(status)), *line;

	while ((line = strsep(&rest, "\n")))
		for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++)
			if (!strncmp(line, wanted[i], strlen(wanted[i])))
				add(words, "%s\n", line);
}

static void add_places(struct words *words)
{
	static const char *const places[] = {
		"/proc/self/ns/cgroup", "/proc/self/ns/ipc", "/proc/self/ns/mnt", "/proc/self/ns/net", "/proc/self/ns/pid",
		"/proc/self/ns/time", "/proc/self/ns/user", "/proc/self/ns/uts", "/",
	};
	struct stat status;

	add(words, "Places:");
	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++)
		if (!stat(places[i], &status))
			add(words, " %llx-%llx", (unsigned long long)status.st_dev, (unsigned long long)status.st_ino);
	add(words, "\n");
}

static void add_limits(struct words *words)
{
	add(words, "Limits:");
	for (int number = 0; number < (int)RLIM_NLIMITS; number++) {
		struct rlimit limit = { 0, 0 };

		getrlimit((__rlimit_resource_t)number, &limit);
		add(words, " %llu", (unsigned long long)limit.rlim_max);
	}
	add(words, "\n");
}

/* 0: no controlling terminal, 1: there is one, 2: and one of the standard streams is a terminal. */
static int use_of_terminal(void)
{
	char text[1024], *end = strrchr(slurp("/proc/self/stat", text, sizeof(text)), ')');
	int number, used = 0;

	if (end && sscanf(end + 1, " %*c %*d %*d %*d %d", &number) == 1 && number == 0)
		return 0;
	for (int i = 0; i < 3; i++)
		used |= isatty(i);
	return used ? 2 : 1;
}

ssize_t lcp_standby_describe(const char *mode, char *text, size_t size)
{
	struct words words = { text, 0, size };
	char file[8192], *rest, *line;
	int schedule[3] = { 0 };

	add(&words, "Mode: %s\n", mode);
	add_status(&words);
	add_places(&words);
	add(&words, "Label: %s\n", slurp("/proc/self/attr/current", file, sizeof(file)));
	lcp_get_schedule(0, schedule);
	add(&words, "Priority: %d %d %d %ld\n", schedule[0], schedule[1], schedule[2],
	    syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0));
	add_limits(&words);
	add(&words, "Terminal: %d\n", use_of_terminal());
	rest = slurp("/proc/self/cgroup", file, sizeof(file));
	while ((line = strsep(&rest, "\n")))
		add(&words, "Cgroup: %s\n", line);
	return words.size < size ? (ssize_t)words.size : -E2BIG;
}

/* ---- asking ----------------------------------------------------------- */

static int connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct ucred cred;
	socklen_t size = sizeof(cred);
	/* Not blocking: where many wait already a restore is faster. */
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error = 0;

	if (sock < 0)
		return -errno;
	if (strlen(path) >= sizeof(address.sun_path)) {
		error = ENAMETOOLONG;
	} else {
		strcpy(address.sun_path, path);
		if (connect(sock, (struct sockaddr *)&address, sizeof(address)))
			error = errno;
		else if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &size) || cred.uid != geteuid())
			error = EPERM; /* it would be given our streams */
	}
	if (!error)
		return sock;
	close(sock);
	return -error;
}

/*
 * Remove the socket of a pool that was killed. A pool puts its own in place under the same lock, so that a
 * socket nobody listens on is never a new one.
 */
static void forget(const char *path)
{
	char directory[sizeof(((struct sockaddr_un *)NULL)->sun_path)], *slash;
	int fd, sock;

	if (strlen(path) >= sizeof(directory))
		return;
	slash = strrchr(strcpy(directory, path), '/');
	if (!slash)
		return;
	*slash = '\0';
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (!flock(fd, LOCK_EX | LOCK_NB)) {
		sock = connect_to(path);
		if (sock == -ECONNREFUSED)
			unlink(path);
		else if (sock >= 0)
			close(sock);
	}
	close(fd);
}

int lcp_standby_take(const char *path, const char *text, size_t size, int *fds)
{
	int sock = connect_to(path), count = 3, result;
	struct pollfd polled = { sock, POLLIN, 0 };
	char answer;

	if (sock < 0) {
		if (sock == -ECONNREFUSED)
			forget(path);
		return sock;
	}
	result = lcp_send(sock, text, size);
	if (!result && poll(&polled, 1, ANSWER_MS) != 1)
		result = -ETIMEDOUT;
	if (!result && lcp_receive_message(sock, &answer, 1, fds, &count) < 0)
		result = -errno;
	close(sock);
	if (result || count == 3)
		return result;
	while (count > 0)
		close(fds[--count]);
	return -EBUSY;
}
