/*
 * A snapshot is made when the program has ended, so that the two do not compete, and with what that has imported.
 *
 * The first copies of a snapshot are watched. One that has crashed within a second has gone wrong as a copy for all that
 * anybody knows, and its snapshot is set aside.
 */
#define _GNU_SOURCE
#include "launcher/background.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/descriptors.h"
#include "common/process.h"
#include "launcher/target.h"

#define CODE "import sys; sys.path[: sys.path[0] == ''] = []\nfrom libcriu_py.auto.job import main; main()"
#define OFF "LIBCRIU_PY_AUTO=0" /* or the job would start jobs */
#define WATCHED_MS 1000
#define REAPED_MS 100
#define IDLE_CLASS (3 << 13) /* IOPRIO_CLASS_IDLE, include/uapi/linux/ioprio.h */

/* include/uapi/linux/pidfd.h of Linux 6.15; the status is there when the process has been reaped. */
struct exit_info {
	uint64_t mask, cgroup;
	uint32_t ids[11];
	int32_t status;
};
#define GET_INFO _IOWR(0xFF, 11, struct exit_info)
#define EXIT_INFO (1 << 3)

void lcp_watch_path(char *path, const char *entry)
{
	snprintf(path, PATH_MAX, "%s/watch.%d", entry, (int)getpid());
}

int lcp_is_own_place(const char *path)
{
	struct stat status;

	return !stat(path, &status) && status.st_uid == geteuid() && !access(path, W_OK | X_OK);
}

/* Wait for a process to end, and so that its status is known. */
static void await_end(int pidfd, int wait_ms)
{
	struct pollfd polled = { pidfd, POLLIN, 0 };
	int count;

	while ((count = poll(&polled, 1, wait_ms ? wait_ms : -1)) < 0 && errno == EINTR)
		;
	if (!count)
		return;
	for (int i = 0; i < REAPED_MS && !(polled.revents & POLLHUP); i++) {
		poll(NULL, 0, 1);
		poll(&polled, 1, 0);
	}
}

/* Whether it has ended by a signal that a fault raises; where the kernel does not know, it may have. */
static int has_crashed(int pidfd)
{
	struct exit_info info = { .mask = EXIT_INFO };

	if (ioctl(pidfd, GET_INFO, &info) || !(info.mask & EXIT_INFO))
		return 1;
	if (!WIFSIGNALED(info.status))
		return 0;
	switch (WTERMSIG(info.status)) {
	case SIGSEGV:
	case SIGBUS:
	case SIGILL:
	case SIGFPE:
	case SIGABRT:
	case SIGTRAP:
	case SIGSYS:
		return 1;
	default:
		return 0;
	}
}

/* What is to be done about a copy that has ended; NULL: nothing. */
static const char *judge(const char *watch, const char *entry, int pidfd, long long begun)
{
	static char runs[PATH_MAX];
	struct stat status;

	if (!stat(watch, &status) && status.st_size) {
		unlink(watch);
		return NULL; /* the start was conventional after all, and another job is about that */
	}
	if (!unlink(watch) && lcp_now_ms() - begun < WATCHED_MS && has_crashed(pidfd))
		return "crash";
	snprintf(runs, sizeof(runs), "%s/runs", entry);
	return access(runs, F_OK) ? NULL : "more"; /* it has imported what the snapshot does not have */
}

static char **environment(char *const *env)
{
	size_t count = 0;
	char **copy;

	while (env[count])
		count++;
	copy = calloc(count + 2, sizeof(*copy));
	if (copy) {
		memcpy(copy, env, count * sizeof(*copy));
		copy[count] = OFF;
	}
	return copy;
}

static void leave_terminal(int pidfd)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), keep[] = { 0, 1, 2, pidfd };
	sigset_t none;

	setsid();
	for (int fd = 0; fd < 3 && null >= 0; fd++)
		dup2(null, fd);
	lcp_close_all_but(keep, 4);
	setpriority(PRIO_PROCESS, 0, 19);
	syscall(SYS_ioprio_set, 1, 0, IDLE_CLASS);
	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	umask(077);
}

static void work(const struct background *job, const char *watch, int pidfd)
{
	const struct target *target = job->target;
	long long begun = lcp_now_ms();
	const char *what = "miss";
	static char cwd[PATH_MAX];
	char **env = environment(job->env);

	leave_terminal(pidfd);
	if (!getcwd(cwd, sizeof(cwd)))
		strcpy(cwd, "/");
	if (chdir("/") || !env)
		return;
	await_end(pidfd, job->wait_ms);
	if (job->is_copy)
		what = judge(watch, job->entry, pidfd, begun);
	close(pidfd);
	if (what)
		execle(target->python, target->python, "-c", CODE, job->entry, target->kind, target->value, cwd, what,
		       job->seen, NULL, env);
}

void lcp_background_see(struct background *job)
{
	char path[PATH_MAX];
	struct stat status;

	snprintf(path, sizeof(path), "%s/snap", job->entry);
	snprintf(job->seen, sizeof(job->seen), "none");
	if (!stat(path, &status))
		snprintf(job->seen, sizeof(job->seen), "%llu %lld", (unsigned long long)status.st_ino,
			 status.st_ctim.tv_sec * 1000000000LL + status.st_ctim.tv_nsec);
}

int lcp_background_start(const struct background *job)
{
	int pidfd = getpid() == 1 ? -1 : lcp_pidfd_open(getpid()); /* the first process would have it as a child */
	char watch[PATH_MAX];
	pid_t pid;

	if (pidfd < 0)
		return -1;
	lcp_watch_path(watch, job->entry);
	pid = fork();
	if (pid == 0) {
		if (fork() == 0)
			work(job, watch, pidfd);
		_exit(0);
	}
	close(pidfd);
	return pid < 0 || lcp_wait_for(pid) ? -1 : 0;
}
