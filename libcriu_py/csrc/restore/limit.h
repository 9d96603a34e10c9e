/*
 * How long criu may take, and the end of what it leaves.
 */
#ifndef LCP_LIMIT_H
#define LCP_LIMIT_H

struct snapshot;

/* The milliseconds that a restore may take: LIBCRIU_PY_CRIU_LIMIT for each GB of the snapshot, rounded up. */
int lcp_restore_limit(const struct snapshot *snapshot);
/*
 * Outside of pid namespaces: let what a supervisor leaves that is killed come to this process, not to the nearest reaper
 * above it.
 */
void lcp_orphans_begin(void);
/* No longer; and, where a snapshot was not restored, end criu and what it made, which has the pids of the images. */
void lcp_orphans_end(const struct snapshot *failed);

#endif
