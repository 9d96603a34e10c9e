/*
 * Restoring in a supervisor: criu is watched, and does not outlive those who wait for it.
 */
#ifndef LCP_RESTORING_H
#define LCP_RESTORING_H

#include <sys/types.h>

struct lcp_job;

/* In the caller, before it starts a supervisor: make the page in which the processes of a restore note pids; 0 or -errno. */
int lcp_restoring_begin(void);
/* In the caller: the pid of the criu that was started, in the pid namespace of its supervisor; 0: none. */
pid_t lcp_restoring_criu(void);
/* In the supervisor: let criu restore; the pid of the program, a child. A failure is told, and ends this process. */
pid_t lcp_restore_program(const struct lcp_job *job, int channel);
/*
 * The same where the supervisor is pid 1, as the child of a process between. That ends with the program; if it is killed
 * before, the program becomes a child of pid 1.
 */
pid_t lcp_restore_between(const struct lcp_job *job, int channel, pid_t *between);

#endif
