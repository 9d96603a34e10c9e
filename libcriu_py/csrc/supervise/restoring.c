/*
 * Restoring in a supervisor.
 *
 * libcriu waits for criu's answer on a socket that the processes which criu makes also hold until they run. If criu is
 * killed, they wait for it and libcriu waits for them. So this process ends them when criu ends.
 */
#define _GNU_SOURCE
#include "supervise/restoring.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/descriptors.h"
#include "common/process.h"
#include "supervise/events.h"
#include "supervise/job.h"
#include "supervise/namespaces.h"

/* The caller is gone. Nobody else sends it; valgrind keeps SIGRTMAX for itself. */
#define CALLER_GONE (SIGRTMAX - 1)

extern char **environ;

/* Shared by the caller, the supervisor and criu. */
struct noted {
	pid_t criu;
	int signal; /* which ended criu */
};

static volatile struct noted *noted;
static const struct lcp_job *restoring;
static pid_t supervisor;
static volatile sig_atomic_t is_ended; /* all that criu has made: the program, too, if libcriu knows of it already */
static int word_from = -1; /* the channel on which the word is awaited that a restore may go on; -1: none */

int lcp_restoring_begin(void)
{
	int access = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_ANONYMOUS;
	void *page = noted ? (void *)noted : mmap(NULL, sizeof(*noted), access, flags, -1, 0);

	if (page == MAP_FAILED)
		return -errno;
	noted = page;
	noted->criu = 0;
	noted->signal = 0;
	return 0;
}

pid_t lcp_restoring_criu(void)
{
	return noted->criu;
}

/* Nobody waits for the program any more. */
static void __attribute__((noreturn)) end_in_vain(void)
{
	lcp_end_children(0);
	restoring->restored(restoring->context);
	_exit(1);
}

/* SIGCHLD may come after libcriu has reaped criu, and one may stand for several children. */
static int has_criu_failed(const siginfo_t *told)
{
	siginfo_t info = { 0 };

	if (told->si_pid == noted->criu)
		info = *told;
	else if (waitid(P_PID, (id_t)noted->criu, &info, WEXITED | WNOHANG | WNOWAIT) || !info.si_pid)
		return 0;
	if (info.si_code != CLD_EXITED)
		noted->signal = info.si_status;
	return info.si_code != CLD_EXITED || info.si_status;
}

static void on_end(int sig, siginfo_t *told, void *unused)
{
	int saved = errno;

	(void)unused;
	if (sig == CALLER_GONE)
		end_in_vain();
	if (has_criu_failed(told)) {
		lcp_end_children(noted->criu); /* libcriu itself waits for that one */
		is_ended = 1;
	}
	errno = saved;
}

/* These signals may interrupt the wait for criu. */
static void let_in(int how)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, CALLER_GONE);
	pthread_sigmask(how, &set, NULL);
}

/* criu starts beside, and is told nothing before the caller has agreed. */
static void await_word(void)
{
	char word;
	ssize_t size;

	if (word_from < 0)
		return;
	lcp_tell(word_from, LCP_EVENT_SUPERVISED, getpid(), 0, 0, -1);
	while ((size = recv(word_from, &word, 1, 0)) < 0 && errno == EINTR)
		;
	word_from = -1;
	if (size != 1)
		end_in_vain();
}

/* fork calls these two; libcriu forks only once. */
static void in_criu(void)
{
	noted->criu = getpid();
	if (getppid() != supervisor) /* its caller may have read that before, and cannot end criu */
		_exit(1);
}

static void beside_criu(void)
{
	let_in(SIG_UNBLOCK);
	await_word();
}

/* A caller that is killed kills no pid namespace where there is none; and what a dead criu leaves comes to this process. */
static int begin_watch(void)
{
	struct sigaction action = { .sa_sigaction = on_end, .sa_flags = SA_SIGINFO | SA_RESTART | SA_NOCLDSTOP };

	sigfillset(&action.sa_mask);
	if (sigaction(SIGCHLD, &action, NULL) || sigaction(CALLER_GONE, &action, NULL) ||
	    prctl(PR_SET_PDEATHSIG, CALLER_GONE) || prctl(PR_SET_CHILD_SUBREAPER, 1))
		return errno;
	return pthread_atfork(NULL, beside_criu, in_criu);
}

static void end_watch(void)
{
	signal(SIGCHLD, SIG_DFL); /* which tells of stops, too */
	prctl(PR_SET_PDEATHSIG, 0);
	prctl(PR_SET_CHILD_SUBREAPER, 0);
}

