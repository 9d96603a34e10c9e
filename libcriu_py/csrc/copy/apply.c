/*
 * Reading and applying a request as libcriu_py/dump/arrival.py does, as far as nothing unusual is in it. All of it can
 * be done again: where this gives up, Python begins anew.
 */
#define _GNU_SOURCE
#include "copy/arrival.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/process.h"

extern char **environ;

enum field {
	PROTOCOL, UMASK, LAUNCHED, PGID, CLOSED, PASSED, IGNORED, LIMITS, INHERITED, SCHEDULE, BLOCKED, KIND, VALUE, CWD,
	SNAPSHOT, COUNT,
};

/* ---- reading ---------------------------------------------------------- */

static size_t count_strings(char *const *strings)
{
	size_t count = 0;

	while (strings && strings[count])
		count++;
	return count;
}

static size_t name_size(const char *variable)
{
	return strcspn(variable, "=");
}

static int is_named(const char *entry, const char *variable)
{
	size_t size = name_size(variable);

	return !strncmp(entry, variable, size) && entry[size] == '=';
}

/* The strings of the block into a vector, which has room for them. */
static int split(struct lcp_received *received, char **vector, char *at, const char *end)
{
	for (int i = 0; i < REQUEST_FIELDS; i++) {
		if (at >= end)
			return -1;
		received->fields[i] = at;
		at += strlen(at) + 1;
	}
	received->argc = atoi(received->fields[COUNT]);
	received->argv = vector;
	for (int i = 0; i < received->argc; i++) {
		if (at >= end)
			return -1;
		*vector++ = at;
		at += strlen(at) + 1;
	}
	*vector++ = NULL;
	received->env = vector;
	for (; at < end; at += strlen(at) + 1)
		*vector++ = at;
	*vector = NULL;
	return 0;
}

static void apply_changes(struct lcp_received *received, const struct lcp_arrival *arrival, char **vector)
{
	char **given = received->env, **at = vector;
	size_t kept = 0;

	/* What the program has added comes first, and gives way to what the launcher says. */
	for (size_t i = 0; i < count_strings(arrival->added); i++) {
		char **entry = given;

		while (*entry && !is_named(*entry, arrival->added[i]))
			entry++;
		*at++ = *entry ? *entry : arrival->added[i];
	}
	kept = (size_t)(at - vector);
	for (; *given; given++) {
		char *entry = *given;
		int is_there = 0;

		for (size_t i = 0; i < kept && !is_there; i++)
			is_there = vector[i] == entry;
		if (!is_there)
			*at++ = entry;
	}
	*at = NULL;
	for (size_t i = 0; i < count_strings(arrival->changed); i += 2)
		for (char **entry = vector; *entry; entry++) {
			if (strcmp(*entry, arrival->changed[i]))
				continue;
			if (strchr(arrival->changed[i + 1], '=')) {
				*entry = arrival->changed[i + 1];
				break;
			}
			memmove(entry, entry + 1, (size_t)(at - entry) * sizeof(*entry));
			at--;
			break;
		}
	received->env = vector;
	received->variables = (size_t)(at - vector);
}

int lcp_read_request(struct lcp_received *received, int memory, const struct lcp_arrival *arrival)
{
	size_t strings = 0, more = count_strings(arrival->added) + 4;
	struct stat status;
	ssize_t size;
	char **vector;

	if (fstat(memory, &status) || status.st_size < REQUEST_FIELDS)
		return -1;
	received->block = malloc((size_t)status.st_size + 1);
	if (!received->block)
		return -1;
	size = pread(memory, received->block, (size_t)status.st_size, 0);
	if (size != status.st_size || received->block[size - 1])
		return -1;
	received->size = (size_t)size;
	for (ssize_t i = 0; i < size; i++)
		strings += !received->block[i];
	/* Arguments and variables as given; the variables as they apply. */
	vector = malloc((2 * strings + more) * sizeof(*vector));
	if (!vector || split(received, vector, received->block, received->block + size))
		return -1;
	apply_changes(received, arrival, vector + strings + 2);
	return 0;
}

