/*
 * Fetching pages while the process that is going to use them does something else: a restored copy has its arguments,
 * its streams and its random numbers to put right before the program goes on.
 */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#define STACK (4 * PTHREAD_STACK_MIN)

static struct {
	pthread_t thread;
	int fd;
	int is_running;
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

int lcp_fetch_ahead(int fd)
{
	int result;

	lcp_await_ahead();
	ahead.fd = dup(fd);
	if (ahead.fd < 0)
		return -errno;
	result = start_thread();
	if (result)
		close(ahead.fd);
	ahead.is_running = !result;
	return result;
}

void lcp_await_ahead(void)
{
	if (!ahead.is_running)
		return;
	pthread_join(ahead.thread, NULL);
	close(ahead.fd);
	ahead.is_running = 0;
}
