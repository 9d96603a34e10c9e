/* The supervisor's program, where that is a copy. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/process.h"
#include "supervise/events.h"
#include "supervise/namespaces.h"
#include "supervise/supervisor.h"

extern char **environ;

/* Where the word is awaited that a restore may go on; -1: nowhere. */
static int word_from = -1;

/* Called by fork, which libcriu does but once: criu starts beside, and is told nothing before the caller has agreed. */
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
	if (size == 1)
		return;
	lcp_kill_children(getpid());
	_exit(1);
}

pid_t lcp_restore_program(const struct lcp_job *job, int channel)
{
	int pid;

	if (job->flags & LCP_AWAIT_WORD) {
		word_from = channel;
		if (pthread_atfork(NULL, await_word, NULL))
			lcp_fail(channel, 0, ENOMEM, LCP_STAGE_FORK);
	}

	for (int i = 0; i < job->inherit_count; i++)
		fcntl(job->inherit[i], F_SETFD, 0);
	/* criu puts its own descriptors below it (criu/servicefd.c); the restored process has a limit of its own. */
	lcp_raise_limit(RLIMIT_NOFILE);
	/* libcriu's child runs execlp("criu", ...) with our environment. */
	environ = (char **)job->env;
	errno = 0;
	pid = criu_local_restore_child(job->restore);
	if (pid <= 0) {
		int error = errno;

		lcp_kill_children(getpid()); /* of a criu that has died after it had let them go */
		lcp_fail(channel, pid, error, LCP_STAGE_RESTORE);
	}
	if (job->restored)
		job->restored(job->context);
	return pid;
}

pid_t lcp_become_program(const struct lcp_job *job, int channel)
{
	int report[2];
	char word;
	pid_t pid;

	if (pipe2(report, O_CLOEXEC))
		lcp_fail(channel, 0, errno, LCP_STAGE_FORK);
	pid = fork();
	if (pid < 0)
		lcp_fail(channel, 0, errno, LCP_STAGE_FORK);
	if (pid == 0) {
		job->become(job->context, report[1]);
		_exit(125);
	}
	close(report[1]);
	while (read(report[0], &word, 1) < 0 && errno == EINTR)
		;
	close(report[0]);
	return pid;
}
