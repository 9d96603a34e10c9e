/*
 * Learning which pages of mapped memory the programs of a snapshot write to at their start.
 *
 * The first write to each costs a fault with a copy, and there are thousands until a program's first output. The launcher
 * has nothing to do then but to wait: in the first runs of a snapshot it looks at the pages of its copy from time to
 * time. What most of these runs have written to is fetched ahead in later ones (ahead.c).
 */
#define _GNU_SOURCE
#include "support.h"
#include "parts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define KIND "start"
/* The first run may be one that prints its help: what two of three have written to is what a start needs. */
#define RUNS 3
#define NEEDED 2
/*
 * Its pages are looked at each 4 ms after its start, then less often, until it has ended or these milliseconds are over;
 * a look takes about one.
 */
#define INTERVAL 4
#define LAST_LOOK 256
/* What `written` tells in the file of several runs: it was so at the last look, or at the first one already. */
#define SEEN 1
#define SEEN_EARLY 2
/* Bytes that it may have written to; more is its work, and not its start. */
#define LIMIT (32ull << 20)
/* For fewer a thread, which has the other processor asked to forget what it knows of pages, costs as much as it saves. */
#define LEAST (4ull << 20)
#define PAGE 4096ull /* as in libcriu_py/mapped/memory.py */

struct lcp_learning {
	char path[PATH_MAX];
	int runs;          /* a file of what was seen so far, locked: pages of each run, behind a range of none */
	int early;         /* a file of what was seen at the first look, or -1 */
	int pages;         /* a file of what was seen at the last one, or -1 */
	long long started; /* milliseconds */
	int next;          /* look, in milliseconds after the start */
	int count;
	uint64_t inodes[];
};

static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000LL + time.tv_nsec / 1000000;
}

static int path_of(char path[PATH_MAX], const char *directory, const char *manifest)
{
	char name[80];
	int result = lcp_name_for(KIND, manifest, name, sizeof(name));

	if (result)
		return result;
	return snprintf(path, PATH_MAX, "%s/%s", directory, name) < PATH_MAX - 8 ? 0 : -ENAMETOOLONG;
}

