#define _GNU_SOURCE
#include "native/scratch.h"

#if defined(__x86_64__)
#include <errno.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include "copy/pages.h"

#define PAGE 4096ull
#define PAGE_GUARD (1ull << 58) /* nobody may touch it (MADV_GUARD_INSTALL); it seems to be swapped */
#define MOST_SHARED (64ull << 20)
#define CHUNK (256 << 10) /* of what is looked at and then written: it is in the processor's cache in between */
#define SETTLED (8ull << 20)
#define WHOLE (4ull << 20) /* an area of a file up to this size is saved whole if a page of it was written */

/* An area of memory, a line of /proc/self/maps. */
struct area {
	uint64_t start, end, inode;
	char is_readable, is_writable, is_shared;
	const char *path;
};

struct writer {
	struct scratch *scratch;
	const struct area *area;
	int pagemap, own_memory;
	uint64_t settled;            /* how much of the file goes to the disk already */
	uint64_t base;               /* where the area begins in the file, if some of it is there */
};

static void parse(struct area *area, const char *line)
{
	area->start = lcp_take_hex(&line);
	line++;
	area->end = lcp_take_hex(&line);
	line++;
	area->is_readable = line[0] == 'r';
	area->is_writable = line[1] == 'w';
	area->is_shared = line[3] == 's';
	line += 5;
	lcp_take_hex(&line); /* offset */
	while (*++line != ' ')
		; /* device */
	line++;
	area->inode = lcp_take_decimal(&line);
	while (*line == ' ')
		line++;
	area->path = line;
}

static void fail(struct scratch *this, long error)
{
	if (!this->error)
		this->error = error ? error : -EIO;
}

/* Have what was written go to the disk already, while more is written: the publisher has to wait for all of it. */
static void settle(struct writer *this, uint64_t until)
{
	if (until - this->settled < SETTLED)
		return;
	SYSCALL4(sync_file_range, this->scratch->native->memory, this->settled, until - this->settled, 2 /* _WRITE */);
	this->settled = until;
}

/* Write memory to the file; what may not be read directly is read through /proc/self/mem. */
static void write_range(struct writer *this, uint64_t start, uint64_t end)
{
	struct scratch *scratch = this->scratch;
	uint64_t at = this->base + start - this->area->start, begun = start;

	lcp_fact_numbers(scratch, "run", (const uint64_t[]){ start, end, at }, 3);
	while (start < end) {
		const char *from = (const char *)start;
		long n = end - start < CHUNK ? (long)(end - start) : CHUNK;

		if (this->area->is_readable && this->area->is_writable)
			lcp_find_held_mutexes(scratch, begun, end, start, start + (uint64_t)n);
		if (!this->area->is_readable) {
			n = SYSCALL4(pread64, this->own_memory, scratch->room, n, start);
			from = scratch->room;
		}
		if (n > 0)
			n = SYSCALL4(pwrite64, scratch->native->memory, from, n, at);
		if (n <= 0) {
			fail(scratch, n);
			return;
		}
		start += (uint64_t)n;
		at += (uint64_t)n;
		settle(this, at);
	}
}

/* Whether a page has content that no file has. */
static int is_private(uint64_t entry)
{
	return entry & (PAGE_PRESENT | PAGE_SWAPPED) && !(entry & (PAGE_OF_FILE | PAGE_GUARD));
}

/* Find the next run of private pages from an address; 0 if there is none. */
static int next_run(struct writer *this, uint64_t from, uint64_t *start, uint64_t *end)
{
	struct scratch *scratch = this->scratch;
	int found = 0;

	while (from < this->area->end) {
		uint64_t count = (this->area->end - from) / PAGE, most = sizeof(scratch->pages) / sizeof(*scratch->pages);
		long size;

		count = count < most ? count : most;
		size = SYSCALL4(pread64, this->pagemap, scratch->pages, count * 8, from / PAGE * 8);
		if (size != (long)(count * 8)) {
			fail(scratch, size < 0 ? size : -EIO);
			return 0;
		}
		for (uint64_t i = 0; i < count; i++) {
			uint64_t at = from + i * PAGE;

			if (is_private(scratch->pages[i]) == found)
				continue;
			if (found) {
				*end = at;
				return 1;
			}
			*start = at;
			found = 1;
		}
		from += count * PAGE;
	}
	*end = this->area->end;
	return found;
}

static int ends_with(const char *text, const char *end)
{
	size_t length = lcp_length(text), size = lcp_length(end);

	return length >= size && lcp_begins(text + length - size, end);
}

/* Whether memory is mapped from an earlier snapshot, of which a later one must not need anything. */
static int is_of_snapshot(const struct area *area)
{
	return area->inode && (ends_with(area->path, "/memory.img") || ends_with(area->path, "/memory.img (deleted)"));
}

static void write_area(struct writer *this)
{
	const struct area *area = this->area;
	struct scratch *scratch = this->scratch;
	uint64_t start, end, from = area->start;
	int is_found = 0;

	this->base = scratch->memory_size;
	/* Huge pages of the page cache, if they are ever made, need this. */
	if (area->end - area->start >= 16 << 20)
		this->base += (area->start - this->base) & ((2 << 20) - 1);
	if (is_of_snapshot(area)) {
		write_range(this, from, area->end);
		from = area->end;
		is_found = 1;
	}
	while (!scratch->error && next_run(this, from, &start, &end)) {
		/* Pages of a file that were not written are that file's; few large ones are worth the two mappings more. */
		if (area->inode && area->end - area->start <= WHOLE) {
			start = area->start;
			end = area->end;
		}
		write_range(this, start, end);
		is_found = 1;
		from = end;
	}
	if (!is_found)
		return;
	scratch->memory_size = this->base + area->end - area->start;
	lcp_fact_numbers(scratch, "area", (const uint64_t[]){ area->start, area->end, this->base }, 3);
}

