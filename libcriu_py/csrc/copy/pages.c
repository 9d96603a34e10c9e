/*
 * Pages that a copy is going to use: seen in one copy, and fetched ahead of their use in another, where the
 * same addresses are the same memory.
 */
#define _GNU_SOURCE
#include "copy/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/cleanup.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

#define ENTRIES 4096

struct set {
	int fd;
	uint64_t written, limit; /* bytes */
	struct lcp_range last;
	uint64_t *entries; /* room for what is read of the table */
};

int lcp_open_pagemap(int pid)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int put(struct set *set)
{
	if (set->last.start == set->last.end)
		return 0;
	if (write(set->fd, &set->last, sizeof(set->last)) != (ssize_t)sizeof(set->last))
		return -EIO;
	set->last.start = set->last.end;
	return 0;
}

static int add(struct set *set, uint64_t address, uint64_t size, uint64_t entry)
{
	uint64_t written = !(entry & PAGE_OF_FILE);
	int result = 0;

	if (!(entry & PAGE_PRESENT))
		return 0;
	set->written += written ? size : 0;
	if (set->written > set->limit)
		return -E2BIG;
	if (set->last.end != address || set->last.written != written) {
		result = put(set);
		set->last.start = address;
		set->last.written = written;
	}
	set->last.end = address + size;
	return result;
}

static int add_area(struct set *set, int pagemap, uint64_t start, uint64_t end)
{
	uint64_t size = (uint64_t)sysconf(_SC_PAGESIZE);

	while (start < end) {
		uint64_t wanted = (end - start) / size < ENTRIES ? (end - start) / size : ENTRIES;
		ssize_t n = pread(pagemap, set->entries, wanted * 8, (off_t)(start / size * 8));
		int result = 0;

		if (n <= 0)
			return n < 0 ? -errno : -ESRCH; /* its memory is gone */
		for (uint64_t i = 0; i < (uint64_t)n / 8 && !result; i++)
			result = add(set, start + i * size, size, set->entries[i]);
		if (result)
			return result;
		start += (uint64_t)n / 8 * size;
	}
	return 0;
}

/* Whether an area counts: a private one that can be read. Shared memory is everybody's, not to be touched for one. */
static int is_wanted(const char *permissions, const char *line)
{
	return permissions[3] == 'p' && permissions[0] == 'r' && !strstr(line, "[v");
}

static int list_areas(FILE *maps, int pagemap, struct set *set)
{
	char line[512], permissions[5];
	uint64_t start, end;
	int result = 0;

	while (!result && fgets(line, sizeof(line), maps)) {
		int whole = strchr(line, '\n') != NULL;

		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &start, &end, permissions) == 3 &&
		    is_wanted(permissions, line))
			result = add_area(set, pagemap, start, end);
		while (!whole && fgets(line, sizeof(line), maps))
			whole = strchr(line, '\n') != NULL;
	}
	return result ? result : put(set);
}

int lcp_list_pages(int pid, uint64_t limit, int fd)
{
	AUTO_FREE uint64_t *entries = malloc(ENTRIES * sizeof(*entries));
	struct set set = { .fd = fd, .limit = limit, .entries = entries };
	AUTO_CLOSE int pagemap = lcp_open_pagemap(pid);
	AUTO_FCLOSE FILE *maps = NULL;
	char path[40];

	if (pagemap < 0)
		return pagemap;
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "re");
	if (!maps || !entries)
		return -errno;
	return list_areas(maps, pagemap, &set);
}

void lcp_fetch_pages(int fd)
{
	struct lcp_range ranges[128];
	off_t at = 0;
	ssize_t size;

	while ((size = pread(fd, ranges, sizeof(ranges), at)) >= (ssize_t)sizeof(*ranges)) {
		size_t count = (size_t)size / sizeof(*ranges);

		/* What is not there, or not allowed, is left to be fetched when it is used. */
		for (size_t i = 0; i < count; i++)
			(void)madvise((void *)(uintptr_t)ranges[i].start, ranges[i].end - ranges[i].start,
				      ranges[i].written ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
		at += (off_t)(count * sizeof(*ranges));
	}
}
