/*
 * Snapshots of an interpreter, whose copies take Python's own command line.
 */
#ifndef LCP_INTERPRETER_H
#define LCP_INTERPRETER_H

#include "restore/snapshot.h"

/* Whether the snapshot is of an interpreter. */
int lcp_is_interpreter(const struct snapshot *snapshot);

/*
 * Whether only a new interpreter can be what Python would be with these arguments, here and now: for options that are read at
 * its start, or modules that would be found in another place.
 */
int lcp_interpreter_is_to_start(const struct snapshot *snapshot, char *const *arguments);

#endif
