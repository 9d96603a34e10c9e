/*
 * One restore, from the request to the end of the program: libcriu_py/copies/restore.py for the launcher.
 */
#ifndef LIBCRIU_PY_RESTORE_H
#define LIBCRIU_PY_RESTORE_H

struct launch;
struct problem;
struct restored;
struct snapshot;

/*
 * Check a snapshot, and restore it with this process's arguments, environment and streams; 0, after which signals are blocked, or -1.
 * It is 1 where that has failed and yet code of the program has run, which must not be started again then.
 */
int lcp_restore(struct restored *restored, const struct launch *launch, const struct snapshot *snapshot,
		struct problem *problem);
/* Behave as the program until it ends; its wait status. */
int lcp_restored_mirror(const struct restored *restored);
/* Whether any code of the program has run; if not, why. */
int lcp_restored_has_started(const struct restored *restored, int status, struct problem *problem);

#endif
