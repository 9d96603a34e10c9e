/*
 * Asking a standby pool for a copy that waits already.
 */
#ifndef LCP_STANDBY_H
#define LCP_STANDBY_H

#include <stddef.h>
#include <sys/types.h>

/* cdef: begin */

/* The name of the socket on which copies of a snapshot wait, of its manifest; 0 or -errno. */
int lcp_standby_name(const char *manifest, char *name, size_t size);
/* Describe what a copy in this mode would inherit from this process, as lines of text; its length or -errno. */
ssize_t lcp_standby_describe(const char *mode, char *text, size_t size);

/* cdef: end */

/*
 * Ask the pool at `path` for a copy, with that text; 0 or -errno. `fds` gets the channel of its supervisor, the
 * hand-over's socket and its pidfd, for the caller to close.
 */
int lcp_standby_take(const char *path, const char *text, size_t size, int *fds);

#endif
