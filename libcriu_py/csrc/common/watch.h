/*
 * A criu that dumps, and what watches it: the program cannot, because criu has stopped it.
 */
#ifndef LCP_WATCH_H
#define LCP_WATCH_H

#include <sys/types.h>

/* cdef: begin */

/* Milliseconds that criu may take for a process: LIBCRIU_PY_CRIU_LIMIT seconds for each GB of memory that is begun. */
int lcp_dump_limit(int pid);

/* cdef: end */

/* In the process that is to watch a criu, before it forks that: all that criu leaves comes to this process. */
void lcp_prepare_watch(void);
/*
 * Watch a criu, a child of this process, to its end or for so long, and end with all that it has left. If it is stopped,
 * it is continued. No memory is allocated: this process may be a fork of one with threads.
 */
void lcp_watch(pid_t criu, int limit_ms) __attribute__((noreturn));

#endif
