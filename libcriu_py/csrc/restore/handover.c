#define _GNU_SOURCE
#include "restore/handover.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/descriptors.h"
#include "common/process.h"
#include "restore/launch.h"
#include "restore/privilege.h"
#include "restore/problem.h"
#include "restore/request.h"
#include "restore/snapshot.h"

/*
 * Find the descriptors that this process was started with: its own are closed on exec. This is done while criu starts.
 * Asking for each possible number takes longer, and with poll it wakes who serves the file.
 */
static void find_inherited(struct inherited_fds *found)
{
	AUTO_CLOSEDIR DIR *directory = opendir("/proc/self/fd");
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
}

int lcp_describe_self(struct request *request, const struct launch *launch, const struct snapshot *snapshot,
		      const struct own_status *own, char cwd[PATH_MAX], struct problem *problem)
{
	memset(request, 0, sizeof(*request));
	if (!getcwd(cwd, PATH_MAX))
		return lcp_failed(problem, "the working directory cannot be told: %s", strerror(errno));
	request->argv = launch->arguments;
	request->executable = launch->executable;
	request->env = launch->env;
	request->pid = lcp_snapshot_pid(snapshot);
	request->cwd = cwd;
	request->umask = umask(077);
	umask(request->umask);
	request->snapshot = snapshot->path;
	request->main = launch->main;
	request->pgid = getpgrp();
	request->ignored = own->ignored;
	request->blocked = launch->blocked;
	lcp_get_schedule(0, request->schedule);
	for (int fd = 0; fd < 3; fd++)
		request->closed |= lcp_is_closed(fd) ? 1u << fd : 0;
	return 0;
}

int lcp_fill_request(struct request *request, const struct launch *launch, const struct snapshot *snapshot,
		     const struct own_status *own, struct inherited_fds *inherited, char cwd[PATH_MAX],
		     struct problem *problem)
{
	find_inherited(inherited);
	if (inherited->count > MOST_INHERITED)
		return lcp_failed(problem, "this process was started with %d descriptors above 2, of which "
				       "a copy can be given %d", inherited->count, MOST_INHERITED);
	if (lcp_describe_self(request, launch, snapshot, own, cwd, problem))
		return -1;
	request->inherited = inherited;
	return 0;
}

int lcp_print_request(const struct launch *launch, const struct snapshot *snapshot)
{
	AUTO_TEXT struct text text = { 0 };
	struct request request;
	struct inherited_fds inherited;
	struct own_status own;
	char cwd[PATH_MAX];

	if (lcp_read_own_status(&own, NULL) ||
	    lcp_fill_request(&request, launch, snapshot, &own, &inherited, cwd, NULL) ||
	    lcp_request_encode(&text, &request))
		return LAUNCHER_FAILED;
	return fwrite(text.data, 1, text.size, stdout) == text.size && !fflush(stdout) ? 0 : LAUNCHER_FAILED;
}

int lcp_send_request(int control, int file, unsigned int pass, const struct inherited_fds *inherited)
{
	int fds[4 + MOST_INHERITED] = { file }, count = 1;

	if (file < 0)
		return file;
	for (int fd = 0; fd < 3; fd++)
		if (pass & 1u << fd)
			fds[count++] = fd;
	memcpy(fds + count, inherited->fds, (size_t)inherited->count * sizeof(*fds));
	count += inherited->count;
	return count <= 1 + MOST_INHERITED ? lcp_send_fds(control, fds, count) : -E2BIG;
}

int lcp_withdraw_request(int slot)
{
	char tag;

	while (recv(slot, &tag, 1, MSG_DONTWAIT) > 0)
		if (tag == 'F')
			return 0;
	return -1;
}

int lcp_has_begun(int control)
{
	char word;

	return recv(control, &word, 1, 0) == 1 && word == 'S';
}

void lcp_pass_on_early(int signals, const struct restored *restored)
{
	struct signalfd_siginfo info;

	while (read(signals, &info, sizeof(info)) == sizeof(info))
		/* A hangup comes to the leader of the session alone. */
		if (info.ssi_code != SI_KERNEL || info.ssi_signo == SIGHUP || !restored->typed_late || restored->own_session)
			lcp_pidfd_signal(restored->pidfd, (int)info.ssi_signo);
}
