/*
 * Snapshots of the native engine, which this process, or a child of a supervisor, becomes; and which engine is wanted.
 */
#ifndef LCP_ENGINE_H
#define LCP_ENGINE_H

struct launch;
struct own_status;
struct problem;
struct restored;
struct snapshot;

enum engine { ENGINE_UNSET, ENGINE_AUTO, ENGINE_NATIVE, ENGINE_CRIU, ENGINES };

/* The engine of that name; -1 for none. */
int lcp_engine_of(const char *name);
/* Refuse a snapshot of another engine than the one that is asked for; 0 or -1. */
int lcp_engine_check(const struct launch *launch, const struct snapshot *snapshot, struct problem *problem);
int lcp_is_native(const struct snapshot *snapshot);

/* Become the copy. Returns only if that cannot be: -1, with the problem. */
int lcp_become_native(const struct launch *launch, const struct snapshot *snapshot, const struct own_status *own,
		      struct problem *problem);
/* Have a child of a supervisor become the copy, for the order of the launch; 0 or -1. */
int lcp_supervise_native(struct restored *restored, const struct launch *launch, const struct snapshot *snapshot,
			 struct problem *problem);

#endif
