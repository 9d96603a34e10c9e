#define _GNU_SOURCE
#include "supervise/parent.h"

#include <errno.h>
#include <unistd.h>

#include "common/descriptors.h"
#include "supervise/events.h"

int lcp_watch_parent(int channel)
{
	static const char orphaned = LCP_ORPHANED;
	pid_t parent;
	int pidfd;

	for (;;) {
		parent = getppid();
		if (parent == 1)
			lcp_send(channel, &orphaned, 1);
		if (parent <= 1) /* 0: it is in another pid namespace */
			return -1;
		pidfd = lcp_pidfd_open(parent);
		if (pidfd >= 0 || errno != ESRCH) /* which it is if it has just ended */
			return pidfd;
	}
}
