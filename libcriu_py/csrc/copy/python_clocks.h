/*
 * Python's monotonic clocks, which go on from the dump where the kernel's do not.
 */
#ifndef LCP_PYTHON_CLOCKS_H
#define LCP_PYTHON_CLOCKS_H

#include <stdint.h>

/* cdef: begin */

/*
 * Have a function of the module time, by the address of its PyMethodDef, read a clock that `lcp_go_on_from` sets; its
 * former function, to be put back by `lcp_put_back_clock`.
 */
uintptr_t lcp_replace_clock(uintptr_t method, int nanoseconds);
void lcp_put_back_clock(uintptr_t method, uintptr_t former);
/* Have replaced clocks go on from a reading of CLOCK_MONOTONIC. */
void lcp_go_on_from(int64_t nanoseconds);
/* What the replaced ones read, or those that were not. */
int64_t lcp_monotonic(void);

/* cdef: end */

#endif
