#define _GNU_SOURCE
#include "common/watch.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/descriptors.h"
#include "common/files.h"
#include "common/process.h"

#define VARIABLE "LIBCRIU_PY_CRIU_LIMIT"
#define DEFAULT_S 30 /* as in libcriu_py/settings.py */
#define GB 1000000000LL

int lcp_dump_limit(int pid)
{
	const char *set = getenv(VARIABLE);
	double seconds = set && *set ? strtod(set, NULL) : DEFAULT_S, limit;
	long long total, resident = 0;
	char path[64], text[128];

	snprintf(path, sizeof(path), "/proc/%d/statm", pid);
	lcp_read_text(path, text, sizeof(text));
	if (sscanf(text, "%lld %lld", &total, &resident) == 2)
		resident *= sysconf(_SC_PAGESIZE);
	limit = (seconds > 0 ? seconds : DEFAULT_S) * 1000 * (double)(resident / GB + 1);
	return limit < INT_MAX ? (int)limit : INT_MAX;
}

void lcp_prepare_watch(void)
{
	sigset_t all;

	/* A caller may ignore SIGCHLD, and then the kernel reports no end of a child (signal(7)). */
	signal(SIGCHLD, SIG_DFL);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	prctl(PR_SET_NAME, "lcp-watch");
}

/* Reap what has ended and continue what has stopped; whether criu has ended. */
static int has_ended(pid_t criu)
{
	pid_t child;
	int status;

	while ((child = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0) {
		if (WIFSTOPPED(status))
			kill(child, SIGCONT); /* it holds the program */
		else if (child == criu)
			return 1;
	}
	return child < 0; /* there is no child any more */
}

void lcp_watch(pid_t criu, int limit_ms)
{
	long long end = lcp_now_ms() + limit_ms, left;
	sigset_t chld;

	lcp_close_all_but(&(int){ 0 }, 0);
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	while (!has_ended(criu) && (left = end - lcp_now_ms()) > 0)
		sigtimedwait(&chld, NULL, &(struct timespec){ left / 1000, left % 1000 * 1000000 });
	/* A criu that has died may have left helpers, which hold its connection open (kerndat_init in criu/kerndat.c). */
	lcp_end_children(0);
	_exit(0);
}
