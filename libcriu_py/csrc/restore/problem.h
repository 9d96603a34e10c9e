/*
 * Why something cannot be done: one sentence, and the exit status that goes with it.
 */
#ifndef LIBCRIU_PY_PROBLEM_H
#define LIBCRIU_PY_PROBLEM_H

#define LAUNCHER_FAILED 125
#define SNAPSHOT_UNUSABLE 126

/* What kind of exception Python makes of it, 0 for a plain one. */
#define FAILURE_SNAPSHOT 1   /* it cannot be used here */
#define FAILURE_MODE 2       /* no way to be allowed */
#define FAILURE_NAMESPACES 3 /* they could not be made: stage, errno */
#define FAILURE_REFUSED 4    /* by criu: libcriu's value, errno, log */

struct problem {
	int code;
	int failure, value, error, stage;
	int log;         /* the descriptor of criu's, or -1 */
	char text[4096]; /* cut where it would be longer */
};

/* Set it; returns -1, to be returned. */
int lcp_problem_set(struct problem *problem, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Add to the sentence. */
void lcp_problem_add(struct problem *problem, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
