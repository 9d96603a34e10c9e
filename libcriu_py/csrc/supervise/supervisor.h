/*
 * The supervisor, which restores or starts a program, and reports what becomes of it.
 */
#ifndef LCP_SUPERVISOR_H
#define LCP_SUPERVISOR_H

#include <stdint.h>
#include <sys/types.h>
#include "criu.h"

/* cdef: begin */

/* Kill the program when the process that asked for it is gone. */
#define LCP_DIE_WITH_CALLER 1
/*
 * Restore it in a session without a terminal, for a standby pool. Until the caller sends a byte on the channel, which
 * says that the copy was claimed, the copy ends with the caller.
 */
#define LCP_STANDBY 2
/*
 * Start criu at once, send LCP_EVENT_SUPERVISED, and restore when the caller has sent a byte on the channel; without it
 * all ends.
 */
#define LCP_AWAIT_WORD 4

struct lcp_job {
	int namespaces;          /* LCP_NS_* */
	int flags;               /* LCP_DIE_WITH_CALLER, LCP_STANDBY */
	uint64_t ambient;        /* capability bits that criu, or the program, is given */
	int last_pid;            /* pids of a new pid namespace begin after it; 0: leave */
	int64_t monotonic;       /* nanoseconds from which these clocks go on for a restored program; 0: leave */
	int64_t boottime;
	const int *inherit;      /* descriptors to be kept over an exec */
	int inherit_count;
	criu_opts *restore;      /* options of a restore, or NULL to exec */
	char *const *argv;       /* program to exec, without any capability */
	char *const *env;        /* its environment, or criu's */
	const char *service;     /* abstract socket on which that program is served a criu, or NULL */
	char *const *criu_argv;  /* command of that criu but the last word, the descriptor */
	char *const *criu_env;
	void (*restored)(void *context); /* called in the supervisor before it tells of a restored program, or NULL */
	void *context;
	/*
	 * Become the copy, in a child of the supervisor, in the place of criu's restore, or NULL. Does not return if it can.
	 * `report` is closed, by itself at an exec, once it may be told that the copy runs.
	 */
	void (*become)(void *context, int report);
};

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

/* In the supervisor (restored.c): have criu restore the program. Each of these ends the supervisor if there is none. */
pid_t lcp_restore_program(const struct lcp_job *job, int channel);
/* Start a process that becomes the program, and itself tells its caller if it cannot. */
pid_t lcp_become_program(const struct lcp_job *job, int channel);

#endif
