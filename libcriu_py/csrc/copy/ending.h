/*
 * The end of a copy without interpreter teardown, in C where there is nothing to do for it (libcriu_py/exit.py).
 */
#ifndef LCP_ENDING_H
#define LCP_ENDING_H

/*
 * End this process with a status, if that needs no more than flushing Python's streams; else return.
 *
 * `objects` is what exit.for_ending() has returned before the dump.
 */
void lcp_end_if_simple(void *objects, int status);

#endif
