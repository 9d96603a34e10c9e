/*
 * Variables that the program has read before the dump (libcriu_py/program/reads.py), compared with those that a copy
 * is going to have.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "restore/finding.h"
#include "restore/snapshot.h"
#include "restore/order.h"

#define BEFORE_ARGUMENTS 16 /* fields of a request, the last of which counts them (libcriu_py/snapshot/request.py) */
#define ADVICE "make the snapshot anew with that, or allow it (env_check, LIBCRIU_PY_ENV_CHECK)"

/* Where the variables of an order's request begin; its end where it has none. */
static const char *variables_of(const struct order *order, const char *end)
{
	const char *at = order->request, *count = at;

	for (long left = BEFORE_ARGUMENTS; left > 0 && at < end; at += strlen(at) + 1) {
		count = at;
		if (!--left)
			for (left = atol(count); left > 0 && at < end; left--)
				at += strlen(at) + 1;
	}
	return at < end ? at : end;
}

/* The value that a copy is going to find, or NULL. */
static const char *value_of(const struct order *order, const char *name)
{
	const char *end = order ? order->request + order->request_size : NULL;
	size_t length = strlen(name);

	if (!order)
		return getenv(name);
	for (const char *at = variables_of(order, end); at < end; at += strlen(at) + 1)
		if (!strncmp(at, name, length) && at[length] == '=')
			return at + length + 1;
	return NULL;
}

static int is_same(const struct record_read *read, const char *then, const char *now)
{
	char digest[17];

	if (read->state == READ_UNSET || !now)
		return (read->state == READ_UNSET || read->state == READ_DEFAULT) && !now;
	if (read->state == READ_VALUE || read->state == READ_DEFAULT)
		return !strcmp(now, then);
	snprintf(digest, sizeof(digest), "%016" PRIx64, lcp_hash(now));
	return !strcmp(digest, then);
}

static void describe(char *text, size_t size, const struct record_read *read, const char *name, const char *then, const char *now)
{
	const char *quote = read->state == READ_VALUE ? "'" : "";

	if (read->state == READ_HASH)
		snprintf(text, size, "%s, which the program has read before the dump, %s", name,
			 now ? "has another value now" : "is not set now");
	else
		snprintf(text, size, "%s is %s%s%s, and was %s%s%s when the program read it before the dump", name,
			 now ? "'" : "", now ? now : "not set", now ? "'" : "", quote, *quote ? then : "not set", quote);
}

void lcp_check_reads(struct finding *finding, const struct snapshot *snapshot, const struct order *order)
{
	const char *level = getenv("LIBCRIU_PY_ENV_CHECK");
	int warns = snapshot->facts->flags & RECORD_WARNS;
	static int warned; /* a snapshot is checked more than once where a pool has no copy */
	char text[1024];

	if (level && *level)
		warns = !strcmp(level, "warn");
	if (order && order->flags & ORDER_STANDBY)
		return; /* its request comes later */
	if (level && !strcmp(level, "off"))
		return;
	record_for_each(struct record_read, read, snapshot->record, snapshot->facts->reads) {
		const char *name = snapshot_text(snapshot, read->name), *then = snapshot_text(snapshot, read->value);
		const char *now = value_of(order, name);

		if (is_same(read, then, now))
			continue;
		describe(text, sizeof(text), read, name, then, now);
		if (!warns)
			found(finding, "%s; " ADVICE, text);
		else if (!warned && dprintf(2, "libcriu-py: %s\n", text) < 0)
			return;
	}
	warned |= warns;
}