/* Tell why there is no program, and clean up when the caller has seen why, or is gone. */
static void __attribute__((noreturn)) fail(int channel, int value, int error, int stage)
{
	ssize_t size;
	char word;

	lcp_tell(channel, LCP_EVENT_FAILED, value, error, stage, -1);
	do
		size = recv(channel, &word, 1, 0);
	while (size > 0 || (size < 0 && errno == EINTR));
	restoring->restored(restoring->context);
	_exit(1);
}

pid_t lcp_restore_program(const struct lcp_job *job, int channel)
{
	int pid, error, work;

	restoring = job;
	supervisor = getpid();
	if (job->flags & LCP_AWAIT_WORD)
		word_from = channel;
	error = begin_watch();
	if (error)
		fail(channel, 0, error, LCP_STAGE_FORK);
	work = job->restores(job->context);
	if (work < 0)
		fail(channel, 0, -work, LCP_STAGE_WORK);
	criu_local_set_work_dir_fd(job->restore, work);
	for (int i = 0; i < job->inherit_count; i++)
		fcntl(job->inherit[i], F_SETFD, 0);
	/* criu puts its own descriptors below it (criu/servicefd.c); the restored process has a limit of its own. */
	lcp_raise_limit(RLIMIT_NOFILE);
	/* libcriu's child runs execlp("criu", ...) with our environment. */
	environ = (char **)job->env;
	errno = 0;
	pid = criu_local_restore_child(job->restore);
	error = errno;
	let_in(SIG_BLOCK);
	if (pid <= 0 || is_ended) {
		lcp_end_children(0); /* of a criu that has died after it had let them go */
		if (noted->signal)
			fail(channel, noted->signal, 0, LCP_STAGE_CRIU);
		fail(channel, pid, error, LCP_STAGE_RESTORE);
	}
	end_watch();
	job->restored(job->context);
	return pid;
}

/* ---- the process between ---------------------------------------------- */

/* Be the parent of a program until it ends. Its end is left to be reported by pid 1, whose child it then is. */
static void __attribute__((noreturn)) be_parent(pid_t pid, int channel)
{
	siginfo_t info = { 0 };

	for (;;) {
		if (waitid(P_PID, (id_t)pid, &info, WEXITED | WSTOPPED | WNOWAIT))
			_exit(1);
		if (info.si_code != CLD_STOPPED && info.si_code != CLD_TRAPPED)
			_exit(0);
		info.si_pid = 0;
		if (!waitid(P_PID, (id_t)pid, &info, WSTOPPED | WNOHANG) && info.si_pid)
			lcp_tell(channel, LCP_EVENT_STOPPED, info.si_status, 0, 0, -1);
	}
}

static void __attribute__((noreturn)) be_between(const struct lcp_job *job, int channel, int report)
{
	pid_t pid;

	prctl(PR_SET_NAME, "lcp-parent");
	pid = lcp_restore_program(job, channel);
	if (write(report, &pid, sizeof(pid)) != sizeof(pid))
		_exit(1);
	/* A program may stop at once: that is told only after the supervisor has told of its start, and closed the other end. */
	while (poll(&(struct pollfd){ report, 0, 0 }, 1, -1) < 0)
		;
	lcp_close_all_but(&channel, 1); /* pipes of the caller, too */
	be_parent(pid, channel);
}

pid_t lcp_restore_between(const struct lcp_job *job, int channel, pid_t *between)
{
	/* What the caller sends is for the process between; only its end matters here. */
	struct pollfd polled[2] = { { -1, POLLIN, 0 }, { channel, 0, 0 } };
	int report[2];
	pid_t pid;

	if (pipe2(report, O_CLOEXEC) || (*between = fork()) < 0)
		lcp_fail(channel, 0, errno, LCP_STAGE_FORK);
	if (*between == 0) {
		close(report[0]);
		be_between(job, channel, report[1]);
	}
	close(report[1]);
	polled[0].fd = report[0];
	while (poll(polled, 2, -1) < 0)
		;
	if (!polled[0].revents || read(report[0], &pid, sizeof(pid)) != sizeof(pid)) {
		/* The caller is gone, or knows why. All end at once, before criu can complain of another's end. */
		kill(-1, SIGKILL);
		while (waitpid(-1, NULL, 0) > 0)
			;
		job->restored(job->context);
		_exit(1);
	}
	return pid; /* the supervisor closes report[0] with all that it does not need, when it has told of the start */
}
