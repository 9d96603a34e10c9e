#define _GNU_SOURCE
#include "restore/order.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/descriptors.h"
#include "restore/launch.h"
#include "restore/privilege.h"
#include "restore/problem.h"
#include "restore/request.h"
#include "supervise/events.h"
#include "supervise/parent.h"
#include "supervise/proxy.h"

#define MAGIC "lcporder"
#define LARGEST_ORDER (1 << 30)
#define LARGEST_TEXT 65536
#define PASSED_FIELD 5 /* of a request: the numbers of the descriptors that come with it */

struct header {
	char magic[8];
	uint32_t version, flags, mode, status;
	uint32_t passed, directory, request; /* how many, and bytes */
};

struct status {
	int32_t kind, value, error, stage, failure;
};

/* ---- the order ------------------------------------------------ */

static int is_sound(const struct header *header, size_t size)
{
	return !memcmp(header->magic, MAGIC, sizeof(header->magic)) && header->version == ORDER_VERSION &&
	       !(header->flags & ~ORDER_FLAGS) && header->mode < MODES && header->status > 2 &&
	       header->status <= INT_MAX && header->passed <= MOST_INHERITED && header->directory &&
	       header->directory < LARGEST_ORDER && header->request && header->request < LARGEST_ORDER &&
	       size == sizeof(*header) + header->passed * sizeof(int32_t) + header->directory + header->request;
}

int lcp_order_read(struct order *order, int fd)
{
	struct header header;
	struct stat status;
	const char *at;
	char *data;

	if (fstat(fd, &status) || status.st_size < (off_t)sizeof(header) || status.st_size >= LARGEST_ORDER)
		return -1;
	data = malloc((size_t)status.st_size);
	if (!data || pread(fd, data, (size_t)status.st_size, 0) != status.st_size)
		return -1;
	close(fd);
	memcpy(&header, data, sizeof(header));
	if (!is_sound(&header, (size_t)status.st_size))
		return -1;
	order->flags = header.flags;
	order->mode = (int)header.mode;
	order->status = (int)header.status;
	order->passed.count = (int)header.passed;
	at = data + sizeof(header);
	memcpy(order->passed.fds, at, header.passed * sizeof(int32_t));
	order->directory = at + header.passed * sizeof(int32_t);
	order->request = order->directory + header.directory;
	order->request_size = header.request;
	if (order->request[-1])
		return -1; /* the end of the directory's name */
	/* The copy gets them by messages: criu, which is started with what is left open, is not to have them too. */
	for (int i = 0; i < order->passed.count; i++)
		fcntl(order->passed.fds[i], F_SETFD, FD_CLOEXEC);
	return fcntl(order->status, F_SETFD, FD_CLOEXEC);
}

int lcp_order_request(const struct order *order, unsigned int pass)
{
	const char *at = order->request, *end = at + order->request_size;
	AUTO_TEXT struct text text = { 0 };

	if (!pass)
		return lcp_request_memory(order->request, order->request_size);
	for (int field = 0; field < PASSED_FIELD; field++) {
		at = memchr(at, '\0', (size_t)(end - at));
		if (!at)
			return -EINVAL;
		at++;
	}
	lcp_request_put(&text, order->request, (size_t)(at - order->request));
	for (char number = 0; number < 3; number++)
		if (pass & 1u << number)
			lcp_request_put(&text, (char[]){ (char)('0' + number), ' ' }, 2);
	lcp_request_put(&text, at, (size_t)(end - at));
	return text.failed ? -ENOMEM : lcp_request_memory(text.data, text.size);
}

/* ---- status messages ----------------------------------------------------- */

/* Returns 0, or -1 if the caller is gone. */
static int tell(const struct order *order, struct status status, const char *text, size_t size, const int *fds,
		int count)
{
	static char message[sizeof(status) + LARGEST_TEXT];

	size = size < LARGEST_TEXT ? size : LARGEST_TEXT;
	memcpy(message, &status, sizeof(status));
	if (size)
		memcpy(message + sizeof(status), text, size);
	return lcp_send_message(order->status, message, sizeof(status) + size, fds, count) < 0 ? -1 : 0;
}

void lcp_order_failed(const struct order *order, const struct problem *problem)
{
	struct status status = { STATUS_FAILED, problem->value, problem->error, problem->stage, problem->failure };

	if (problem->code == SNAPSHOT_UNUSABLE)
		status.failure = FAILURE_SNAPSHOT;
	tell(order, status, problem->text, strlen(problem->text), &problem->log, problem->log >= 0);
}

