/*
 * The forked parts of this file run in a copy of a possibly multi-threaded
 * Python process: they never call back into Python. libcriu and malloc are
 * used there, which glibc's fork allows.
 */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <malloc.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

extern char **environ;

static int pidfd_open(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

static int pidfd_signal(int pidfd, int sig)
{
	return (int)syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0);
}

/* ---- messages with descriptors ---------------------------------------- */

#define MAX_FDS 253 /* SCM_MAX_FD of the kernel, net/core/scm.c */

static ssize_t send_message(int sock, const void *data, size_t size, const int *fds, int count)
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
static ssize_t receive_message(int sock, void *data, size_t size, int *fds, int *count)
{
	char control[CMSG_SPACE(sizeof(int) * MAX_FDS)];
	struct iovec iov = { data, size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	int limit = *count;
	ssize_t n;

	*count = 0;
	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
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

int lcp_send_fds(int sock, const int *fds, int count)
{
	char byte = 'F';

	return send_message(sock, &byte, 1, fds, count) == 1 ? 0 : -errno;
}

int lcp_receive_fds(int sock, int *fds, int limit)
{
	char byte;
	int count = limit;
	ssize_t n = receive_message(sock, &byte, 1, fds, &count);

	if (n < 0)
		return -errno;
	return n == 0 ? -EPIPE : count;
}

int lcp_send(int sock, const char *data, size_t size)
{
	return send_message(sock, data, size, NULL, 0) < 0 ? -errno : 0;
}

int lcp_socketpair(int *pair)
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) ? -errno : 0;
}

/* ---- the keeper ------------------------------------------------------- */

static int compare_ints(const void *a, const void *b)
{
	return (*(const int *)a > *(const int *)b) - (*(const int *)a < *(const int *)b);
}

/* Close every descriptor but `keep`, which is sorted on the way. */
static void close_all_but(int *keep, int count)
{
	unsigned int from = 0;

	qsort(keep, (size_t)count, sizeof(int), compare_ints);
	for (int i = 0; i < count; i++) {
		if ((unsigned int)keep[i] > from)
			syscall(SYS_close_range, from, keep[i] - 1, 0);
		from = (unsigned int)keep[i] + 1;
	}
	syscall(SYS_close_range, from, ~0U, 0);
}

static int same_user(int sock)
{
	struct ucred cred;
	socklen_t size = sizeof(cred);

	return !getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &size) && (cred.uid == geteuid() || cred.uid == 0);
}

static void keeper_main(int listener, int owner, const int *fds, int count)
{
	int keep[MAX_FDS + 2];

	memcpy(keep, fds, sizeof(int) * (size_t)count);
	keep[count] = listener;
	keep[count + 1] = owner;
	close_all_but(keep, count + 2);
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
			if (sock >= 0 && same_user(sock) && !lcp_send_fds(sock, fds, count)) {
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

int lcp_random_name(char *name, size_t size)
{
	unsigned char bytes[16];
	int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, bytes, sizeof(bytes));
	close(fd);
	if (n != (ssize_t)sizeof(bytes) || size < 2 * sizeof(bytes) + 16)
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

/*
 * Fork twice so that the grandchild is not in the caller's tree (and so not in
 * an image of it). Returns the pid in the caller, 0 in the grandchild. A
 * subreaper would get the orphan back: that attribute is put aside meanwhile.
 */
static int fork_detached(void)
{
	int subreaper = 0, report[2], status;
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
		while (waitpid(middle, &status, 0) < 0 && errno == EINTR)
			;
	}
	close(report[0]);
	if (subreaper)
		prctl(PR_SET_CHILD_SUBREAPER, 1);
	return pid;
}

static int listen_at(const char *name)
{
	struct sockaddr_un address;
	socklen_t size = abstract_address(&address, name);
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), saved;

	if (sock < 0)
		return -errno;
	if (bind(sock, (struct sockaddr *)&address, size) || listen(sock, 4)) {
		saved = errno;
		close(sock);
		return -saved;
	}
	return sock;
}

int lcp_connect(const char *name)
{
	struct sockaddr_un address;
	socklen_t size = abstract_address(&address, name);
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), result = 0;

	if (sock < 0)
		return -errno;
	if (connect(sock, (struct sockaddr *)&address, size))
		result = -errno;
	else if (!same_user(sock))
		result = -EPERM;
	if (result)
		close(sock);
	return result ? result : sock;
}

