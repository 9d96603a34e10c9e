/*
 * The pages that starts write to, for the launcher: from the snapshot, or as its first copies have shown
 * (libcriu_py/starts.py).
 */
#define _GNU_SOURCE
#include "start.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scratch.h"
#include "support.h"

#define START_PAGES "start-pages" /* as in libcriu_py/snapshot.py */

/* `1`: learn from the first runs, and use that; `0`: do not use what is in the snapshot either. */
static int is_wish(const char *value)
{
	const char *wish = getenv("LIBCRIU_PY_LEARN");

	return wish && !strcmp(wish, value);
}

/* Whether copies can fetch pages ahead, and the snapshot does not say that they are to do more than that. */
static int can_fetch(const struct snapshot *snapshot)
{
	return snapshot_memory_key(snapshot) && json_get(snapshot->manifest, "fetches_ahead") &&
	       !json_get(json_get(snapshot->manifest, "memory"), "working_set");
}

/* Whether the snapshot says itself what its starts write to. */
static int is_said(const struct snapshot *snapshot)
{
	return json_get(json_get(snapshot->manifest, "memory"), "start") != NULL;
}

/* Where what was learned is kept; 0 or -1 where nothing is to be learned. */
static int find_learned(char base[PATH_MAX], char manifest[PATH_MAX + 16], const struct snapshot *snapshot)
{
	struct problem ignored;

	if (!is_wish("1") || !can_fetch(snapshot) || is_said(snapshot) || scratch_directory(base, &ignored))
		return -1;
	snprintf(manifest, PATH_MAX + 16, "%s/manifest.json", snapshot->path);
	return 0;
}

/* A file of the pages that starts write to; the descriptor or -1. */
static int open_learned(const struct snapshot *snapshot)
{
	char base[PATH_MAX], manifest[PATH_MAX + 16];

	if (is_said(snapshot) && can_fetch(snapshot) && !is_wish("0"))
		return openat(snapshot->directory, START_PAGES, O_RDONLY | O_CLOEXEC | O_NOFOLLOW); /* slower without */
	return find_learned(base, manifest, snapshot) ? -1 : lcp_learned_pages(base, manifest);
}

void start_send(int control, const struct snapshot *snapshot)
{
	int pages = open_learned(snapshot);

	if (pages < 0)
		return;
	lcp_send_ahead(control, pages);
	close(pages);
}

struct lcp_learning *start_learn(const struct snapshot *snapshot, const int *fds, int count)
{
	char base[PATH_MAX], manifest[PATH_MAX + 16];
	uint64_t inodes[MEMORY_FILES];
	struct stat status;
	int found = 0;

	if (find_learned(base, manifest, snapshot))
		return NULL;
	for (int i = 0; i < count && i < MEMORY_FILES; i++)
		if (!fstat(fds[i], &status))
			inodes[found++] = status.st_ino;
	return lcp_learn(base, manifest, inodes, found);
}
