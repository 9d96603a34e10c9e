/*
 * Fetching pages while the process that is going to use them does something else: a restored copy has its arguments,
 * its streams and its random numbers to put right before the program goes on.
 */
#define _GNU_SOURCE
#include "support.h"
#include "parts.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#define STACK (4 * PTHREAD_STACK_MIN)

static struct {
	pthread_t thread;
	int fd;
	int is_running;
	int socket; /* of the hand-over; 0: none */
} ahead;

static void *fetch(void *unused)
{
	lcp_fetch_pages(ahead.fd);
	return unused;
}

/* With every signal blocked: handlers are run by the thread that has always run them. */
static int start_thread(void)
{
	pthread_attr_t attributes;
	sigset_t all, old;
	int result = pthread_attr_init(&attributes);

	if (result)
		return -result;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	result = pthread_attr_setstacksize(&attributes, STACK);
	if (!result)
		result = pthread_create(&ahead.thread, &attributes, fetch, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attributes);
	return -result;
}

static void fetch_ahead(int fd)
{
	lcp_await_ahead();
	ahead.fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (ahead.fd < 0)
		return;
	ahead.is_running = !start_thread();
	if (!ahead.is_running)
		close(ahead.fd); /* they are fetched when they are used */
}

void lcp_expect_ahead(int socket)
{
	ahead.socket = socket;
}

void lcp_begin_ahead(void)
{
	char tag = 0;
	int fds[4], count;

	if (ahead.socket <= 0 || recv(ahead.socket, &tag, 1, MSG_PEEK | MSG_DONTWAIT) != 1 || tag != PAGES_AHEAD)
		return;
	count = lcp_receive_tagged(ahead.socket, &tag, fds, 4);
	if (count > 0)
		fetch_ahead(fds[0]);
	while (count > 0)
		close(fds[--count]);
}

void lcp_await_ahead(void)
{
	if (!ahead.is_running)
		return;
	pthread_join(ahead.thread, NULL);
	close(ahead.fd);
	ahead.is_running = 0;
}
