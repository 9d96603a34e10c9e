/*
 * Observing which pages a process has written to, until its end.
 */
#ifndef LCP_OBSERVE_H
#define LCP_OBSERVE_H

#include <stddef.h>
#include <stdint.h>

/* cdef: begin */

/* Set a byte for each page of a private file mapping that was written to; 0 or -errno. */
int lcp_written_pages(int pagemap, uint64_t first, size_t count, unsigned char *written);
/* Trace a process, to have it stop when it ends; 0 or -errno. */
int lcp_observe(int pid);
/* 1 when it has stopped for that, 0 when it goes on, -ESRCH when it is gone. */
int lcp_is_ending(int pid);
/* Let it end. */
int lcp_stop_observing(int pid);

/* cdef: end */

#endif
