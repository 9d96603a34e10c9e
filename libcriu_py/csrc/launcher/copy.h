/*
 * Being the program of a snapshot.
 */
#ifndef LCP_COPY_H
#define LCP_COPY_H

struct launch;
struct problem;
struct snapshot;

/* Restore and be the program; returns only if no program code has run, with the reason. */
void lcp_be_copy(const struct launch *launch, const struct snapshot *snapshot, struct problem *problem);

#endif