int lcp_learned_pages(const char *directory, const char *manifest)
{
	char path[PATH_MAX];
	int fd = path_of(path, directory, manifest);

	if (fd)
		return fd;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

int lcp_send_ahead(int socket, int fd)
{
	struct stat status;

	if (fstat(fd, &status) || !status.st_size)
		return 0; /* it is known that there is nothing worth it */
	return lcp_send_tagged(socket, PAGES_AHEAD, &fd, 1);
}

/* ---- what was seen ---------------------------------------------------- */

/* The whole of a file of ranges; NULL where there is none. */
static struct lcp_range *read_ranges(int fd, size_t *count)
{
	struct stat status;
	struct lcp_range *ranges;

	if (fstat(fd, &status) || status.st_size <= 0)
		return NULL;
	ranges = malloc((size_t)status.st_size);
	if (ranges && pread(fd, ranges, (size_t)status.st_size, 0) != status.st_size) {
		free(ranges);
		return NULL;
	}
	*count = (size_t)status.st_size / sizeof(*ranges);
	return ranges;
}

static int by_number(const void *one, const void *other)
{
	uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;

	return a < b ? -1 : a > b;
}

/* The number of every page of the ranges of a kind, in order; a page is there once for each run. */
static uint64_t *spread(const struct lcp_range *ranges, size_t count, uint64_t kind, size_t *sum)
{
	uint64_t *pages;
	size_t n = 0;

	for (size_t i = 0; i < count; i++) {
		n += (size_t)((ranges[i].end - ranges[i].start) / PAGE);
		if (ranges[i].end < ranges[i].start || n > 2 * RUNS * LIMIT / PAGE)
			return NULL; /* this is not what we wrote */
	}
	pages = malloc((n + 1) * sizeof(*pages));
	n = 0;
	for (size_t i = 0; pages && i < count; i++)
		for (uint64_t at = ranges[i].start; ranges[i].written == kind && at < ranges[i].end; at += PAGE)
			pages[n++] = at / PAGE;
	if (pages)
		qsort(pages, n, sizeof(*pages), by_number);
	*sum = n;
	return pages;
}

/* Write what enough of the runs have as ranges. */
static void write_common(FILE *file, const uint64_t *pages, size_t count)
{
	struct lcp_range range = { 0, 0, 1 };
	size_t same = 0;

	for (size_t i = 0; i < count; i++) {
		same = i && pages[i] == pages[i - 1] ? same + 1 : 1;
		if (same != NEEDED)
			continue;
		if (range.end != pages[i] * PAGE) {
			if (range.end)
				fwrite(&range, sizeof(range), 1, file);
			range.start = pages[i] * PAGE;
		}
		range.end = (pages[i] + 1) * PAGE;
	}
	if (range.end)
		fwrite(&range, sizeof(range), 1, file);
}

/* Enough was seen: keep what is common, and first of all what was written to first. */
static void conclude(const struct lcp_learning *learning, const struct lcp_range *ranges, size_t count)
{
	char path[PATH_MAX + 8];
	size_t early_count, count_of_all;
	uint64_t *early = spread(ranges, count, SEEN_EARLY, &early_count), *all = spread(ranges, count, SEEN, &count_of_all);
	FILE *file = NULL;
	int fd;

	snprintf(path, sizeof(path), "%s.new", learning->path); /* nobody else writes it: we have the lock */
	fd = early && all ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
	if (fd >= 0 && !(file = fdopen(fd, "w")))
		close(fd);
	if (file) {
		if (count_of_all * PAGE / RUNS >= LEAST) {
			write_common(file, early, early_count);
			write_common(file, all, count_of_all);
		}
		if (ferror(file) | fclose(file) || rename(path, learning->path))
			unlink(path);
	}
	free(early);
	free(all);
}

/* Add what was seen at a look; returns whether there was anything. */
static int add_seen(const struct lcp_learning *learning, int pages, uint64_t kind)
{
	size_t count = 0;
	struct lcp_range *seen = read_ranges(pages, &count);
	int result;

	for (size_t i = 0; i < count; i++)
		seen[i].written = kind;
	result = seen && write(learning->runs, seen, count * sizeof(*seen)) == (ssize_t)(count * sizeof(*seen));
	free(seen);
	return result;
}

/* Add what was seen of this run to what was of others. */
static void keep(const struct lcp_learning *learning)
{
	struct lcp_range mark = { 0, 0, 0 }, *all;
	size_t count = 0, runs = 0;
	char path[PATH_MAX + 8];

	if (write(learning->runs, &mark, sizeof(mark)) < 0 || !add_seen(learning, learning->early, SEEN_EARLY) ||
	    !add_seen(learning, learning->pages, SEEN))
		return;
	all = read_ranges(learning->runs, &count);
	for (size_t i = 0; all && i < count; i++)
		runs += !all[i].end;
	if (runs < RUNS) {
		free(all);
		return;
	}
	conclude(learning, all, count);
	free(all);
	snprintf(path, sizeof(path), "%s.runs", learning->path);
	unlink(path);
}

/* ---- a run ------------------------------------------------------------ */

/* Open and lock the file of what was seen so far; -1 where all is known, or somebody else learns. */
static int open_runs(const char *learned)
{
	char path[PATH_MAX + 8];
	int fd;

	if (!access(learned, F_OK))
		return -1;
	snprintf(path, sizeof(path), "%s.runs", learned);
	fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -1;
	/* One at a time: of a hundred copies that start at once one shows enough, and the others are not to wait. */
	if (!flock(fd, LOCK_EX | LOCK_NB)) {
		if (access(learned, F_OK))
			return fd;
		unlink(path); /* somebody has concluded meanwhile */
	}
	close(fd);
	return -1;
}

struct lcp_learning *lcp_learn(const char *directory, const char *manifest, const uint64_t *inodes, int count)
{
	struct lcp_learning *learning = malloc(sizeof(*learning) + (size_t)count * sizeof(*inodes));

	if (!learning || path_of(learning->path, directory, manifest) || (learning->runs = open_runs(learning->path)) < 0) {
		free(learning);
		return NULL;
	}
	learning->early = learning->pages = -1;
	learning->started = now();
	learning->next = INTERVAL;
	learning->count = count;
	memcpy(learning->inodes, inodes, (size_t)count * sizeof(*inodes));
	return learning;
}

int lcp_learning_due(const struct lcp_learning *learning)
{
	long long left;

	if (!learning || learning->next > LAST_LOOK)
		return -1;
	left = learning->started + learning->next - now();
	return left > 0 ? (int)left : 0;
}

static void finish(struct lcp_learning *learning)
{
	if (learning->pages < 0)
		return; /* nothing was seen, or it is done */
	keep(learning);
	close(learning->pages);
	close(learning->early);
	learning->early = learning->pages = -1;
}

void lcp_learn_more(struct lcp_learning *learning, pid_t pid)
{
	int pages = memfd_create("libcriu_py-pages", MFD_CLOEXEC);

	learning->next += learning->next < 8 * INTERVAL ? INTERVAL : learning->next / 4;
	if (pages < 0)
		return;
	if (lcp_list_written(pid, learning->inodes, (size_t)learning->count, LIMIT, pages) ||
	    !lseek(pages, 0, SEEK_CUR)) {
		/* It has ended, has become another, or works: what was seen before is its start. */
		learning->next = LAST_LOOK + 1;
		close(pages);
	} else {
		if (learning->early < 0)
			learning->early = dup(pages);
		if (learning->pages >= 0)
			close(learning->pages);
		learning->pages = pages;
	}
	if (learning->next > LAST_LOOK)
		finish(learning);
}

void lcp_learned(struct lcp_learning *learning)
{
	if (!learning)
		return;
	finish(learning);
	close(learning->runs);
	free(learning);
}
