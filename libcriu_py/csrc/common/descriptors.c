/* Descriptors: messages that carry them, sockets with names nobody can guess, pidfds. */
#define _GNU_SOURCE
#include "common/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

int lcp_pidfd_open(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

int lcp_pidfd_signal(int pidfd, int sig)
{
	return (int)syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0);
}

int lcp_same_file(int pid, int fd, int own)
{
	long order = syscall(SYS_kcmp, getpid(), pid, KCMP_FILE, own, fd);

	return order < 0 ? -errno : order == 0;
}

ssize_t lcp_send_message(int sock, const void *data, size_t size, const int *fds, int count)
{
	char control[CMSG_SPACE(sizeof(int) * MAX_FDS)];
	struct iovec iov = { (void *)data, size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (count < 0 || count > MAX_FDS) {
		errno = EINVAL;
		return -1;
	}
	if (count) {
		struct cmsghdr *c;

		memset(control, 0, sizeof(control));
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)count);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * (size_t)count);
	}
	do
		n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n;
}

/* Returns the bytes received; `count` becomes the number of descriptors. */
ssize_t lcp_receive_message(int sock, void *data, size_t size, int *fds, int *count)
{
	char control[CMSG_SPACE(sizeof(int) * MAX_FDS)];
	struct iovec iov = { data, size };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
	};
	int limit = *count;
	ssize_t n;

	*count = 0;
	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	/* ECONNRESET comes once, before the data: the other end was closed with unread data (net/unix/af_unix.c). */
	while (n < 0 && (errno == EINTR || errno == ECONNRESET));
	if (n < 0)
		return n;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		int got;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		got = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		for (int i = 0; i < got; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + sizeof(int) * (size_t)i, sizeof(int));
			if (*count < limit)
				fds[(*count)++] = fd;
			else
				close(fd);
		}
	}
	return n;
}

int lcp_send_tagged(int sock, char tag, const int *fds, int count)
{
	return lcp_send_message(sock, &tag, 1, fds, count) == 1 ? 0 : -errno;
}

int lcp_receive_tagged(int sock, char *tag, int *fds, int limit)
{
	int count = limit;
	ssize_t n = lcp_receive_message(sock, tag, 1, fds, &count);

	if (n < 0)
		return -errno;
	return n == 0 ? -EPIPE : count;
}

int lcp_send_fds(int sock, const int *fds, int count)
{
	return lcp_send_tagged(sock, 'F', fds, count);
}

int lcp_send(int sock, const char *data, size_t size)
{
	return lcp_send_message(sock, data, size, NULL, 0) < 0 ? -errno : 0;
}

int lcp_socketpair(int *pair)
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) ? -errno : 0;
}

static int compare_ints(const void *a, const void *b)
{
	return (*(const int *)a > *(const int *)b) - (*(const int *)a < *(const int *)b);
}

/* Close every descriptor but `keep`, which is sorted on the way. */
void lcp_close_all_but(int *keep, int count)
{
	unsigned int from = 0;

	qsort(keep, (size_t)count, sizeof(int), compare_ints);
	for (int i = 0; i < count; i++) {
		if (keep[i] < 0)
			continue; /* a descriptor that there is not */
		if ((unsigned int)keep[i] > from)
			syscall(SYS_close_range, from, keep[i] - 1, 0);
		from = (unsigned int)keep[i] + 1;
	}
	syscall(SYS_close_range, from, ~0U, 0);
}

int lcp_same_user(int sock)
{
	struct ucred cred;
	socklen_t size = sizeof(cred);

	return !getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &size) && (cred.uid == geteuid() || cred.uid == 0);
}

int lcp_random_name(char *name, size_t size)
{
	unsigned char bytes[16];

	if (size < 2 * sizeof(bytes) + 16 || getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		return -EIO;
	strcpy(name, "libcriu_py-");
	for (size_t i = 0; i < sizeof(bytes); i++)
		sprintf(name + 11 + 2 * i, "%02x", bytes[i]);
	return 0;
}

static socklen_t abstract_address(struct sockaddr_un *address, const char *name)
{
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	memcpy(address->sun_path + 1, name, strlen(name));
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
}

int lcp_listen_at(const char *name)
{
	struct sockaddr_un address;
	socklen_t size = abstract_address(&address, name);
	AUTO_CLOSE int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (sock < 0 || bind(sock, (struct sockaddr *)&address, size) || listen(sock, 4))
		return -errno;
	return lcp_keep_fd(&sock);
}

int lcp_connect(const char *name)
{
	struct sockaddr_un address;
	socklen_t size = abstract_address(&address, name);
	AUTO_CLOSE int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (sock < 0 || connect(sock, (struct sockaddr *)&address, size))
		return -errno;
	return lcp_same_user(sock) ? lcp_keep_fd(&sock) : -EPERM;
}

int lcp_is_closed(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || flags & O_PATH;
}
