/*
 * Pages that a copy is going to use, seen in one and fetched in another.
 */
#ifndef LCP_PAGES_H
#define LCP_PAGES_H

#include <stdint.h>

/* cdef: begin */

/*
 * Write into `fd` which private pages a process has in use, and which of them it has written; 0 or -errno, which is
 * -E2BIG if it has written more than `limit` bytes.
 */
int lcp_list_pages(int pid, uint64_t limit, int fd);
/* Fetch the pages of such a file into this process, whose contents stay as they are. */
void lcp_fetch_pages(int fd);

/* The table of a process's pages; the descriptor or -errno. */
int lcp_open_pagemap(int pid);

/* cdef: end */

/* Bits of an entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst). */
#define PAGE_PRESENT (1ull << 63)
#define PAGE_SWAPPED (1ull << 62)
#define PAGE_OF_FILE (1ull << 61)

/* What a file of pages consists of. */
struct lcp_range {
	uint64_t start, end;
	uint64_t written; /* it is the process's own, and no longer a file's */
};

#endif
