/*
 * Why something cannot be done: one sentence, and the exit status that goes with it.
 */
#ifndef LIBCRIU_PY_PROBLEM_H
#define LIBCRIU_PY_PROBLEM_H

#define LAUNCHER_FAILED 125
#define SNAPSHOT_UNUSABLE 126

struct problem {
	int code;
	char text[4096]; /* cut where it would be longer */
};

/* Set it; returns -1, to be returned. */
int problem_set(struct problem *problem, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Add to the sentence. */
void problem_add(struct problem *problem, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