int lcp_keep_fds(const int *fds, int count, char *name, size_t size, int *keeper)
{
	int listener, owner, result;
	sigset_t all, old;

	if (count > MAX_FDS)
		return -EINVAL;
	result = lcp_random_name(name, size);
	if (result)
		return result;
	owner = pidfd_open(getpid());
	if (owner < 0)
		return -errno;
	listener = listen_at(name);
	if (listener < 0) {
		close(owner);
		return listener;
	}
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	result = fork_detached();
	if (result == 0) {
		setsid(); /* no signal of the terminal */
		keeper_main(listener, owner, fds, count);
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (result > 0) {
		*keeper = result;
		result = 0;
	}
	close(owner);
	close(listener);
	return result;
}

int lcp_take_fds(const char *name, int *fds, int count)
{
	int sock = lcp_connect(name), result;

	if (sock < 0)
		return sock;
	result = lcp_receive_fds(sock, fds, count);
	close(sock);
	return result;
}

/* ---- capabilities ----------------------------------------------------- */

static int set_capabilities(uint64_t bits)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];

	for (int i = 0; i < 2; i++) {
		uint32_t word = (uint32_t)(bits >> (32 * i));

		data[i].effective = data[i].permitted = data[i].inheritable = word;
	}
	return (int)syscall(SYS_capset, &header, data);
}

/* Keep these capabilities only, and carry them over an exec. */
static int set_ambient(uint64_t bits)
{
	if (set_capabilities(bits))
		return -1;
	for (int cap = 0; cap < 64; cap++)
		if ((bits >> cap) & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0))
			return -1;
	return 0;
}

static int drop_capabilities(void)
{
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
		return -1;
	return set_capabilities(0);
}

/* ---- namespaces ------------------------------------------------------- */

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), saved;
	ssize_t n;

	if (fd < 0)
		return -1;
	n = write(fd, text, strlen(text));
	saved = errno;
	close(fd);
	errno = saved;
	return n < 0 ? -1 : 0;
}

/* Own ids only: the program is who it was, and root of nothing. */
static int map_own_ids(uid_t uid, gid_t gid)
{
	char line[64];

	snprintf(line, sizeof(line), "%u %u 1\n", uid, uid);
	if (write_file("/proc/self/uid_map", line))
		return -1;
	if (write_file("/proc/self/setgroups", "deny") && errno != ENOENT)
		return -1;
	snprintf(line, sizeof(line), "%u %u 1\n", gid, gid);
	return write_file("/proc/self/gid_map", line);
}

/* In the process that is to be the parent of pid 1. */
static int make_namespaces(int namespaces, int *stage)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int flags = 0;

	if (namespaces & LCP_NS_USER)
		flags |= CLONE_NEWUSER;
	if (namespaces & LCP_NS_PID)
		flags |= CLONE_NEWPID | CLONE_NEWNS;
	*stage = LCP_STAGE_UNSHARE;
	if (flags && unshare(flags))
		return -errno;
	*stage = LCP_STAGE_IDMAP;
	if ((namespaces & LCP_NS_USER) && map_own_ids(uid, gid))
		return -errno;
	return 0;
}

/* In pid 1 of the new pid namespace. */
static int mount_own_proc(int namespaces)
{
	/* Without a user namespace of its own a mount would show up outside. */
	if (!(namespaces & LCP_NS_USER) && mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL))
		return -errno;
	return mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) ? -errno : 0;
}

