/*
 * One restore, from the request to the running copy.
 */
#ifndef LCP_RESTORE_H
#define LCP_RESTORE_H

struct launch;
struct problem;
struct restored;
struct snapshot;

/*
 * Check a snapshot, and restore it with this process's arguments, environment and streams. Returns 0, with all signals
 * blocked, or -1. Returns 1 if the restore failed after program code had run: it must not be started again.
 */
int lcp_restore(struct restored *restored, const struct launch *launch, const struct snapshot *snapshot,
		struct problem *problem);
/* Whether a signal is one by which users end programs. */
int lcp_is_ending_signal(int sig);

#endif
