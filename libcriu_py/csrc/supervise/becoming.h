/*
 * A copy that needs no criu: a child of the supervisor becomes it.
 */
#ifndef LCP_BECOMING_H
#define LCP_BECOMING_H

#include <sys/types.h>

struct lcp_job;

/* In the supervisor: start the process that becomes the copy; its pid. A failure is told, and ends this process. */
pid_t lcp_become_program(const struct lcp_job *job, int channel);

#endif
