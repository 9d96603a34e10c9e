/*
 * Become the process of a native snapshot, as an exec becomes a program: its memory and descriptors take the place of this
 * process's, and its own code goes on (common/plan.h). x86-64 only.
 */
#ifndef LCP_BECOME_H
#define LCP_BECOME_H

#include <stddef.h>
#include <stdint.h>

#include "become/why.h"

struct plan_header;

/* A plan that was checked, and fits this machine. */
struct plan {
	const struct plan_header *at;
	size_t size;
};

/* Open the plan in a snapshot's directory, and check it; 0 or -1. */
int lcp_plan_open(struct plan *plan, int directory, struct why *why);

enum become_flags {
	BECOME_QUIET = 1,        /* a conventional start is not told */
	BECOME_STOP = 2,         /* stop right before the program goes on, for tests */
	BECOME_WHOLE = 8,        /* each descriptor that this process was started with is needed under its number */
	BECOME_ALONE = 4,        /* nothing that is open above 2 is for the program, and who sent the request is told what fails */
};

struct become {
	int directory;           /* of the snapshot */
	int slot;                /* the copy's end of the request's socket */
	int control;             /* the other end, by which it is told how to start conventionally; or -1 */
	int report;              /* closed once the snapshot is not needed any more; or -1 */
	unsigned int flags;
	unsigned int absent;     /* bit n: standard stream n is closed, and its number is held */
	uint64_t blocked;        /* bit n: signal n + 1, as before this process blocked all */
	uint64_t ignored;        /* the same of those that this process was started to ignore */
	char *const *arguments;  /* of the program; may name descriptors. NULL: none */
	char *const *command;    /* of the conventional start, its program by a path that exec needs not find; or NULL */
	char *const *env;
};

/*
 * Become the process. Returns only if that cannot be, -1, with this process as it was, but its descriptors `slot`,
 * `control` and `report`, which are closed.
 */
int lcp_become(const struct become *this, const struct plan *plan, struct why *why);

#endif
