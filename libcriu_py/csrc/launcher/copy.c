#define _GNU_SOURCE
#include "launcher/copy.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launcher/messages.h"
#include "restore/handover.h"
#include "restore/launch.h"
#include "restore/problem.h"
#include "restore/restore.h"
#include "supervise/proxy.h"

/* End as the program did, by the same signal, or with its status. */
static void end_as(int status)
{
	struct rlimit none = { 0, 0 };
	sigset_t unblocked;

	if (WIFSIGNALED(status)) {
		int sig = WTERMSIG(status);

		setrlimit(RLIMIT_CORE, &none); /* the core is the program's, not ours */
		signal(sig, SIG_DFL);
		sigemptyset(&unblocked);
		sigaddset(&unblocked, sig);
		sigprocmask(SIG_UNBLOCK, &unblocked, NULL);
		kill(getpid(), sig);
		_exit(128 + sig);
	}
	_exit(WEXITSTATUS(status));
}

/* Behave as the program until it ends; its wait status. */
static int be_program(const struct restored *restored)
{
	const struct inherited_fds *passed = &restored->inherited;
	struct lcp_handed handed = { restored->control, passed->fds, passed->count, restored->parent };
	int status = SIGKILL; /* if the supervisor was killed, and so the program is */

	/* A copy that may still begin must end before anybody asks whether it has begun. */
	if (lcp_proxy(restored->channel, restored->pidfd, restored->own_session, &handed, &status) < 0)
		lcp_end_orphan(restored->pidfd);
	return status;
}

/* Whether program code has run; if not, set the reason. */
static int has_started(const struct restored *restored, int status, struct problem *problem)
{
	char told[2048];
	ssize_t size = recv(restored->control, told, sizeof(told) - 1, MSG_DONTWAIT);

	told[size > 0 ? size : 0] = '\0';
	/* A program that somebody ended before it could go on is not started again. */
	if (told[0] == 'S' || (WIFSIGNALED(status) && lcp_is_ending_signal(WTERMSIG(status))))
		return 1;
	sigprocmask(SIG_SETMASK, &restored->mask, NULL);
	if (told[0] == 'E')
		lcp_failed(problem, "the restored process could not take over: %s", told + 1);
	else if (WIFSIGNALED(status))
		lcp_failed(problem, "the restored process ended by signal SIG%s before the program could go on",
				sigabbrev_np(WTERMSIG(status)) ? sigabbrev_np(WTERMSIG(status)) : "?");
	else
		lcp_failed(problem, "the restored process ended with status %d before the program could go on",
				WEXITSTATUS(status));
	return 0;
}

void lcp_be_copy(const struct launch *launch, const struct snapshot *snapshot, struct problem *problem)
{
	struct restored restored;
	int status, result = lcp_restore(&restored, launch, snapshot, problem);

	if (result > 0) {
		lcp_say("", problem->text, "");
		_exit(LAUNCHER_FAILED);
	}
	if (result)
		return;
	status = be_program(&restored);
	if (has_started(&restored, status, problem))
		end_as(status);
}
