/* What a supervisor and its caller tell each other. */
#define _GNU_SOURCE
#include "supervise/events.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "common/descriptors.h"

void lcp_tell(int channel, int kind, int value, int error, int stage, int fd)
{
	struct lcp_event event = { kind, value, error, stage };

	/* A caller that is gone needs no news. */
	(void)lcp_send_message(channel, &event, sizeof(event), &fd, fd >= 0);
}

void lcp_fail(int channel, int value, int error, int stage)
{
	lcp_tell(channel, LCP_EVENT_FAILED, value, error, stage, -1);
	_exit(1);
}

int lcp_give_word(int channel)
{
	return lcp_send(channel, "W", 1);
}

int lcp_next_event(int channel, int timeout_ms, struct lcp_event *event, int *pidfd)
{
	struct pollfd polled = { channel, POLLIN, 0 };
	int count = 1, result = poll(&polled, 1, timeout_ms);
	ssize_t n;

	*pidfd = -1;
	if (result <= 0)
		return result < 0 ? -errno : 0;
	n = lcp_receive_message(channel, event, sizeof(*event), pidfd, &count);
	if (n < 0)
		return -errno;
	return n == (ssize_t)sizeof(*event) ? 1 : -EPIPE;
}
