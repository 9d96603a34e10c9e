#define _GNU_SOURCE
#include "restore/take.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/descriptors.h"
#include "common/standby.h"
#include "restore/handover.h"
#include "restore/launch.h"
#include "restore/manifest.h"
#include "restore/order.h"
#include "restore/place.h"
#include "restore/problem.h"
#include "restore/request.h"
#include "restore/scratch.h"

/* What there is to describe may be long: supplementary groups, control groups of version 1. */
#define DESCRIPTION 65536

/* Where the copies of this snapshot would wait; 0 or -1. */
static int find_pool(char *path, size_t size, const struct snapshot *snapshot)
{
	char base[PATH_MAX], name[80], manifest[PATH_MAX + 16];
	struct problem ignored;

	snprintf(manifest, sizeof(manifest), "%s/manifest.json", snapshot->path);
	if (lcp_standby_name(manifest, name, sizeof(name)) || lcp_scratch_directory(base, &ignored) ||
	    (size_t)snprintf(path, size, "%s/%s", base, name) >= size)
		return -1;
	return access(path, F_OK);
}

static const char *wanted_mode(const struct launch *launch)
{
	const char *mode = launch->mode && *launch->mode ? launch->mode : getenv("LIBCRIU_PY_MODE");

	return mode && *mode ? mode : "auto";
}

/* The request, and which of our streams come with it, whose places the copy's own have kept free; a memfd or -1. */
static int make_request(unsigned int *pass, const struct launch *launch, const struct snapshot *snapshot,
			const struct self *self, struct inherited_fds *inherited)
{
	struct request request;
	struct problem ignored;
	char cwd[PATH_MAX];

	*pass = 0;
	for (int fd = 0; fd < 3; fd++)
		*pass |= lcp_is_closed(fd) ? 0 : 1u << fd;
	if (launch->order) {
		*inherited = launch->order->passed;
		return lcp_order_request(launch->order, *pass);
	}
	if (lcp_fill_request(&request, launch, snapshot, self, inherited, cwd, &ignored))
		return -1;
	request.pgid = 0; /* it is of another session */
	request.pass = *pass;
	return lcp_request_file(&request);
}

/* 0 or -1 */
static int send_request(int control, const struct launch *launch, const struct snapshot *snapshot, const struct self *self,
			struct inherited_fds *inherited)
{
	int fds[4 + MOST_INHERITED], count = 1, result = -1;
	unsigned int pass;

	fds[0] = make_request(&pass, launch, snapshot, self, inherited);
	if (fds[0] < 0)
		return -1;
	for (int fd = 0; fd < 3; fd++)
		if (pass & 1u << fd)
			fds[count++] = fd;
	memcpy(fds + count, inherited->fds, (size_t)inherited->count * sizeof(*fds));
	count += inherited->count;
	if (count <= 1 + MOST_INHERITED)
		result = lcp_send_fds(control, fds, count);
	close(fds[0]);
	return result ? -1 : 0;
}

int lcp_take_copy(struct restored *restored, const struct launch *launch, const struct snapshot *snapshot,
		  const struct self *self)
{
	static char text[DESCRIPTION];
	char path[PATH_MAX + 96];
	struct problem ignored;
	int fds[3];
	ssize_t size;

	/* What is wrong with the snapshot is told by who restores it. */
	if (find_pool(path, sizeof(path), snapshot) || lcp_snapshot_check(snapshot, !launch->order, &ignored))
		return 0;
	size = lcp_standby_describe(wanted_mode(launch), text, sizeof(text));
	if (size < 0 || lcp_standby_take(path, text, (size_t)size, fds))
		return 0;
	if (send_request(fds[1], launch, snapshot, self, &restored->inherited)) {
		for (int i = 0; i < 3; i++)
			close(fds[i]);
		return 0;
	}
	restored->channel = fds[0];
	restored->control = fds[1];
	restored->pidfd = fds[2];
	restored->pid = restored->supervisor = 0;
	restored->own_session = 1;
	return 1;
}
