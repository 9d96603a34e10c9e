#ifndef LCP_STREAMS_H
#define LCP_STREAMS_H

#include "copy/arrival.h"

/*
 * Set up the standard streams that are of another kind than expected: 0, or -1 where all have to be set up in Python.
 * `plans` is what libcriu_py/dump/stdio.py says of each.
 */
int lcp_set_up_streams(void *plans, const struct lcp_arrival *arrival);

#endif