int lcp_probe_namespaces(int namespaces, int *stage)
{
	int report[2], values[2] = { -EIO, LCP_STAGE_FORK }, status;
	pid_t child;

	*stage = LCP_STAGE_FORK;
	if (pipe2(report, O_CLOEXEC))
		return -errno;
	child = fork();
	if (child == 0) {
		pid_t init;

		values[0] = make_namespaces(namespaces, &values[1]);
		if (!values[0]) {
			init = fork();
			if (init == 0) {
				values[1] = LCP_STAGE_PROC;
				values[0] = mount_own_proc(namespaces);
				_exit(write(report[1], values, sizeof(values)) < 0);
			}
			if (init > 0) {
				waitpid(init, &status, 0);
				_exit(0);
			}
			values[0] = -errno;
			values[1] = LCP_STAGE_FORK;
		}
		_exit(write(report[1], values, sizeof(values)) < 0);
	}
	if (child < 0)
		values[0] = -errno;
	close(report[1]);
	if (child > 0) {
		ssize_t n;

		do
			n = read(report[0], values, sizeof(values));
		while (n < 0 && errno == EINTR);
		if (n != (ssize_t)sizeof(values))
			values[0] = -EIO;
		while (waitpid(child, &status, 0) < 0 && errno == EINTR)
			;
	}
	close(report[0]);
	*stage = values[1];
	return values[0];
}

/* ---- the supervisor --------------------------------------------------- */

static void tell(int channel, int kind, int value, int error, int stage, int fd)
{
	struct lcp_event event = { kind, value, error, stage };

	/* A caller that is gone needs no news. */
	(void)send_message(channel, &event, sizeof(event), &fd, fd >= 0);
}

static void fail(int channel, int value, int error, int stage)
{
	tell(channel, LCP_EVENT_FAILED, value, error, stage, -1);
	_exit(1);
}

/*
 * A device, or a file that is only read, as it is seen in the new mount
 * namespace: criu finds no mount for one that came from outside, and children of
 * the program keep it. A file that is written to stays, for it shares its
 * position with the processes outside.
 */
static void reopen_here(int fd)
{
	char link[32], path[4096];
	struct stat before, after;
	int flags = fcntl(fd, F_GETFL), here;
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (flags < 0 || n <= 0 || path[0] != '/' || fstat(fd, &before))
		return;
	if (!S_ISCHR(before.st_mode) && (!S_ISREG(before.st_mode) || (flags & O_ACCMODE) != O_RDONLY))
		return;
	path[n] = '\0';
	here = open(path, (flags & (O_ACCMODE | O_APPEND | O_NONBLOCK)) | O_NOCTTY | O_CLOEXEC);
	if (here < 0)
		return; /* it stays as it is, and a dump says what is wrong with it */
	if (!fstat(here, &after) && before.st_dev == after.st_dev && before.st_ino == after.st_ino &&
	    before.st_rdev == after.st_rdev) {
		lseek(here, lseek(fd, 0, SEEK_CUR), SEEK_SET);
		dup2(here, fd);
	}
	close(here);
}

static void exec_program(const struct lcp_job *job, int report, const sigset_t *mask)
{
	/* An open file of another mount namespace would fail the dump. */
	int keep[4] = { 0, 1, 2, report }, error;

	close_all_but(keep, 4);
	for (int fd = 0; (job->namespaces & LCP_NS_PID) && fd < 3; fd++)
		reopen_here(fd);
	for (int sig = 1; sig < NSIG; sig++)
		if (sig != SIGKILL && sig != SIGSTOP)
			signal(sig, SIG_DFL);
	pthread_sigmask(SIG_SETMASK, mask, NULL);
	if (!(job->namespaces & LCP_NS_USER) || !drop_capabilities())
		execve(job->argv[0], job->argv, job->env);
	error = errno;
	_exit(write(report, &error, sizeof(error)) < 0 ? 126 : 127);
}

static pid_t start_program(const struct lcp_job *job, int channel, const sigset_t *mask)
{
	int report[2], error = 0;
	pid_t pid;

	if (pipe2(report, O_CLOEXEC))
		fail(channel, 0, errno, LCP_STAGE_FORK);
	pid = fork();
	if (pid < 0)
		fail(channel, 0, errno, LCP_STAGE_FORK);
	if (pid == 0)
		exec_program(job, report[1], mask);
	close(report[1]);
	if (read(report[0], &error, sizeof(error)) == (ssize_t)sizeof(error))
		fail(channel, 0, error, LCP_STAGE_EXEC);
	close(report[0]);
	return pid;
}

/*
 * criu puts its own descriptors below RLIMIT_NOFILE (criu/servicefd.c) and
 * fails under a low soft limit; the restored process has one of its own.
 */