/* ---- applying --------------------------------------------------------- */

static int is_usual(char *const *fields, const struct lcp_arrival *arrival)
{
	char protocol[16];
	int wanted[3] = { 0 }, have[3];

	snprintf(protocol, sizeof(protocol), "%d ", arrival->protocol);
	if (strcmp(fields[PROTOCOL], protocol) || *fields[CLOSED] || *fields[PASSED] || *fields[IGNORED] ||
	    *fields[INHERITED] || *fields[KIND])
		return 0;
	if (!arrival->takes_schedule)
		return atoi(fields[PGID]) == 0;
	sscanf(fields[SCHEDULE], "%d %d %d", &wanted[0], &wanted[1], &wanted[2]);
	return !lcp_get_schedule(0, have) && !memcmp(wanted, have, sizeof(have));
}

static int join_group(pid_t group)
{
	if (!group || getpgrp() == group || getsid(0) == getpid())
		return 0;
	return setpgid(0, group) && errno != EPERM ? -1 : 0; /* the group may be in another session: no terminal to share */
}

static void block_signals(const char *numbers)
{
	sigset_t set;
	char *end;

	if (!*numbers)
		return;
	sigemptyset(&set);
	for (long number; number = strtol(numbers, &end, 10), end != numbers; numbers = end)
		sigaddset(&set, (int)number);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* A hard limit can only be lowered, without rights. */
static int limit(const char *numbers)
{
	long long which, soft, hard;
	int used;

	for (; sscanf(numbers, "%lld %lld %lld%n", &which, &soft, &hard, &used) == 3; numbers += used) {
		struct rlimit have, wanted = { .rlim_cur = (rlim_t)soft, .rlim_max = (rlim_t)hard };

		if (getrlimit((__rlimit_resource_t)which, &have))
			return -1;
		if ((have.rlim_cur != wanted.rlim_cur || have.rlim_max != wanted.rlim_max) &&
		    setrlimit((__rlimit_resource_t)which, &wanted))
			return -1; /* Python lowers it as far as it goes */
	}
	return 0;
}

static int is_c_locale(const char *name)
{
	return !strcmp(name, "C") || !strcmp(name, "POSIX");
}

/* LC_CTYPE as Python sets it when it starts (PEP 538), and for children. */
static void set_locale(struct lcp_received *received)
{
	static const char *const names[] = { "C.UTF-8", "C.utf8", "UTF-8" };
	const char *name = setlocale(LC_CTYPE, ""), *all = getenv("LC_ALL"), *coerce = getenv("PYTHONCOERCECLOCALE");
	const char *coerced = NULL, *utf8 = getenv("PYTHONUTF8");
	char **entry = received->env;

	received->coerced[0] = '\0';
	name = name ? name : setlocale(LC_CTYPE, "C");
	if (!name || !is_c_locale(name))
		return;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names) && !coerced; i++)
		coerced = setlocale(LC_CTYPE, names[i]) ? names[i] : NULL;
	if (coerced && (!all || !*all) && (!coerce || strcmp(coerce, "0"))) {
		snprintf(received->coerced, sizeof(received->coerced), "LC_CTYPE=%s", coerced);
		while (*entry && !is_named(*entry, "LC_CTYPE="))
			entry++;
		if (!*entry) {
			entry[1] = NULL;
			received->variables++;
		}
		*entry = received->coerced;
	} else if (coerced && utf8 && !strcmp(utf8, "0")) {
		setlocale(LC_CTYPE, "C");
	}
}