/* Whether memory is shared with nobody who could be found by a name: its content has to be saved. */
static int is_nameless(const struct area *area)
{
	return area->is_shared && (lcp_begins(area->path, "/memfd:") || ends_with(area->path, " (deleted)"));
}

/* What of a memfd is in no hole: to read them would allocate memory. */
static void copy_data(struct scratch *this, int fd, uint64_t base, uint64_t size)
{
	long at = 0, end, n;

	while ((at = SYSCALL3(lseek, fd, at, 3 /* SEEK_DATA */)) >= 0 && (uint64_t)at < size) {
		end = SYSCALL3(lseek, fd, at, 4 /* SEEK_HOLE */);
		for (; at < end; at += n) {
			n = end - at < (long)sizeof(this->room) ? end - at : (long)sizeof(this->room);
			n = SYSCALL4(pread64, fd, this->room, n, at);
			if (n > 0)
				n = SYSCALL4(pwrite64, this->native->memory, this->room, n, base + (uint64_t)at);
			if (n <= 0) {
				fail(this, n);
				return;
			}
		}
	}
}

void lcp_write_memfd(struct scratch *this, int fd)
{
	struct saved_memory *saved = this->saved;
	struct statfs system;
	struct stat status;
	char path[48];
	long own;

	lcp_put_number(lcp_put(path, "/proc/self/fd/"), (uint64_t)fd, 10);
	own = SYSCALL3(open, path, 02000000 /* O_RDONLY | O_CLOEXEC */, 0);
	if (own < 0)
		return;
	SYSCALL2(fstat, own, &status);
	SYSCALL2(fstatfs, own, &system);
	while (saved < this->saved + this->saved_count && saved->inode != status.st_ino)
		saved++;
	if (saved == this->saved + this->saved_count && this->saved_count < MOST_MEMFDS && system.f_type == TMPFS_MAGIC) {
		*saved = (struct saved_memory){ status.st_ino, this->memory_size };
		this->saved_count++;
		copy_data(this, (int)own, saved->offset, (uint64_t)status.st_size);
		this->memory_size += ((uint64_t)status.st_size + PAGE - 1) & ~(PAGE - 1);
	}
	if (saved < this->saved + this->saved_count)
		lcp_fact_numbers(this, "memfd", (const uint64_t[]){ saved->offset,
				 (uint64_t)SYSCALL2(fcntl, own, 1034 /* F_GET_SEALS */) }, 2);
	SYSCALL1(close, own);
}

static int has_descriptor(const struct scratch *this, const struct area *area)
{
	for (int i = 0; i < this->saved_count; i++)
		if (this->saved[i].inode == area->inode && lcp_begins(area->path, "/memfd:"))
			return 1;
	return 0;
}

static void write_shared(struct writer *this)
{
	const struct area *area = this->area;
	struct scratch *scratch = this->scratch;

	/* Its pages need not be in our page table, and to read all of a large one would make it larger. */
	if ((uint64_t)scratch == area->start || area->end - area->start > MOST_SHARED)
		return;
	this->base = scratch->memory_size;
	write_range(this, area->start, area->end);
	scratch->memory_size = this->base + area->end - area->start;
	lcp_fact_numbers(scratch, "area", (const uint64_t[]){ area->start, area->end, this->base }, 3);
}

/* Call a function for each area of this process but the kernel's own: [vvar], [vvar_vclock], [vdso], [vsyscall]. */
static void for_each_area(struct scratch *scratch, void (*call)(struct writer *this))
{
	long size = lcp_slurp("/proc/self/maps", scratch->maps, sizeof(scratch->maps));
	uint64_t size_of_all = 0;
	struct area area;
	struct writer writer = { scratch, &area, -1, -1, 0, 0 };

	writer.pagemap = (int)SYSCALL3(open, "/proc/self/pagemap", 02000000, 0);
	writer.own_memory = (int)SYSCALL3(open, "/proc/self/mem", 02000000, 0);
	if (size < 0 || writer.pagemap < 0 || writer.own_memory < 0) {
		fail(scratch, size < 0 ? size : writer.pagemap < 0 ? writer.pagemap : writer.own_memory);
		return;
	}
	for (char *line = scratch->maps, *end; *line && !scratch->error; line = end + 1) {
		for (end = line; *end != '\n'; end++)
			;
		*end = '\0';
		parse(&area, line);
		size_of_all += area.end - area.start;
		if (!lcp_begins(area.path, "[v"))
			call(&writer);
	}
	SYSCALL1(close, writer.pagemap);
	SYSCALL1(close, writer.own_memory);
	/* What a fork leaves out (MADV_DONTFORK) a twin lacks. */
	if (scratch->size_of_all && scratch->size_of_all != size_of_all)
		lcp_fact_numbers(scratch, "unforkable", &scratch->size_of_all, 1);
	scratch->size_of_all = size_of_all;
}

static void write_if_shared(struct writer *this)
{
	if (is_nameless(this->area) && !has_descriptor(this->scratch, this->area))
		write_shared(this);
}

static void write_if_private(struct writer *this)
{
	if (!this->area->is_shared)
		write_area(this);
}

void lcp_write_shared_memory(struct scratch *scratch)
{
	for_each_area(scratch, write_if_shared);
}

void lcp_write_memory(struct scratch *scratch)
{
	for_each_area(scratch, write_if_private);
	if (!scratch->error && !scratch->native->is_trial && SYSCALL2(ftruncate, scratch->native->memory, scratch->memory_size))
		fail(scratch, -ENOSPC);
	lcp_write_facts(scratch);
}
#endif
