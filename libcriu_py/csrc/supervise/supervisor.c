/*
 * The supervisor: restores or starts a program, in namespaces of its own where wanted, and reports on it.
 *
 * The forked parts run in a copy of a possibly multi-threaded Python process: they never call back into Python.
 * libcriu and malloc are used there, which glibc's fork allows.
 */
#define _GNU_SOURCE
#include "supervise/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/descriptors.h"
#include "common/files.h"
#include "common/process.h"
#include "supervise/becoming.h"
#include "supervise/events.h"
#include "supervise/namespaces.h"
#include "supervise/restoring.h"
#include "supervise/service.h"

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
	int flags = fcntl(fd, F_GETFL);
	AUTO_CLOSE int here = -1;
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (flags < 0 || n <= 0 || path[0] != '/' || fstat(fd, &before))
		return;
	if (!S_ISCHR(before.st_mode) && (!S_ISREG(before.st_mode) || (flags & O_ACCMODE) != O_RDONLY))
		return;
	path[n] = '\0';
	here = open(path, (flags & (O_ACCMODE | O_APPEND | O_NONBLOCK)) | O_NOCTTY | O_CLOEXEC);
	/* Where it cannot be opened it stays as it is, and a dump says what is wrong with it. */
	if (here < 0 || fstat(here, &after) || before.st_dev != after.st_dev || before.st_ino != after.st_ino ||
	    before.st_rdev != after.st_rdev)
		return;
	lseek(here, lseek(fd, 0, SEEK_CUR), SEEK_SET);
	dup2(here, fd);
}

static void exec_program(const struct lcp_job *job, int report, const sigset_t *mask)
{
	/* An open file of another mount namespace would fail the dump. */
	int keep[4] = { 0, 1, 2, report }, error;

	lcp_close_all_but(keep, 4);
	for (int fd = 0; (job->namespaces & LCP_NS_PID) && fd < 3; fd++)
		reopen_here(fd);
	for (int sig = 1; sig < NSIG; sig++)
		if (sig != SIGKILL && sig != SIGSTOP)
			signal(sig, SIG_DFL);
	pthread_sigmask(SIG_SETMASK, mask, NULL);
	if (!(job->namespaces & LCP_NS_USER) || !lcp_drop_capabilities())
		execve(job->argv[0], job->argv, job->env);
	error = errno;
	_exit(write(report, &error, sizeof(error)) < 0 ? 126 : 127);
}

static pid_t start_program(const struct lcp_job *job, int channel, const sigset_t *mask)
{
	int report[2], error = 0;
	pid_t pid;

	if (pipe2(report, O_CLOEXEC))
		lcp_fail(channel, 0, errno, LCP_STAGE_FORK);
	pid = fork();
	if (pid < 0)
		lcp_fail(channel, 0, errno, LCP_STAGE_FORK);
	if (pid == 0)
		exec_program(job, report[1], mask);
	close(report[1]);
	if (read(report[0], &error, sizeof(error)) == (ssize_t)sizeof(error))
		lcp_fail(channel, 0, error, LCP_STAGE_EXEC);
	close(report[0]);
	return pid;
}

/* Whether a process is left that pid 1 must stay for. */
static int has_children(void)
{
	siginfo_t info;

	return !waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT);
}

