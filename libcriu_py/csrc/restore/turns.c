#define _GNU_SOURCE
#include "restore/turns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/process.h"
#include "restore/limit.h"
#include "restore/problem.h"
#include "restore/record.h"
#include "restore/scratch.h"
#include "restore/snapshot.h"

#define LOCKS "locks"
#define NAP_MS 1

/* How this process waits for others. */
struct patience {
	long long until;
	int signals; /* readable when somebody wants it to end */
};

/* ---- locks ------------------------------------------------------------ */

/* Each thing is a byte of one file: locks of open file descriptions need neither names nor tidying up. */
static off_t place_of(unsigned long long where, unsigned long long what, const char *name)
{
	unsigned long long value = 14695981039346656037u; /* FNV-1a */

	for (int i = 0; i < 64; i += 8) {
		value = (value ^ (where >> i & 0xFF)) * 1099511628211u;
		value = (value ^ (what >> i & 0xFF)) * 1099511628211u;
	}
	for (; *name; name++)
		value = (value ^ (unsigned char)*name) * 1099511628211u;
	return (off_t)(value >> 2);
}

/* All restores take their locks in one order, and so none waits for another that waits for it. */
static int lock(struct turns *turns, off_t place, const struct patience *patience, struct problem *problem)
{
	struct flock range = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = place, .l_len = 1 };
	struct pollfd polled = { patience->signals, POLLIN, 0 };
	char path[PATH_MAX + sizeof("/" LOCKS)] = LOCKS;
	const char *base;

	if (turns->file < 0) {
		base = lcp_scratch_directory(problem);
		if (!base)
			return -1;
		snprintf(path, sizeof(path), "%s/" LOCKS, base);
		turns->file = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	}
	while (turns->file < 0 || fcntl(turns->file, F_OFD_SETLK, &range)) {
		if (turns->file < 0 || (errno != EAGAIN && errno != EACCES))
			return lcp_failed(problem, "the end of other restores cannot be awaited: %s: %s", path,
					  strerror(errno));
		if (lcp_now_ms() > patience->until || poll(&polled, 1, NAP_MS) > 0)
			return lcp_failed(problem, "other restores that must not run at the same time did not end");
	}
	return 0;
}

void lcp_turns_end(struct turns *turns)
{
	struct flock all = { .l_type = F_UNLCK, .l_whence = SEEK_SET };

	if (turns->file < 0)
		return;
	fcntl(turns->file, F_OFD_SETLK, &all); /* a supervisor may still have the file open */
	close(turns->file);
	turns->file = -1;
}

/* ---- addresses -------------------------------------------------------- */

static int in_use(const char *address, int port, struct problem *problem)
{
	char number[16] = "";

	if (port)
		snprintf(number, sizeof(number), " port %d", port);
	lcp_failed(problem, "another process has the address %s%s, on which the program listens", address, number);
	problem->error = EADDRINUSE;
	return -1;
}

/*
 * Bind as the program did; criu uses SO_REUSEPORT. Other errors than EADDRINUSE are left to criu. Do not listen: clients
 * of other processes that share the port might connect.
 */
static int probe_internet(const struct record_listener *listener, const char *host, struct problem *problem)
{
	AUTO_CLOSE int sock = socket((int)listener->family, (int)listener->type | SOCK_CLOEXEC, 0);
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)listener->port) };
	struct sockaddr_in four = { .sin_family = AF_INET, .sin_port = six.sin6_port };
	int is_six = listener->family == AF_INET6, one = 1, only = !!(listener->options & LISTENER_ONLY_IPV6), result;

	if (sock < 0 || inet_pton((int)listener->family, host, is_six ? (void *)&six.sin6_addr : (void *)&four.sin_addr) != 1)
		return 0;
	if (listener->options & LISTENER_REUSE_ADDRESS)
		setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (listener->options & LISTENER_REUSE_PORT)
		setsockopt(sock, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
	if (is_six)
		setsockopt(sock, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only));
	result = is_six ? bind(sock, (struct sockaddr *)&six, sizeof(six)) : bind(sock, (struct sockaddr *)&four, sizeof(four));
	return result && errno == EADDRINUSE ? in_use(host, (int)listener->port, problem) : 0;
}

/* A path that no socket is bound to any more is free: criu replaces it. */
static int probe_unix(const struct record_listener *listener, const char *path, struct problem *problem)
{
	AUTO_CLOSE int sock = socket(AF_UNIX, (int)listener->type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	AUTO_CLOSE int file = -1;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	socklen_t length = sizeof(address);

	if (sock < 0)
		return 0;
	if (*path == '@') {
		length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strnlen(path, sizeof(address.sun_path)));
		memcpy(address.sun_path + 1, path + 1, length - offsetof(struct sockaddr_un, sun_path) - 1);
	} else {
		/* The path of a socket that was bound in its directory may be too long for an address. */
		file = open(path, O_PATH | O_CLOEXEC);
		snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", file);
	}
	if (connect(sock, (struct sockaddr *)&address, length) && (errno == ECONNREFUSED || errno == ENOENT))
		return 0;
	return in_use(path, 0, problem);
}

static int take_addresses(struct turns *turns, const struct snapshot *snapshot, const struct patience *patience,
			  struct problem *problem)
{
	off_t last = -1, place;
	struct stat network;

	if (stat("/proc/self/ns/net", &network))
		network.st_ino = 0;
	record_for_each(struct record_listener, listener, snapshot->record, snapshot->facts->listeners) {
		const char *address = snapshot_text(snapshot, listener->address);

		/* The addresses of one port may overlap. */
		place = place_of(network.st_ino, listener->port, listener->family == AF_UNIX ? address : "");
		if (place != last && lock(turns, place, patience, problem))
			return -1;
		last = place;
		if (listener->family == AF_UNIX ? probe_unix(listener, address, problem) :
						  probe_internet(listener, address, problem))
			return -1;
	}
	return 0;
}

int lcp_turns_take(struct turns *turns, const struct snapshot *snapshot, int limit_ms, int signals,
		   struct problem *problem)
{
	const struct record_facts *facts = snapshot->facts;
	struct patience patience = { 0, signals };
	int result = 0;

	turns->file = -1;
	if (!facts->listeners.count && !(facts->flags & RECORD_ONE_AT_A_TIME))
		return 0;
	patience.until = lcp_now_ms() + limit_ms;
	/* The snapshot may have been copied, and then another directory has the same images: their clocks tell. */
	if (facts->flags & RECORD_ONE_AT_A_TIME)
		result = lock(turns, place_of((unsigned long long)facts->monotonic, (unsigned long long)facts->boottime,
					      "files"), &patience, problem);
	if (!result)
		result = take_addresses(turns, snapshot, &patience, problem);
	if (result)
		lcp_turns_end(turns);
	return result;
}
