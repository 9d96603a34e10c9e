/*
 * Holding descriptors open in a process outside of this one's tree.
 */
#ifndef LCP_FD_STORE_H
#define LCP_FD_STORE_H

#include <stddef.h>

/* cdef: begin */

/* Hold `fds` open in a process outside this one's tree. `name` gets the abstract socket to fetch them from. */
int lcp_store_fds(const int *fds, int count, char *name, size_t size, int *keeper);
int lcp_fetch_stored_fds(const char *name, int *fds, int count);

/* cdef: end */

#endif
