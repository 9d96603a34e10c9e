#define _GNU_SOURCE
#include "copy/timers.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/files.h"

#define MOST 64 /* of timer_create; further ones stay armed */
#define SECOND 1000000000LL
#define WHICH 3 /* ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF */

/* In this process's memory, and so in each copy's. */
static struct {
	struct itimerval intervals[WHICH];
	struct itimerspec others[MOST];
	int ids[MOST]; /* the kernel's (timer_t of glibc may be something else) */
	int count;
	struct timespec since;
} kept;

static int64_t in_ns(long seconds, long rest)
{
	return seconds * SECOND + rest;
}

static int64_t time_since(const struct timespec *since)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return in_ns(now.tv_sec - since->tv_sec, now.tv_nsec - since->tv_nsec);
}

int lcp_suspend_timers(void)
{
	const struct itimerval no_interval = { 0 };
	const struct itimerspec none = { 0 };
	AUTO_FREE char *text = lcp_read_whole(AT_FDCWD, "/proc/self/timers", SIZE_MAX);
	char *rest = text, *line;
	int found = 0;

	kept.count = 0;
	clock_gettime(CLOCK_MONOTONIC, &kept.since);
	for (int which = 0; which < WHICH; which++)
		if (!setitimer(which, &no_interval, &kept.intervals[which]))
			found += timerisset(&kept.intervals[which].it_value);
	while ((line = strsep(&rest, "\n")) && kept.count < MOST) {
		struct itimerspec *left = &kept.others[kept.count];

		if (sscanf(line, "ID: %d", &kept.ids[kept.count]) != 1 ||
		    syscall(SYS_timer_settime, kept.ids[kept.count], 0, &none, left) ||
		    !in_ns(left->it_value.tv_sec, left->it_value.tv_nsec))
			continue;
		kept.count++;
		found++;
	}
	return found;
}

/* What is left of a timer now, which is more than nothing: that would be a disarmed one. */
static int64_t left_of(int64_t left, int64_t passed, int64_t least)
{
	return left - passed > least ? left - passed : least;
}

void lcp_resume_timers(int in_copy)
{
	int64_t passed = in_copy ? 0 : time_since(&kept.since);

	for (int which = 0; which < WHICH; which++) {
		struct itimerval *kept_one = &kept.intervals[which], now;
		int64_t left = in_ns(kept_one->it_value.tv_sec, kept_one->it_value.tv_usec * 1000);

		/* The other two go on only while this process does. */
		left = left ? left_of(left, which == ITIMER_REAL ? passed : 0, 1000) : 0;
		if (!left || getitimer(which, &now) || timerisset(&now.it_value))
			continue;
		kept_one->it_value.tv_sec = left / SECOND;
		kept_one->it_value.tv_usec = left % SECOND / 1000;
		setitimer(which, kept_one, NULL);
	}
	for (int i = 0; i < kept.count; i++) {
		struct itimerspec *kept_one = &kept.others[i], now;
		int64_t left = in_ns(kept_one->it_value.tv_sec, kept_one->it_value.tv_nsec);

		left = left_of(left, passed, 1);
		if (syscall(SYS_timer_gettime, kept.ids[i], &now) || now.it_value.tv_sec || now.it_value.tv_nsec)
			continue;
		kept_one->it_value.tv_sec = left / SECOND;
		kept_one->it_value.tv_nsec = left % SECOND;
		syscall(SYS_timer_settime, kept.ids[i], 0, kept_one, NULL);
	}
}
