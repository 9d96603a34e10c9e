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
 * Check a snapshot, and restore it with this process's arguments, environment and streams. Returns 0, after which signals
 * are blocked, or -1; 1 if the restore failed after code of the program had run, which must not be started again then.
 */
int lcp_restore(struct restored *restored, const struct launch *launch, const struct snapshot *snapshot,
		struct problem *problem);
/* Whether a signal is one by which users end programs. */
int lcp_is_ending_signal(int sig);

#endif
