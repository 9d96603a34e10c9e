/* The keeper: holds the stdio of a process while that process is dumped, outside its tree. */
#define _GNU_SOURCE
#include "copy/fd_store.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/descriptors.h"
#include "common/process.h"

static void serve_fds(int listener, int owner, const int *fds, int count)
{
	int keep[MAX_FDS + 2];

	memcpy(keep, fds, sizeof(int) * (size_t)count);
	keep[count] = listener;
	keep[count + 1] = owner;
	lcp_close_all_but(keep, count + 2);
	prctl(PR_SET_NAME, "lcp-keeper");
	for (;;) {
		struct pollfd polled[2] = { { listener, POLLIN, 0 }, { owner, POLLIN, 0 } };
		char done;
		int sock;

		if (poll(polled, 2, -1) < 0) {
			if (errno == EINTR)
				continue;
			_exit(1);
		}
		if (polled[0].revents) {
			sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
			if (sock >= 0 && lcp_same_user(sock) && !lcp_send_fds(sock, fds, count)) {
				/* The owner has them once it says so or hangs up. */
				while (read(sock, &done, 1) < 0 && errno == EINTR)
					;
				_exit(0);
			}
			close(sock);
		} else if (polled[1].revents) {
			_exit(0);
		}
	}
}

/*
 * Fork twice so that the grandchild is not in the caller's tree (and so not in
 * an image of it). Returns the pid in the caller, 0 in the grandchild. A
 * subreaper would get the orphan back: that attribute is put aside meanwhile.
 */
static int fork_detached(void)
{
	int subreaper = 0, report[2];
	pid_t middle, pid = 0;
	ssize_t n;

	if (pipe2(report, O_CLOEXEC))
		return -errno;
	prctl(PR_GET_CHILD_SUBREAPER, &subreaper);
	if (subreaper)
		prctl(PR_SET_CHILD_SUBREAPER, 0);
	middle = fork();
	if (middle == 0) {
		pid = fork();
		if (pid == 0) {
			close(report[0]);
			close(report[1]);
			return 0;
		}
		if (pid < 0)
			pid = -errno;
		n = write(report[1], &pid, sizeof(pid));
		_exit(n != (ssize_t)sizeof(pid));
	}
	if (middle < 0)
		pid = -errno;
	close(report[1]);
	if (middle > 0) {
		do
			n = read(report[0], &pid, sizeof(pid));
		while (n < 0 && errno == EINTR);
		if (n != (ssize_t)sizeof(pid))
			pid = -EIO;
		lcp_wait_for(middle);
	}
	close(report[0]);
	if (subreaper)
		prctl(PR_SET_CHILD_SUBREAPER, 1);
	return pid;
}

int lcp_store_fds(const int *fds, int count, char *name, size_t size, int *keeper)
{
	AUTO_CLOSE int listener = -1, owner = -1;
	sigset_t all, old;
	int result;

	if (count > MAX_FDS)
		return -EINVAL;
	result = lcp_random_name(name, size);
	if (result)
		return result;
	owner = lcp_pidfd_open(getpid());
	if (owner < 0)
		return -errno;
	listener = lcp_listen_at(name);
	if (listener < 0)
		return listener;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	result = fork_detached();
	if (result == 0) {
		setsid(); /* no signal of the terminal */
		serve_fds(listener, owner, fds, count);
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (result < 0)
		return result;
	*keeper = result;
	return 0;
}

int lcp_fetch_stored_fds(const char *name, int *fds, int count)
{
	AUTO_CLOSE int sock = lcp_connect(name);
	char tag;

	return sock < 0 ? sock : lcp_receive_tagged(sock, &tag, fds, count);
}