static int tell_restored(const struct order *order, const struct restored *restored, char *const *command,
			 const int *fds, int count)
{
	struct status status = { STATUS_RESTORED, lcp_pid_behind(restored->pidfd), !restored->supervisor, 0, 0 };
	AUTO_TEXT struct text words = { 0 };

	for (; command && *command; command++)
		lcp_request_put(&words, *command, strlen(*command) + 1);
	status.value = status.value ? status.value : restored->pid; /* it has ended already */
	return tell(order, status, words.data, words.failed ? 0 : words.size, fds, count);
}

/* Receive a message of the copy. ECONNRESET comes once, before it, of one that has not read its request. */
static ssize_t take(int control, char *text, size_t size, int flags)
{
	ssize_t n = recv(control, text, size, flags | MSG_DONTWAIT);

	return n < 0 && errno == ECONNRESET ? recv(control, text, size, flags | MSG_DONTWAIT) : n;
}

/* Forward a message of the copy; 0 if no more can come. */
static int forward_message(const struct order *order, int control)
{
	static char text[LARGEST_TEXT];
	ssize_t size = take(control, text, sizeof(text), 0);

	if (size > 0)
		tell(order, (struct status){ STATUS_TOLD, 0, 0, 0, 0 }, text, (size_t)size, NULL, 0);
	return size > 0 || (size < 0 && (errno == EAGAIN || errno == EINTR));
}

/* ---- until the end ---------------------------------------------------- */

/* This process must not hold pipes of the caller open. */
static void release_descriptors(const struct order *order, const struct restored *restored)
{
	int keep[] = { 0, 1, 2, order->status, restored->channel, restored->control, restored->pidfd, restored->parent };
	int null = open("/dev/null", O_RDWR);

	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	lcp_close_all_but(keep, sizeof(keep) / sizeof(*keep));
}

static void reap(const struct restored *restored)
{
	while (restored->supervisor && waitpid(restored->supervisor, NULL, 0) < 0 && errno == EINTR)
		;
}

/* Hand a standby copy to its pool, and only reap its supervisor. */
static int serve_standby(const struct order *order, const struct restored *restored, char *const *command)
{
	int fds[3] = { restored->pidfd, restored->channel, restored->control };

	tell_restored(order, restored, command, fds, 3);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	close(order->status);
	reap(restored);
	return 0;
}

/* Wait for the caller's byte, then send the request; 0 or -1. */
static int release(const struct order *order, const struct restored *restored)
{
	AUTO_CLOSE int file = -1;
	char word;

	if (recv(order->status, &word, 1, 0) != 1)
		return -1;
	file = lcp_order_request(order, 0);
	return file < 0 ? file : lcp_send_fds(restored->control, &file, 1);
}

int lcp_order_serve(const struct order *order, const struct restored *restored, char *const *command)
{
	struct pollfd polled[4] = { { restored->control, POLLIN, 0 },
				    { restored->channel, POLLIN, 0 },
				    { order->status, 0, 0 },
				    { restored->parent, POLLIN, 0 } };
	struct lcp_event event;
	char word;
	int ignored;

	release_descriptors(order, restored);
	if (order->flags & ORDER_STANDBY)
		return serve_standby(order, restored, command);
	tell_restored(order, restored, command, &restored->pidfd, 1);
	if (order->flags & ORDER_HOLD && release(order, restored))
		lcp_pidfd_signal(restored->pidfd, SIGKILL);
	do {
		event = (struct lcp_event){ 0 };
		if (poll(polled, 4, -1) < 0)
			continue;
		if (polled[3].revents) {
			close(polled[3].fd);
			polled[3].fd = lcp_watch_parent(restored->channel);
		}
		if (polled[0].revents && !forward_message(order, restored->control))
			polled[0].fd = -1;
		if (polled[2].revents) {
			polled[2].fd = -1;
			if (order->flags & ORDER_DIE_WITH_CALLER)
				lcp_pidfd_signal(restored->pidfd, SIGKILL);
		}
		if (polled[1].revents && lcp_next_event(restored->channel, -1, &event, &ignored) < 0) {
			lcp_end_orphan(restored->pidfd);
			event = (struct lcp_event){ LCP_EVENT_ENDED, SIGKILL, 0, 0 };
		}
	} while (event.kind != LCP_EVENT_ENDED);
	if (polled[0].fd >= 0) /* what it said last */
		while (take(restored->control, &word, 1, MSG_PEEK) > 0 &&
		       forward_message(order, restored->control))
			;
	tell(order, (struct status){ STATUS_ENDED, event.value, 0, event.stage, 0 }, NULL, 0, NULL, 0);
	close(order->status);
	reap(restored);
	return 0;
}
