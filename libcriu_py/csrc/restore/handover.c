#define _GNU_SOURCE
#include "restore/handover.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/descriptors.h"
#include "common/process.h"
#include "restore/launch.h"
#include "restore/manifest.h"
#include "restore/place.h"
#include "restore/problem.h"
#include "restore/request.h"

/*
 * What is open and not closed on exec came with the start of this process: its own files are. It is looked for while criu
 * starts; to ask for each number that there may be takes longer, or, with poll, wakes who serves the file.
 */
static void find_inherited(struct inherited_fds *found)
{
	DIR *directory = opendir("/proc/self/fd");
	struct dirent *entry;

	found->count = 0;
	while (directory && (entry = readdir(directory))) {
		int fd = atoi(entry->d_name), flags = fd > 2 ? fcntl(fd, F_GETFD) : -1; /* they come in order */

		if (flags < 0 || flags & FD_CLOEXEC)
			continue;
		if (found->count < MOST_INHERITED)
			found->fds[found->count] = fd;
		found->count++;
	}
	if (directory)
		closedir(directory);
}

int lcp_fill_request(struct request *request, const struct launch *launch, const struct snapshot *snapshot,
		     const struct self *self, struct inherited_fds *inherited, char cwd[PATH_MAX], struct problem *problem)
{
	find_inherited(inherited);
	if (inherited->count > MOST_INHERITED)
		return lcp_problem_set(problem, LAUNCHER_FAILED,
				       "this process was started with %d descriptors above 2, of which "
				       "a copy can be given %d", inherited->count, MOST_INHERITED);
	memset(request, 0, sizeof(*request));
	if (!getcwd(cwd, PATH_MAX))
		return lcp_problem_set(problem, LAUNCHER_FAILED, "the working directory cannot be told: %s", strerror(errno));
	request->argv = launch->arguments;
	request->env = launch->env;
	request->cwd = cwd;
	request->umask = umask(077);
	umask(request->umask);
	request->snapshot = snapshot->path;
	request->pgid = getpgrp();
	request->ignored = self->ignored;
	request->blocked = launch->blocked;
	request->inherited = inherited;
	lcp_get_schedule(0, request->schedule);
	for (int fd = 0; fd < 3; fd++)
		request->closed |= lcp_is_closed(fd) ? 1u << fd : 0;
	return 0;
}

int lcp_print_request(const struct launch *launch, const struct snapshot *snapshot)
{
	struct text text = { 0 };
	struct request request;
	struct inherited_fds inherited;
	struct problem problem;
	struct self self;
	char cwd[PATH_MAX];

	if (lcp_self_read(&self, &problem) || lcp_fill_request(&request, launch, snapshot, &self, &inherited, cwd, &problem) ||
	    lcp_request_encode(&text, &request))
		return LAUNCHER_FAILED;
	return fwrite(text.data, 1, text.size, stdout) == text.size && !fflush(stdout) ? 0 : LAUNCHER_FAILED;
}
