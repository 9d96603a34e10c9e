/*
 * What a supervisor is asked for.
 */
#ifndef LCP_JOB_H
#define LCP_JOB_H

#include <stdint.h>
#include "criu.h"

/* cdef: begin */

/* Kill the program when the process that asked for it is gone. */
#define LCP_DIE_WITH_CALLER 1
/*
 * Restore it in a session without a terminal, for a standby pool. Until the caller sends LCP_TAKEN, nothing that was
 * dumped with the program outlives it.
 */
#define LCP_STANDBY 2
/*
 * Start criu at once, send LCP_EVENT_SUPERVISED, and restore when the caller has sent a byte on the channel; without it
 * all ends.
 */
#define LCP_AWAIT_WORD 4
/*
 * In a pid namespace, restore the program as the child of a process between it and pid 1, until the caller sends
 * LCP_ORPHANED: getppid() is not 1.
 */
#define LCP_HAS_PARENT 8

struct lcp_job {
	int namespaces;          /* LCP_NS_* */
	int flags;               /* LCP_DIE_WITH_CALLER and so on */
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
	/*
	 * Called before criu is started, to make the directory for its log: a descriptor of it, or -errno. From then on the
	 * other is called, whatever happens to the caller: before a restored program is told of, or where there is none.
	 */
	int (*restores)(void *context);
	void (*restored)(void *context);
	void *context;
	/*
	 * Become the copy, in a child of the supervisor, in the place of criu's restore, or NULL. Does not return if it can.
	 * `report` is closed, by itself at an exec, once it may be told that the copy runs.
	 */
	void (*become)(void *context, int report);
};

/* cdef: end */

#endif
