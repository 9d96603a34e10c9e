/*
 * Comparing the memory of a process with a file that is mapped.
 */
#ifndef LCP_NATIVE_COMPARE_H
#define LCP_NATIVE_COMPARE_H

#include <stdint.h>

/* cdef: begin */
/* How many bytes of memory, read from /proc/PID/mem, are as expected until the first that is not; or -errno. */
int64_t lcp_count_alike(int memory, uint64_t at, const char *expected, uint64_t size);
/* cdef: end */

#endif
