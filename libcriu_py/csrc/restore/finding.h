/*
 * What does not fit a snapshot: reasons, of which the first few are given in full.
 */
#ifndef LIBCRIU_PY_FINDING_H
#define LIBCRIU_PY_FINDING_H

#include <stdint.h>
#include "restore/problem.h"

struct order;
struct record_compared;
struct snapshot;
struct stat;

struct finding {
	struct problem *problem;
	const char *path;    /* of the snapshot */
	int count;
	int is_listed;       /* print each reason, with a NUL at its end, instead of joining some to a sentence */
};

/* Begin a further reason: whether it is to be written. */
int lcp_finding_add(struct finding *finding);

#define found(finding, ...) \
	do { \
		if (lcp_finding_add(finding)) \
			lcp_problem_add((finding)->problem, __VA_ARGS__); \
	} while (0)

/* Compare size and mtime. */
int lcp_is_changed(const struct record_compared *file, const struct stat *status);
/* Only the mtime. */
int lcp_is_touched(const struct record_compared *file, const struct stat *status);
/* FNV-1a of a text. */
uint64_t lcp_hash(const char *text);
/* Compare variables that the program has read with those of an order, or of this process. */
void lcp_check_reads(struct finding *finding, const struct snapshot *snapshot, const struct order *order);
/* Compare packages and importable names with those of the dump (libcriu_py/snapshot/installed.py). */
void lcp_check_installed(struct finding *finding, const struct snapshot *snapshot);

#endif
