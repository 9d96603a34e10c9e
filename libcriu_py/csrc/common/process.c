/* What a process does to itself. */
#define _GNU_SOURCE
#include "common/process.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/files.h"

extern char **environ;

void (*lcp_on_arrival)(void);

int lcp_wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return status;
}

/* Read all before killing one: the kernel finds the next by counting those that are left (fs/proc/array.c). */
void lcp_kill_children(pid_t pid)
{
	char path[64];
	AUTO_CLOSEDIR DIR *tasks = NULL;
	struct dirent *entry;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	tasks = opendir(path);
	while (tasks && (entry = readdir(tasks))) {
		AUTO_FREE char *children = NULL;
		char *rest, *word;

		snprintf(path, sizeof(path), "/proc/%d/task/%.20s/children", pid, entry->d_name);
		rest = children = lcp_read_whole(AT_FDCWD, path, SIZE_MAX);
		while ((word = strsep(&rest, " ")))
			if (atoi(word) > 0)
				lcp_kill_tree(atoi(word));
	}
}

void lcp_kill_tree(int pid)
{
	kill(pid, SIGSTOP); /* it shall not make more */
	lcp_kill_children(pid);
	kill(pid, SIGKILL);
}

void lcp_end_child(pid_t pid)
{
	siginfo_t info;

	/* The pid of a child that is not reaped can be no other process's. */
	if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT))
		return;
	lcp_kill_tree(pid);
	lcp_wait_for(pid);
}

/* The next pid in a text of pids, each with a space behind it; 0 at its end. */
static pid_t next_pid(char **at)
{
	char *end;
	pid_t pid = (pid_t)strtol(*at, &end, 10);

	if (end == *at || *end != ' ')
		return 0; /* one whose end is on the next page is for the next round */
	*at = end;
	return pid;
}

/*
 * What a child leaves comes to this process, so each round ends one generation. The list of children is that of a process
 * of one thread, and as long as a page at most. All are killed before one is waited for, which another may be tracing.
 */
void lcp_end_children(pid_t but)
{
	char list[4097], path[64];
	int count = 1;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
	while (count) {
		AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t size = fd < 0 ? 0 : read(fd, list, sizeof(list) - 1);
		char *at = list;
		pid_t child;

		list[size > 0 ? size : 0] = '\0';
		for (count = 0; (child = next_pid(&at));)
			count += child != but && !kill(child, SIGKILL);
		for (at = list; (child = next_pid(&at));)
			while (child != but && waitpid(child, NULL, __WALL) < 0 && errno == EINTR)
				;
	}
}

void lcp_continue_children(void)
{
	siginfo_t info = { .si_pid = 0 };

	while (!waitid(P_ALL, 0, &info, WSTOPPED | WNOHANG) && info.si_pid) {
		kill(info.si_pid, SIGCONT);
		info.si_pid = 0;
	}
}

void lcp_raise_limit(int resource)
{
	struct rlimit limit;

	if (!getrlimit((__rlimit_resource_t)resource, &limit) && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit((__rlimit_resource_t)resource, &limit);
	}
}

void lcp_trim_heap(void)
{
#ifdef __GLIBC__
	malloc_trim(0);
#endif
}

int lcp_ignore_signal(int signo)
{
	struct sigaction ignored = { .sa_handler = SIG_IGN };

	return sigaction(signo, &ignored, NULL) ? -errno : 0;
}

/* By the kernel's numbers: musl has these functions, and they do nothing. */
int lcp_get_schedule(int task, int *schedule)
{
	errno = 0;
	schedule[0] = getpriority(PRIO_PROCESS, (id_t)task);
	if (errno)
		return -errno;
	schedule[1] = (int)syscall(SYS_sched_getscheduler, task);
	if (schedule[1] < 0 || syscall(SYS_sched_getparam, task, &schedule[2]))
		return -errno;
	return 0;
}

void lcp_set_schedule(int task, const int *schedule)
{
	syscall(SYS_sched_setscheduler, task, schedule[1], &schedule[2]);
	setpriority(PRIO_PROCESS, (id_t)task, schedule[0]);
}

/*
 * The leader of a process group can make no session, so it joins another group first: that of a child which has ended,
 * and which holds the group together until it is reaped. The child sends no signal: Python has handlers for SIGCHLD.
 */
static int leave_own_group(void)
{
	pid_t child = (pid_t)syscall(SYS_clone, 0, NULL, NULL, NULL, NULL);
	siginfo_t info;
	int result;

	if (child < 0)
		return -errno;
	if (child == 0)
		_exit(setpgid(0, 0) ? 1 : 0);
	while (waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT | __WCLONE) && errno == EINTR)
		;
	result = setpgid(0, child) ? -errno : 0;
	if (!result && setsid() < 0)
		result = -errno;
	while (waitpid(child, NULL, __WCLONE) < 0 && errno == EINTR)
		;
	return result;
}

int lcp_lead_session(void)
{
	if (getpgrp() == getpid())
		return leave_own_group();
	return setsid() < 0 ? -errno : 0;
}

void lcp_exit_now(int status)
{
	fflush(NULL);
	_exit(status);
}

static void end_at_once(int status, void *unused)
{
	(void)unused;
	lcp_exit_now(status);
}

/* What is registered last runs first: nothing that was registered so far will run (on_exit(3), of glibc). */
int lcp_end_at_exit(void)
{
	return on_exit(end_at_once, NULL) ? -ENOMEM : 0;
}

/* The block is kept for good: getenv() hands out pointers into it. */
int lcp_replace_environ(const char *block, size_t size)
{
	AUTO_FREE char *copy = malloc(size + 1);
	size_t count = 0, next = 0;
	char **entries;

	for (size_t i = 0; i < size; i++)
		count += block[i] == '\0';
	entries = copy ? malloc((count + 1) * sizeof(*entries)) : NULL;
	if (!entries)
		return -ENOMEM;
	memcpy(copy, block, size);
	copy[size] = '\0';
	for (size_t i = 0; i < size; i += strlen(copy + i) + 1)
		entries[next++] = copy + i;
	entries[next] = NULL;
	environ = entries;
	copy = NULL;
	return 0;
}

long long lcp_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}
