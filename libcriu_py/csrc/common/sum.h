/*
 * CRC-32C of what is in files, against damage and not against tampering: by the processor's own instruction where it has
 * one, several GB a second, and else by a table.
 */
#ifndef LIBCRIU_PY_SUM_H
#define LIBCRIU_PY_SUM_H

#include <stddef.h>
#include <stdint.h>

/* cdef: begin */
/* Go on with a sum, at the beginning 0. */
uint32_t lcp_sum(uint32_t sum, const void *data, size_t size);
/* The sum of an open file, from its beginning to its end; 0, or -errno. */
int lcp_sum_file(int fd, uint32_t *sum);
/* cdef: end */

#endif
