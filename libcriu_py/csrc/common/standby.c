/*
 * The launcher's part of a standby pool (libcriu_py/copies/standby/pool.py): ask it for a copy that waits already.
 *
 * A copy inherits from the pool what a restore inherits from its launcher, so a launcher describes itself, and the pool
 * gives a copy only to one that is as the pool is.
 */
#define _GNU_SOURCE
#include "common/standby.h"

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

#include "common/cleanup.h"
#include "common/descriptors.h"
#include "common/files.h"
#include "common/process.h"

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

/* Of /proc/self/status what a restore would inherit, or what decides on how it is allowed. */
static void add_status(struct words *words)
{
	static const char *const wanted[] = {
		"Uid:",	   "Gid:",	  "Groups:",  "CapInh:",	  "CapPrm:",	   "CapEff:",	    "CapBnd:",
		"CapAmb:", "NoNewPrivs:", "Seccomp:", "Seccomp_filters:", "Cpus_allowed:", "Mems_allowed:",
	};
	AUTO_FREE char *status = lcp_read_whole(AT_FDCWD, "/proc/self/status", SIZE_MAX);
	char *rest = status, *line;

	while ((line = strsep(&rest, "\n")))
		for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++)
			if (!strncmp(line, wanted[i], strlen(wanted[i])))
				add(words, "%s\n", line);
}

static void add_places(struct words *words)
{
	static const char *const places[] = {
		"/proc/self/ns/cgroup", "/proc/self/ns/ipc", "/proc/self/ns/mnt",
		"/proc/self/ns/net",	"/proc/self/ns/pid", "/proc/self/ns/time",
		"/proc/self/ns/user",	"/proc/self/ns/uts", "/",
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
	char text[1024], *end;
	int number, used = 0;

	lcp_read_text("/proc/self/stat", text, sizeof(text));
	end = strrchr(text, ')');
	if (end && sscanf(end + 1, " %*c %*d %*d %*d %d", &number) == 1 && number == 0)
		return 0;
	for (int i = 0; i < 3; i++)
		used |= isatty(i);
	return used ? 2 : 1;
}

ssize_t lcp_standby_describe(const char *mode, char *text, size_t size)
{
	struct words words = { text, 0, size };
	AUTO_FREE char *cgroups = lcp_read_whole(AT_FDCWD, "/proc/self/cgroup", SIZE_MAX);
	char *rest = cgroups, *line, label[1024];
	int schedule[3] = { 0 };

	add(&words, "Mode: %s\n", mode);
	add_status(&words);
	add_places(&words);
	lcp_read_text("/proc/self/attr/current", label, sizeof(label));
	add(&words, "Label: %s\n", label);
	lcp_get_schedule(0, schedule);
	add(&words, "Priority: %d %d %d %ld\n", schedule[0], schedule[1], schedule[2],
	    syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0));
	add_limits(&words);
	add(&words, "Terminal: %d\n", use_of_terminal());
	while ((line = strsep(&rest, "\n")))
		if (*line)
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
	AUTO_CLOSE int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (sock < 0)
		return -errno;
	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	if (connect(sock, (struct sockaddr *)&address, sizeof(address)))
		return -errno;
	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &size) || cred.uid != geteuid())
		return -EPERM; /* it would be given our streams */
	return lcp_keep_fd(&sock);
}

/*
 * Remove the socket of a pool that was killed. A pool puts its own in place under the same lock, so that a
 * socket nobody listens on is never a new one.
 */
static void forget(const char *path)
{
	char directory[sizeof(((struct sockaddr_un *)NULL)->sun_path)], *slash;
	AUTO_CLOSE int fd = -1, sock = -1;

	if (strlen(path) >= sizeof(directory))
		return;
	slash = strrchr(strcpy(directory, path), '/');
	if (!slash)
		return;
	*slash = '\0';
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB))
		return;
	sock = connect_to(path);
	if (sock == -ECONNREFUSED)
		unlink(path);
}

int lcp_standby_take(const char *path, const char *text, size_t size, int *fds)
{
	AUTO_CLOSE int sock = connect_to(path);
	struct pollfd polled = { sock, POLLIN, 0 };
	int count = 3, result;
	char answer;

	if (sock == -ECONNREFUSED)
		forget(path);
	if (sock < 0)
		return sock;
	result = lcp_send(sock, text, size);
	if (result)
		return result;
	if (poll(&polled, 1, ANSWER_MS) != 1)
		return -ETIMEDOUT;
	if (lcp_receive_message(sock, &answer, 1, fds, &count) < 0)
		return -errno;
	if (count == 3)
		return 0;
	while (count > 0)
		close(fds[--count]);
	return -EBUSY;
}
