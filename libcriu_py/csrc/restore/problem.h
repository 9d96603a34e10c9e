/*
 * Why something failed: one sentence and an exit status.
 */
#ifndef LCP_PROBLEM_H
#define LCP_PROBLEM_H

#define LAUNCHER_FAILED 125
#define SNAPSHOT_UNUSABLE 126

/* Which exception Python raises; 0: a plain one. */
#define FAILURE_SNAPSHOT 1   /* it cannot be used */
#define FAILURE_MODE 2       /* no privilege mode works */
#define FAILURE_NAMESPACES 3 /* making them failed: stage, errno */
#define FAILURE_REFUSED 4    /* by criu: libcriu's value, errno, log */

struct problem {
	int code;
	int failure, value, error, stage;
	int log;         /* descriptor of criu's log, or -1 */
	int is_stale;    /* files have changed, and nothing else is wrong: a new snapshot would do */
	char text[4096]; /* cut if longer */
};

/* Set it, unless it is NULL: nobody asks why. Returns -1, for the caller to return. */
int lcp_problem_set(struct problem *problem, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
#define lcp_failed(problem, ...) lcp_problem_set(problem, LAUNCHER_FAILED, __VA_ARGS__)
#define lcp_unusable(problem, ...) lcp_problem_set(problem, SNAPSHOT_UNUSABLE, __VA_ARGS__)
/* Add to the sentence. */
void lcp_problem_add(struct problem *problem, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
