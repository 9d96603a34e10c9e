#define _GNU_SOURCE
#include "supervise/becoming.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "supervise/events.h"
#include "supervise/job.h"
#include "supervise/namespaces.h"

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
