#define _GNU_SOURCE
#include "restore/from_pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/descriptors.h"
#include "common/standby.h"
#include "restore/engine.h"
#include "restore/handover.h"
#include "restore/launch.h"
#include "restore/order.h"
#include "restore/privilege.h"
#include "restore/problem.h"
#include "restore/request.h"
#include "restore/sums.h"
#include "restore/scratch.h"
#include "restore/snapshot.h"
#include "supervise/events.h"
#include "supervise/parent.h"
#include "supervise/proxy.h"

/* Supplementary groups and control groups of version 1 can make it long. */
#define DESCRIPTION 65536

/* Return the socket of the standby pool of this snapshot; 0 or -1. */
static int find_pool(char *path, size_t size, const struct snapshot *snapshot)
{
	const char *base = lcp_scratch_directory(NULL);
	char name[80], manifest[PATH_MAX + 16];

	snprintf(manifest, sizeof(manifest), "%s/manifest.json", snapshot->path);
	if (!base || lcp_standby_name(manifest, name, sizeof(name)) ||
	    (size_t)snprintf(path, size, "%s/%s", base, name) >= size)
		return -1;
	return access(path, F_OK);
}

static const char *wanted_mode(const struct launch *launch)
{
	const char *mode = launch->mode && *launch->mode ? launch->mode : getenv("LIBCRIU_PY_MODE");

	return mode && *mode ? mode : "auto";
}

/* Make the request in a memfd, or return -1. `pass` gets the streams that come with it. */
static int make_request(unsigned int *pass, pid_t pid, const struct launch *launch, const struct snapshot *snapshot,
			const struct own_status *own, struct inherited_fds *inherited)
{
	struct request request;
	char cwd[PATH_MAX];

	*pass = 0;
	for (int fd = 0; fd < 3; fd++)
		*pass |= lcp_is_closed(fd) ? 0 : 1u << fd;
	if (launch->order) {
		*inherited = launch->order->passed;
		return lcp_order_request(launch->order, *pass);
	}
	if (lcp_fill_request(&request, launch, snapshot, own, inherited, cwd, NULL))
		return -1;
	if (lcp_is_native(snapshot))
		request.pid = pid; /* in no namespace of its own */
	request.pgid = 0; /* the copy has a session of its own */
	request.pass = *pass;
	return lcp_request_file(&request);
}

static int take(struct restored *restored, const struct launch *launch, const struct snapshot *snapshot,
		const struct own_status *own)
{
	static const char taken = LCP_TAKEN;
	unsigned int pass;
	AUTO_CLOSE int file = make_request(&pass, restored->pid, launch, snapshot, own, &restored->inherited);

	if (file >= 0)
		lcp_send(restored->channel, &taken, 1);
	return lcp_send_request(restored->control, file, pass, &restored->inherited);
}

int lcp_claim_copy(struct restored *restored, const struct launch *launch, const struct snapshot *snapshot,
		  const struct own_status *own)
{
	static char text[DESCRIPTION];
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	int fds[3];
	ssize_t size;

	/* The restore that follows says what is wrong with the snapshot. */
	if (find_pool(path, sizeof(path), snapshot) || lcp_snapshot_check(snapshot, launch->order, NULL))
		return 0;
	size = lcp_standby_describe(wanted_mode(launch), text, sizeof(text));
	if (size < 0 || lcp_standby_take(path, text, (size_t)size, fds))
		return 0;
	restored->channel = fds[0];
	restored->control = fds[1];
	restored->pidfd = fds[2];
	restored->pid = lcp_pid_behind(restored->pidfd); /* before it can end */
	restored->parent = lcp_watch_parent(restored->channel); /* before the program goes on */
	if (take(restored, launch, snapshot, own)) {
		if (restored->parent >= 0)
			close(restored->parent);
		for (int i = 0; i < 3; i++)
			close(fds[i]);
		return 0;
	}
	restored->supervisor = 0;
	restored->own_session = 1;
	return 1;
}
