/*
 * Pages that a copy is going to use: seen in one copy, and fetched ahead of their use in another, where the
 * same addresses are the same memory.
 */
#define _GNU_SOURCE
#include "support.h"
#include "parts.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

#define ENTRIES 4096

struct set {
	int fd;
	uint64_t written, limit; /* bytes */
	int only_written;
	struct lcp_range last;
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

	if (!(entry & PAGE_PRESENT) || (set->only_written && !written))
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
	uint64_t size = (uint64_t)sysconf(_SC_PAGESIZE), entries[ENTRIES];

	while (start < end) {
		uint64_t wanted = (end - start) / size < ENTRIES ? (end - start) / size : ENTRIES;
		ssize_t n = pread(pagemap, entries, wanted * 8, (off_t)(start / size * 8));
		int result = 0;

		if (n <= 0)
			return n < 0 ? -errno : -ESRCH; /* its memory is gone */
		for (uint64_t i = 0; i < (uint64_t)n / 8 && !result; i++)
			result = add(set, start + i * size, size, entries[i]);
		if (result)
			return result;
		start += (uint64_t)n / 8 * size;
	}
	return 0;
}

/* Which areas count: private ones, of these files where there are any named. */
struct wanted {
	const uint64_t *inodes;
	size_t count;
};

static int is_wanted(const struct wanted *wanted, const char *permissions, uint64_t inode, const char *line)
{
	size_t i = 0;

	/* Shared memory is everybody's: it is not to be touched for one. */
	if (permissions[3] != 'p' || permissions[0] != 'r' || strstr(line, "[v"))
		return 0;
	while (i < wanted->count && wanted->inodes[i] != inode)
		i++;
	return i < wanted->count || !wanted->count;
}

static int list_areas(FILE *maps, int pagemap, const struct wanted *wanted, struct set *set)
{
	char line[512], permissions[5];
	uint64_t start, end, inode;
	int result = 0;

	while (!result && fgets(line, sizeof(line), maps)) {
		int whole = strchr(line, '\n') != NULL;

		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %*s %*s %" SCNu64, &start, &end, permissions, &inode) == 4 &&
		    is_wanted(wanted, permissions, inode, line))
			result = add_area(set, pagemap, start, end);
		while (!whole && fgets(line, sizeof(line), maps))
			whole = strchr(line, '\n') != NULL;
	}
	return result ? result : put(set);
}

static int list(int pid, const struct wanted *wanted, struct set *set)
{
	int pagemap = lcp_open_pagemap(pid), result;
	char path[40];
	FILE *maps;

	if (pagemap < 0)
		return pagemap;
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "re");
	result = maps ? list_areas(maps, pagemap, wanted, set) : -errno;
	if (maps)
		fclose(maps);
	close(pagemap);
	return result;
}

int lcp_list_pages(int pid, uint64_t limit, int fd)
{
	struct wanted all = { NULL, 0 };
	struct set set = { .fd = fd, .limit = limit };

	return list(pid, &all, &set);
}

int lcp_list_written(int pid, const uint64_t *inodes, size_t count, uint64_t limit, int fd)
{
	struct wanted wanted = { inodes, count };
	struct set set = { .fd = fd, .limit = limit, .only_written = 1 };

	return count ? list(pid, &wanted, &set) : 0;
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