static void raise_nofile(void)
{
	struct rlimit limit;

	if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/*
 * A program that asks for it is served a criu of its own: the program has no
 * capability, neither when it runs nor in the image, and this process has the
 * one that criu needs. criu takes the pid to dump from the socket's credentials.
 */
static void serve_criu(const struct lcp_job *job, int listener)
{
	int sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC), null, count = 0;
	char *argv[8], number[16];
	sigset_t none;
	pid_t pid;

	if (sock < 0)
		return;
	pid = same_user(sock) ? fork() : -1;
	if (pid == 0) {
		/* Our own stdio is closed: the connection may be one of 0 to 2. */
		sock = fcntl(sock, F_DUPFD, 10);
		null = open("/dev/null", O_RDWR);
		for (int fd = 0; fd < 3; fd++)
			dup2(null, fd);
		while (job->criu_argv[count] && count < 6) {
			argv[count] = job->criu_argv[count];
			count++;
		}
		snprintf(number, sizeof(number), "%d", sock);
		argv[count++] = number;
		argv[count] = NULL;
		raise_nofile();
		sigemptyset(&none);
		pthread_sigmask(SIG_SETMASK, &none, NULL);
		execve(argv[0], argv, job->criu_env);
		_exit(127); /* the program sees the connection closed */
	}
	close(sock);
}

static pid_t restore_program(const struct lcp_job *job, int channel)
{
	int pid;

	for (int i = 0; i < job->inherit_count; i++)
		fcntl(job->inherit[i], F_SETFD, 0);
	raise_nofile();
	/* libcriu's child runs execlp("criu", ...) with our environment. */
	environ = (char **)job->env;
	errno = 0;
	pid = criu_local_restore_child(job->restore);
	if (pid <= 0)
		fail(channel, pid, errno, LCP_STAGE_RESTORE);
	return pid;
}

/* Whether a process is left that pid 1 must stay for. */
static int has_children(void)
{
	siginfo_t info;

	return !waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT);
}

/* Report on `pid`; true when it has ended. */
static int report_children(int channel, pid_t pid)
{
	int status, last = 0, ended = 0;
	pid_t child;

	while ((child = waitpid(-1, &status, WNOHANG | WUNTRACED | WCONTINUED)) > 0) {
		if (child != pid)
			continue; /* an orphan that came to us as pid 1 */
		if (WIFSTOPPED(status)) {
			tell(channel, LCP_EVENT_STOPPED, WSTOPSIG(status), 0, 0, -1);
		} else if (WIFCONTINUED(status)) {
			tell(channel, LCP_EVENT_CONTINUED, 0, 0, 0, -1);
		} else {
			last = status;
			ended = 1;
		}
	}
	if (ended)
		tell(channel, LCP_EVENT_ENDED, last, 0, getpid() == 1 && has_children() ? LCP_STAGE_LINGERING : 0, -1);
	return ended;
}

