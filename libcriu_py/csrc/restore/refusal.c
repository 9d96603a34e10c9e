#define _GNU_SOURCE
#include "restore/refusal.h"

#include <fcntl.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/files.h"
#include "restore/problem.h"
#include "restore/scratch.h"

#define LARGEST_LOG (1 << 20)

/* Runs that succeed print these too. */
static const char *const harmless[] = { "Can't setup RLIMIT_NOFILE", "Unexpected error", "Can't get tls handshake",
					"Unable to open /sys/kernel/debug", NULL };
/* Consequences of an earlier error: the reason only if there is no other. */
static const char *const consequences[] = { "Restoring FAILED", "Aborting", "Unable to detach from", NULL };

static int has_any(const char *line, const char *const *texts)
{
	for (; *texts; texts++)
		if (strstr(line, *texts))
			return 1;
	return 0;
}

/* Return `file.c:12: message` of the first line that gives a reason, or NULL. Cuts the log into lines. */
static char *first_error(char *log)
{
	char *late = NULL, *state = NULL;

	for (char *line = strtok_r(log, "\n", &state); line; line = strtok_r(NULL, "\n", &state)) {
		char *where = strstr(line, "Error ("), *close;

		close = where ? strstr(where, "): ") : NULL;
		if (!close || has_any(close, harmless))
			continue;
		where += strlen("Error (");
		if (!strncmp(where, "criu/", 5))
			where += 5;
		memmove(close, close + 1, strlen(close)); /* the parenthesis */
		if (!has_any(close, consequences))
			return where;
		if (!late)
			late = where;
	}
	return late;
}

int lcp_explain_refusal(const char *directory, int error, struct problem *problem)
{
	AUTO_CLOSE int work = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AUTO_FREE char *log = lcp_read_whole(work, WORK_LOG, LARGEST_LOG);
	const char *reason = log ? first_error(log) : NULL;

	if (!reason)
		reason = error ? strerror(error) : "it gave no reason";
	lcp_failed(problem, "criu refused to restore: %s", reason);
	problem->failure = FAILURE_REFUSED;
	problem->error = error;
	problem->log = openat(work, WORK_LOG, O_RDONLY | O_CLOEXEC);
	return -1;
}
