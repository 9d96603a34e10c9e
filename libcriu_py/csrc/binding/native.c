#define _GNU_SOURCE
#include "binding/native.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/descriptors.h"
#include "common/process.h"
#include "common/watch.h"

extern char **environ;

/* Everything the new process needs, shared with it because of vfork. */
struct start {
	const char *binary;
	const struct lcp_child *child;
	sigset_t mask; /* of the caller, before it blocked everything */
	int fd;        /* criu's end of the socket pair */
	int error;     /* errno of a failed exec */
	pid_t watcher; /* of a criu that is detached */
};

/*
 * Give a new criu the signal state it would have had if the caller had not
 * blocked anything: criu needs SIGCHLD and, for its timeout, SIGALRM. SIGCHLD
 * is not ignored either, or criu could not wait for its children (signal(7)).
 *
 * Handlers go first: between unblocking and exec they would run here, and
 * Python's write to a wake-up fd that is shared with the parent.
 */
static void reset_signals(const sigset_t *mask)
{
	struct sigaction action;
	int signo;

	for (signo = 1; signo < NSIG; signo++) {
		if (sigaction(signo, NULL, &action))
			continue;
		if (signo != SIGCHLD && !(action.sa_flags & SA_SIGINFO) &&
		    (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN))
			continue;
		memset(&action, 0, sizeof(action));
		action.sa_handler = SIG_DFL;
		sigaction(signo, &action, NULL);
	}
	sigprocmask(SIG_SETMASK, mask, NULL);
}

/* The table of descriptors is the child's own copy: nothing leaks to other children of the caller. */
static void arrange_fds(const struct lcp_child *child)
{
	size_t i;

	for (i = 0; i < child->keep_count; i++)
		fcntl(child->keep_fds[i], F_SETFD, 0);
	if (child->output_fd >= 0) {
		dup2(child->output_fd, STDOUT_FILENO);
		dup2(child->output_fd, STDERR_FILENO);
	}
}

/*
 * Runs in a child made by vfork: system calls only, and no variable of the
 * parent is changed but start->error.
 */
static void __attribute__((noreturn)) exec_service(struct start *start)
{
	char number[12];
	char *const argv[] = { "criu", "swrk", number, NULL };
	char **environment = start->child->environment ? start->child->environment : environ;

	snprintf(number, sizeof(number), "%d", start->fd);
	fcntl(start->fd, F_SETFD, 0);
	arrange_fds(start->child);
	reset_signals(&start->mask);
	/* The program's own limits are too low for criu, which writes all its memory and opens all its files. */
	lcp_raise_limit(RLIMIT_NOFILE);
	lcp_raise_limit(RLIMIT_FSIZE);
	lcp_raise_limit(RLIMIT_CPU);
	execve(start->binary, argv, environment);
	start->error = errno;
	_exit(127);
}

/* Returns the pid of the child, -1 with errno otherwise. */
static pid_t __attribute__((noinline)) spawn_attached(struct start *start)
{
	pid_t pid = vfork();

	if (pid == 0)
		exec_service(start);
	return pid;
}

/*
 * Watches criu from outside of the tree that is dumped, in a session of its own: a Ctrl-C meant for the program must not
 * end criu in the middle of a dump. It has the memory of the caller, as after fork, but for what criu is started with.
 */
static void __attribute__((noreturn, noinline)) watch_detached(struct start *start, int report, int limit_ms)
{
	pid_t pid;

	setsid();
	lcp_prepare_watch();
	pid = vfork();
	if (pid == 0)
		exec_service(start);
	if (pid < 0)
		start->error = errno;
	if (start->error && write(report, &start->error, sizeof(start->error)) < 0)
		_exit(1);
	if (start->error)
		_exit(0);
	lcp_watch(pid, limit_ms);
}

/*
 * The middle process exists only to die: its child is then adopted by init (or by a reaper above us) and is outside the
 * tree that a self-dump dumps.
 */
static pid_t __attribute__((noinline)) spawn_detached(struct start *start, int report, int limit_ms)
{
	pid_t pid = vfork(), child;

	if (pid == 0) {
		/* Not fork, whose handlers would run in the caller's memory. */
		child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
		if (child == 0)
			watch_detached(start, report, limit_ms);
		if (child < 0)
			start->error = errno;
		start->watcher = child;
		_exit(0);
	}
	return pid;
}

