/*
 * The supervisor, which restores or starts a program, and reports what becomes of it.
 */
#ifndef LCP_SUPERVISOR_H
#define LCP_SUPERVISOR_H

#include <sys/types.h>
#include "supervise/job.h"

/* cdef: begin */

/*
 * Start the supervisor of a job, a child of the caller; 0 or -errno. `channel` gets the socket on
 * which its events arrive; LCP_EVENT_SUPERVISED tells its pid.
 */
int lcp_supervise(const struct lcp_job *job, int *channel);

/* cdef: end */

/*
 * As lcp_supervise, for a caller of one thread and with all signals blocked: without the process between,
 * which costs a restore some 0.2 ms. `supervisor` gets its pid; no event tells it.
 */
int lcp_supervise_directly(const struct lcp_job *job, int *channel, pid_t *supervisor);

#endif
