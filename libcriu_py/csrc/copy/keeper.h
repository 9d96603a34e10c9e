/*
 * Holding descriptors open in a process outside of this one's tree.
 */
#ifndef LIBCRIU_PY_KEEPER_H
#define LIBCRIU_PY_KEEPER_H

#include <stddef.h>

/* cdef: begin */

/* Hold `fds` open in a process outside this one's tree; the abstract socket name to get them back is written to `name`. */
int lcp_keep_fds(const int *fds, int count, char *name, size_t size, int *keeper);
int lcp_take_fds(const char *name, int *fds, int count);

/* cdef: end */

#endif
