/*
 * sys.flags, for options that a running interpreter can still follow.
 */
#ifndef LCP_FLAGS_H
#define LCP_FLAGS_H

/* cdef: begin */

/* Set an item of sys.flags, in place: modules may hold on to it. 0 or -1. */
int lcp_set_flag(void *flags, int item, long value);

/* cdef: end */

#endif
