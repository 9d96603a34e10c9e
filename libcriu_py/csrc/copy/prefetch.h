/*
 * Copying pages that this process is going to write to.
 */
#ifndef LCP_PREFETCH_H
#define LCP_PREFETCH_H

/* cdef: begin */

/*
 * Copy pages that this process is going to write to, as a file says (libcriu_py/memory/working_set.py); 0 or -errno.
 */
int lcp_prefetch(const char *path);

/* cdef: end */

#endif