static void watch(const struct lcp_job *job, int channel, pid_t pid, int signals, int listener)
{
	int caller_gone = 0;

	for (;;) {
		struct pollfd polled[3] = {
			{ signals, POLLIN, 0 }, { caller_gone ? -1 : channel, POLLIN, 0 }, { listener, POLLIN, 0 }
		};
		struct signalfd_siginfo info;

		if (report_children(channel, pid))
			return;
		if (poll(polled, 3, -1) < 0 && errno != EINTR)
			_exit(1);
		if (polled[2].revents)
			serve_criu(job, listener);
		if (polled[0].revents)
			while (read(signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
				;
		if (polled[1].revents) {
			caller_gone = 1;
			if (job->flags & LCP_DIE_WITH_CALLER)
				kill(pid, SIGKILL);
		}
	}
}

static void supervisor_main(const struct lcp_job *job, int channel, const sigset_t *mask)
{
	sigset_t chld;
	int pidfd, signals, result, keep[3], listener = -1;
	char line[16];
	pid_t pid;

	prctl(PR_SET_NAME, "lcp-supervisor");
	if (job->namespaces & LCP_NS_PID) {
		if (!job->restore)
			setsid(); /* criu dumps no session that began outside the namespace */
		result = mount_own_proc(job->namespaces);
		if (result)
			fail(channel, 0, -result, LCP_STAGE_PROC);
		if (job->last_pid) {
			snprintf(line, sizeof(line), "%d", job->last_pid);
			if (write_file("/proc/sys/kernel/ns_last_pid", line))
				fail(channel, 0, errno, LCP_STAGE_LAST_PID);
		}
	}
	if ((job->namespaces & LCP_NS_USER) && set_ambient(job->ambient))
		fail(channel, 0, errno, LCP_STAGE_CAPABILITIES);
	if (job->service && (listener = listen_at(job->service)) < 0)
		fail(channel, 0, -listener, LCP_STAGE_SERVICE);
	/* Blocked since before the fork, as libcriu needs it for restore_child. */
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	pid = job->restore ? restore_program(job, channel) : start_program(job, channel, mask);
	signals = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
	pidfd = pidfd_open(pid);
	tell(channel, LCP_EVENT_STARTED, pid, 0, 0, pidfd);
	/* Pipes of the caller must not be held open here. */
	keep[0] = channel;
	keep[1] = signals;
	keep[2] = listener;
	close_all_but(keep, listener < 0 ? 2 : 3);
	watch(job, channel, pid, signals, listener);
	close(channel);
	if (getpid() == 1) /* what the program left running lives on */
		while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
			;
	_exit(0);
}

/*
 * The process between: it enters the namespaces, and the supervisor is pid 1
 * there. CLONE_PARENT makes that one a child of the caller, who reaps it: an
 * orphan would be left to pid 1, which in a container may not reap at all. A
 * bare clone is a safe fork here, where there is one thread.
 */
static void middle_main(const struct lcp_job *job, int channel, const sigset_t *mask)
{
	int stage, result = make_namespaces(job->namespaces, &stage);
	pid_t pid;

	if (result)
		fail(channel, 0, -result, stage);
	pid = (pid_t)syscall(SYS_clone, CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid == 0)
		supervisor_main(job, channel, mask);
	if (pid < 0)
		fail(channel, 0, errno, LCP_STAGE_FORK);
	tell(channel, LCP_EVENT_SUPERVISED, pid, 0, 0, -1);
	_exit(0);
}

int lcp_supervise(const struct lcp_job *job, int *channel)
{
	int pair[2], result = lcp_socketpair(pair), status;
	sigset_t all, old;
	pid_t middle;

	if (result)
		return result;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	middle = fork();
	if (middle == 0) {
		close(pair[0]);
		middle_main(job, pair[1], &old);
	}
	result = middle < 0 ? -errno : 0;
	if (middle > 0)
		while (waitpid(middle, &status, 0) < 0 && errno == EINTR)
			;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	close(pair[1]);
	if (result) {
		close(pair[0]);
		return result;
	}
	*channel = pair[0];
	return 0;
}

int lcp_supervise_directly(const struct lcp_job *job, int *channel, pid_t *supervisor)
{
	int pair[2], result = lcp_socketpair(pair), flags = SIGCHLD;
	uid_t uid = geteuid();
	gid_t gid = getegid();

	if (result)
		return result;
	if (job->namespaces & LCP_NS_USER)
		flags |= CLONE_NEWUSER;
	if (job->namespaces & LCP_NS_PID)
		flags |= CLONE_NEWPID | CLONE_NEWNS;
	*supervisor = (pid_t)syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);
	if (*supervisor == 0) {
		close(pair[0]);
		if ((job->namespaces & LCP_NS_USER) && map_own_ids(uid, gid))
			fail(pair[1], 0, errno, LCP_STAGE_IDMAP);
		supervisor_main(job, pair[1], NULL);
	}
	result = *supervisor < 0 ? -errno : 0;
	close(pair[1]);
	if (result)
		close(pair[0]);
	else
		*channel = pair[0];
	return result;
}

int lcp_next_event(int channel, int timeout_ms, struct lcp_event *event, int *pidfd)
{
	struct pollfd polled = { channel, POLLIN, 0 };
	int count = 1, result = poll(&polled, 1, timeout_ms);
	ssize_t n;

	*pidfd = -1;
	if (result <= 0)
		return result < 0 ? -errno : 0;
	n = receive_message(channel, event, sizeof(*event), pidfd, &count);
	if (n < 0)
		return -errno;
	return n == (ssize_t)sizeof(*event) ? 1 : -EPIPE;
}

/* ---- the launcher ----------------------------------------------------- */

/* How long the supervisor may take to report that the program goes on. */
#define NEWS_MS 20

/*
 * A signal of the terminal reaches the program itself where it is in the same
 * process group; one sent to the launcher's pid is always meant for the program.
 * The hangup goes to the leader of the session alone (drivers/tty/tty_jobctrl.c,
 * tty_signal_session_leader), which a restored program is not in our place.
 */
static void pass_on(int pidfd, const struct signalfd_siginfo *info, int terminal)
{
	int sig = (int)info->ssi_signo;
	int hangup = (sig == SIGHUP || sig == SIGCONT) && getsid(0) == getpid();

	if (sig == SIGCHLD || (info->ssi_code == SI_KERNEL && !terminal && !hangup))
		return;
	pidfd_signal(pidfd, sig);
}

/* The pid behind a pidfd in our pid namespace; 0 if it has ended. */
static pid_t pid_behind(int pidfd)
{
	char path[40], text[512], *line;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	line = strstr(text, "\nPid:");
	return line ? atoi(line + 5) : 0;
}

static int is_stopped(pid_t pid)
{
	char path[40], text[512], *state;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	state = strrchr(text, ')');
	return state && state[1] == ' ' && (state[2] == 'T' || state[2] == 't');
}

/*
 * Stop as the program has, so that the shell sees its job stopped, and continue
 * with it.
 *
 * A shell continues the whole process group. We may run long after the program
 * does, which may even have been stopped again; a SIGCONT from us would then undo
 * that. So we send one only if we alone were continued: the program is still
 * stopped, and nothing newer is reported about it.
 */
static void stop_too(int channel, int pidfd, int signals, int terminal)
{
	struct pollfd news = { channel, POLLIN, 0 };
	struct signalfd_siginfo info;
	pid_t pid = pid_behind(pidfd);

	if (!is_stopped(pid))
		return; /* continued meanwhile */
	kill(getpid(), SIGSTOP);
	while (read(signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
		if (info.ssi_signo != SIGCONT)
			pass_on(pidfd, &info, terminal);
	if (is_stopped(pid) && poll(&news, 1, NEWS_MS) == 0)
		pidfd_signal(pidfd, SIGCONT);
}

int lcp_mirror(int channel, int pidfd, int terminal, int *status)
{
	struct lcp_event event;
	sigset_t all, old;
	int signals, result = 0, ignored;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals < 0)
		result = -errno;
	while (!result) {
		struct pollfd polled[2] = { { channel, POLLIN, 0 }, { signals, POLLIN, 0 } };
		struct signalfd_siginfo info;

		if (poll(polled, 2, -1) < 0)
			continue;
		if (polled[1].revents)
			while (read(signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
				pass_on(pidfd, &info, terminal);
		if (!polled[0].revents)
			continue;
		result = lcp_next_event(channel, -1, &event, &ignored);
		if (result < 0)
			break;
		result = 0;
		if (event.kind == LCP_EVENT_STOPPED) {
			stop_too(channel, pidfd, signals, terminal);
		} else if (event.kind == LCP_EVENT_ENDED) {
			*status = event.value;
			break;
		}
	}
	if (signals >= 0)
		close(signals);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return result;
}

/* ---- the process itself ----------------------------------------------- */

void lcp_trim_heap(void)
{
#ifdef __GLIBC__
	malloc_trim(0);
#endif
}

void lcp_exit_now(int status)
{
	fflush(NULL);
	_exit(status);
}

/* The block is kept for good: getenv() hands out pointers into it. */
int lcp_replace_environ(const char *block, size_t size)
{
	size_t count = 0, next = 0;
	char *copy = malloc(size + 1), **entries;

	for (size_t i = 0; i < size; i++)
		count += block[i] == '\0';
	entries = malloc((count + 1) * sizeof(*entries));
	if (!copy || !entries) {
		free(copy);
		free(entries);
		return -ENOMEM;
	}
	memcpy(copy, block, size);
	copy[size] = '\0';
	for (size_t i = 0; i < size; i += strlen(copy + i) + 1)
		entries[next++] = copy + i;
	entries[next] = NULL;
	environ = entries;
	return 0;
}