/* Wait until criu runs, and so nothing of it but the connection is left here; its errno otherwise. */
static int await_exec(const struct start *start, int report, int limit_ms)
{
	struct pollfd polled = { report, POLLIN, 0 };
	int error = 0;

	if (poll(&polled, 1, limit_ms) == 0) {
		kill(start->watcher, SIGKILL); /* it was stopped */
		return ETIMEDOUT;
	}
	return read(report, &error, sizeof(error)) < 0 ? errno : error;
}

/* An orphan goes to the nearest subreaper, which must not be ourselves. */
static pid_t spawn_outside_tree(struct start *start)
{
	int reaper = 0, report[2], limit_ms = lcp_dump_limit(getpid());
	pid_t pid;

	if (pipe2(report, O_CLOEXEC))
		return -1;
	prctl(PR_GET_CHILD_SUBREAPER, &reaper, 0, 0, 0);
	if (reaper)
		prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
	pid = spawn_detached(start, report[1], limit_ms);
	close(report[1]);
	if (pid > 0)
		lcp_wait_for(pid);
	if (pid > 0 && !start->error)
		start->error = await_exec(start, report[0], limit_ms);
	close(report[0]);
	if (reaper)
		prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	return pid;
}

int lcp_spawn_service(const char *binary, const struct lcp_child *child, bool detached, int limit_ms, int *pid)
{
	struct start start = { .binary = binary, .child = child };
	struct timeval limit = { limit_ms / 1000, limit_ms % 1000 * 1000 };
	int pair[2], error = lcp_socketpair(pair);
	AUTO_CLOSE int ours = -1, crius = -1;
	sigset_t all;
	pid_t started;

	*pid = 0;
	if (error)
		return error;
	ours = pair[0];
	start.fd = crius = pair[1];
	if (limit_ms && setsockopt(ours, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)))
		return -errno;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &start.mask);
	started = detached ? spawn_outside_tree(&start) : spawn_attached(&start);
	if (started < 0)
		error = errno;
	else if (start.error) {
		error = start.error;
		if (!detached)
			lcp_wait_for(started);
	}
	pthread_sigmask(SIG_SETMASK, &start.mask, NULL);

	if (error)
		return -error;
	if (!detached)
		*pid = started;
	return lcp_keep_fd(&ours);
}

int lcp_reap_service(int pid)
{
	return lcp_wait_for(pid);
}

/*
 * libcriu forks the criu of restore_child itself and offers no way to reach
 * into the child, so a fork handler does it. Set only while this thread is in
 * libcriu, so that every other fork of the process passes through untouched.
 */
static __thread struct {
	const struct lcp_child *child;
	sigset_t mask;
} in_call;

static void after_fork_in_child(void)
{
	const struct lcp_child *child = in_call.child;

	if (!child)
		return;
	in_call.child = NULL;
	if (child->environment)
		environ = child->environment;
	arrange_fds(child);
	reset_signals(&in_call.mask);
}

static void __attribute__((constructor)) install_fork_handler(void)
{
	pthread_atfork(NULL, NULL, after_fork_in_child);
}

static int run(enum lcp_operation operation, criu_opts *opts, struct criu_feature_check *features)
{
	switch (operation) {
	case LCP_CHECK:
		return criu_local_check(opts);
	case LCP_DUMP:
		return criu_local_dump(opts);
	case LCP_PRE_DUMP:
		return criu_local_pre_dump(opts);
	case LCP_DUMP_ITERS:
		return criu_local_dump_iters(opts, lcp_more);
	case LCP_RESTORE:
		return criu_local_restore(opts);
	case LCP_RESTORE_CHILD:
		return criu_local_restore_child(opts);
	case LCP_VERSION:
		return criu_local_get_version(opts);
	case LCP_FEATURES:
		return criu_local_feature_check(opts, features, sizeof(*features));
	}
	errno = EINVAL;
	return -EINVAL;
}

/*
 * libcriu does not retry after EINTR: a signal handler that ran during the call
 * would end it with -ECOMM while criu goes on. With SIGCHLD let through, a
 * restored child could end before its pid is known to the caller.
 */
int lcp_call(enum lcp_operation operation, criu_opts *opts, const struct lcp_child *child,
	     struct criu_feature_check *features, int *error)
{
	sigset_t all, mask;
	int result;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &mask);
	in_call.child = child;
	in_call.mask = mask;
	errno = 0;
	result = run(operation, opts, features);
	*error = errno;
	in_call.child = NULL;
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	if (operation == LCP_DUMP && result > 0 && lcp_on_arrival)
		lcp_on_arrival();
	return result;
}