/* Report on `pid`; true when it has ended. `between` gets 0 when that process has. */
static int report_children(int channel, pid_t pid, pid_t *between)
{
	int status, last = 0, ended = 0;
	pid_t child;

	while ((child = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0) {
		if (child == *between && !WIFSTOPPED(status))
			*between = 0;
		if (child != pid)
			continue; /* an orphan that came to us as pid 1 */
		if (WIFSTOPPED(status)) {
			lcp_tell(channel, LCP_EVENT_STOPPED, WSTOPSIG(status), 0, 0, -1);
		} else {
			last = status;
			ended = 1;
		}
	}
	if (ended)
		lcp_tell(channel, LCP_EVENT_ENDED, last, 0, getpid() == 1 && has_children() ? LCP_STAGE_LINGERING : 0,
			 -1);
	return ended;
}

/* Take in a word of the caller; false if there is none, and `errno` says whether there may be more. */
static int hear_caller(int channel, pid_t between, int *taken)
{
	char word;
	ssize_t size = recv(channel, &word, 1, MSG_DONTWAIT);

	if (size == 0)
		errno = EPIPE;
	if (size <= 0)
		return 0;
	if (word == LCP_TAKEN) {
		*taken = 1;
		prctl(PR_SET_CHILD_SUBREAPER, 0);
	} else if (between) {
		kill(between, SIGKILL);
	}
	return 1;
}

/* The program has ended. What it has left lives on, except of a copy that waited for somebody to take it. */
static void leave(const struct lcp_job *job, int taken)
{
	if ((job->flags & LCP_STANDBY) && !taken) {
		if (getpid() == 1)
			_exit(0); /* and with it all of the namespace */
		do
			lcp_kill_children(getpid());
		while (waitpid(-1, NULL, 0) > 0);
	}
	if (getpid() == 1)
		while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
			;
}

static void watch(const struct lcp_job *job, int channel, pid_t pid, pid_t between, int signals, int listener)
{
	int caller_gone = 0, taken = 0;

	while (!report_children(channel, pid, &between)) {
		struct pollfd polled[3] = {
			{ signals, POLLIN, 0 }, { caller_gone ? -1 : channel, POLLIN, 0 }, { listener, POLLIN, 0 }
		};
		struct signalfd_siginfo info;

		if (poll(polled, 3, -1) < 0 && errno != EINTR)
			_exit(1);
		if (polled[2].revents)
			lcp_serve_criu(listener, job->criu_argv, job->criu_env);
		if (polled[0].revents)
			while (read(signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
				;
		if (polled[1].revents && !hear_caller(channel, between, &taken) && errno != EAGAIN) {
			caller_gone = 1;
			if (job->flags & LCP_DIE_WITH_CALLER)
				kill(pid, SIGKILL);
		}
	}
	while (hear_caller(channel, between, &taken)) /* a program may end before its launcher's words are read */
		;
	close(channel);
	leave(job, taken);
}

static void supervisor_main(const struct lcp_job *job, int channel, const sigset_t *mask)
{
	sigset_t chld;
	int pidfd, signals, result, keep[3], listener = -1;
	pid_t pid, between = 0;
	char line[16];

	prctl(PR_SET_NAME, "lcp-supervisor");
	/* A caller may ignore SIGCHLD, and then the kernel reports no end of a child (signal(7)). */
	signal(SIGCHLD, SIG_DFL);
	if (job->flags & LCP_STANDBY)
		setsid();
	/* criu dumps no session that began outside the pid namespace, whose number there is 0. */
	if (!job->restore && !job->become && ((job->namespaces & LCP_NS_PID) || getsid(0) == 0))
		setsid();
	if (job->namespaces & LCP_NS_PID) {
		result = lcp_mount_own_proc(job->namespaces);
		if (result)
			lcp_fail(channel, 0, -result, LCP_STAGE_PROC);
		if (job->last_pid) {
			snprintf(line, sizeof(line), "%d", job->last_pid);
			if (lcp_write_file("/proc/sys/kernel/ns_last_pid", line))
				lcp_fail(channel, 0, errno, LCP_STAGE_LAST_PID);
		}
	}
	if (job->restore && job->monotonic)
		(void)lcp_continue_clocks(job->monotonic, job->boottime); /* without it they jump, and resources know */
	/* An exec by uid 0 gives all capabilities, which a root with fewer, as in a container, could not restore. */
	if ((job->namespaces & LCP_NS_USER) && !job->restore && !geteuid() && lcp_empty_bounding_set(job->ambient))
		lcp_fail(channel, 0, errno, LCP_STAGE_CAPABILITIES);
	if ((job->namespaces & LCP_NS_USER) && lcp_set_ambient(job->ambient))
		lcp_fail(channel, 0, errno, LCP_STAGE_CAPABILITIES);
	if (job->service && (listener = lcp_listen_at(job->service)) < 0)
		lcp_fail(channel, 0, -listener, LCP_STAGE_SERVICE);
	/* Blocked since before the fork, as libcriu needs it for restore_child. */
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	if (job->become)
		pid = lcp_become_program(job, channel);
	else if (!job->restore)
		pid = start_program(job, channel, mask);
	else if (job->flags & LCP_HAS_PARENT)
		pid = lcp_restore_between(job, channel, &between);
	else
		pid = lcp_restore_program(job, channel);
	signals = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
	pidfd = lcp_pidfd_open(pid);
	lcp_tell(channel, LCP_EVENT_STARTED, pid, 0, 0, pidfd);
	/* Pipes of the caller must not be held open here. */
	keep[0] = channel;
	keep[1] = signals;
	keep[2] = listener;
	lcp_close_all_but(keep, listener < 0 ? 2 : 3);
	/* A copy whose pool has gone may end by itself before we do it: what it was dumped with comes to us. */
	if (job->flags & LCP_STANDBY)
		prctl(PR_SET_CHILD_SUBREAPER, 1);
	watch(job, channel, pid, between, signals, listener);
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
	int stage, result = lcp_make_namespaces(job->namespaces, &stage);
	pid_t pid;

	if (result)
		lcp_fail(channel, 0, -result, stage);
	pid = (pid_t)syscall(SYS_clone, CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid == 0)
		supervisor_main(job, channel, mask);
	if (pid < 0)
		lcp_fail(channel, 0, errno, LCP_STAGE_FORK);
	lcp_tell(channel, LCP_EVENT_SUPERVISED, pid, 0, 0, -1);
	_exit(0);
}

int lcp_supervise(const struct lcp_job *job, int *channel)
{
	int pair[2], result = lcp_socketpair(pair);
	AUTO_CLOSE int ours = -1, theirs = -1;
	sigset_t all, old;
	pid_t middle;

	if (result)
		return result;
	ours = pair[0];
	theirs = pair[1];
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	middle = fork();
	if (middle == 0) {
		close(ours);
		middle_main(job, theirs, &old);
	}
	result = middle < 0 ? -errno : 0;
	if (middle > 0)
		lcp_wait_for(middle);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!result)
		*channel = lcp_keep_fd(&ours);
	return result;
}

int lcp_supervise_directly(const struct lcp_job *job, int *channel, pid_t *supervisor)
{
	int pair[2], result = lcp_restoring_begin(), flags = SIGCHLD;
	AUTO_CLOSE int ours = -1, theirs = -1;
	uid_t uid = geteuid();
	gid_t gid = getegid();

	if (!result)
		result = lcp_socketpair(pair);
	if (result)
		return result;
	ours = pair[0];
	theirs = pair[1];
	if (job->namespaces & LCP_NS_USER)
		flags |= CLONE_NEWUSER;
	if (job->namespaces & LCP_NS_PID)
		flags |= CLONE_NEWPID | CLONE_NEWNS;
	*supervisor = (pid_t)syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);
	if (*supervisor == 0) {
		close(ours);
		if ((job->namespaces & LCP_NS_USER) && lcp_map_own_ids(uid, gid))
			lcp_fail(theirs, 0, errno, LCP_STAGE_IDMAP);
		supervisor_main(job, theirs, NULL);
	}
	if (*supervisor < 0)
		return -errno;
	*channel = lcp_keep_fd(&ours);
	return 0;
}