static int show_arguments(const struct lcp_received *received, const struct lcp_arrival *arrival)
{
	const char *executable = received->fields[VALUE], *first = *executable ? executable : arrival->shown;
	size_t first_size = *executable ? strlen(executable) + 1 : (size_t)arrival->shown_size, size = first_size;
	AUTO_FREE char *words = NULL;

	if (!arrival->show)
		return 0;
	for (int i = 0; i < received->argc; i++)
		size += strlen(received->argv[i]) + 1;
	words = malloc(size + 1);
	if (!words)
		return -1;
	memcpy(words, first, first_size);
	size = first_size;
	for (int i = 0; i < received->argc; i++)
		size += (size_t)(stpcpy(words + size, received->argv[i]) - (words + size)) + 1;
	arrival->show(words, (int)size); /* for ps alone: that it fails is nothing to fail for */
	return 0;
}

int lcp_apply_request(struct lcp_received *received, const struct lcp_arrival *arrival)
{
	char *const *fields = received->fields;

	if (!is_usual(fields, arrival) || chdir(fields[CWD]))
		return -1;
	environ = received->env;
	umask((mode_t)atoi(fields[UMASK]));
	if (join_group(atoi(fields[PGID])) || limit(fields[LIMITS]) || show_arguments(received, arrival))
		return -1;
	block_signals(fields[BLOCKED]);
	tzset();
	set_locale(received);
	return 0;
}

/* ---- comparing -------------------------------------------------------- */

int lcp_same_variables(const struct lcp_arrival *arrival)
{
	for (char *const *watched = arrival->watched; watched && *watched; watched++) {
		char **entry = environ;

		while (*entry && !is_named(*entry, *watched))
			entry++;
		if (*entry ? strcmp(*entry, *watched) : strchr(*watched, '=') != NULL)
			return 0;
	}
	return 1;
}

void lcp_look_at_stream(int fd, struct lcp_stream *stream)
{
	struct termios terminal;
	struct stat status = { 0 };

	memset(stream, 0, sizeof(*stream));
	stream->is_terminal = !tcgetattr(fd, &terminal);
	stream->position = lseek(fd, 0, SEEK_CUR);
	stream->is_directory = fstat(fd, &status) || S_ISDIR(status.st_mode);
	stream->block = status.st_blksize;
}

int lcp_may_keep_streams(const struct lcp_arrival *arrival)
{
	const char *locale = setlocale(LC_CTYPE, NULL);

	return arrival->locale && locale && !strcmp(locale, arrival->locale) && lcp_same_variables(arrival);
}

/* As init_timezone() of Modules/timemodule.c does. */
void lcp_look_at_zone(struct lcp_zone *zone)
{
	const time_t year = (365 * 24 + 6) * 3600, begun = time(NULL) / year * year;

	memset(zone, 0, sizeof(*zone));
	for (int i = 0; i < 2; i++) {
		time_t then = begun + i * (year / 2);
		struct tm tm;

		if (!localtime_r(&then, &tm))
			continue;
		zone->offsets[i] = tm.tm_gmtoff;
		strncpy(zone->names[i], tm.tm_zone ? tm.tm_zone : "", sizeof(zone->names[i]) - 1);
	}
}

int lcp_same_zone(const struct lcp_arrival *arrival)
{
	struct lcp_zone zone;

	lcp_look_at_zone(&zone);
	return !memcmp(&zone, &arrival->zone, sizeof(zone));
}

int lcp_same_main(const struct lcp_arrival *arrival)
{
	char path[PATH_MAX], content[2048];
	const char *source = arrival->main_source;
	size_t left = arrival->main_size;
	struct stat status;
	ssize_t size;
	AUTO_CLOSE int fd = -1;

	if (!realpath(arrival->main_file, path) || strcmp(path, arrival->main_real))
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &status) || !S_ISREG(status.st_mode) || (size_t)status.st_size != left)
		return 0;
	while ((size = read(fd, content, sizeof(content))) > 0) {
		if ((size_t)size > left || memcmp(content, source, (size_t)size))
			return 0;
		source += size;
		left -= (size_t)size;
	}
	return size == 0 && left == 0;
}
