/*
 * The C side of the binding: starting criu, and calling libcriu with the
 * calling thread's signals blocked.
 *
 * Everything between the cdef marks is handed to cffi as it stands (see
 * build_ffi.py), so nothing but plain declarations may stand there.
 */
#ifndef LCP_NATIVE_H
#define LCP_NATIVE_H

#include <stdbool.h>
#include <stddef.h>

#include "criu.h"

/* Exported by libcriu, absent from criu.h up to and including CRIU 4.3. */
void criu_local_set_unprivileged(criu_opts *opts, bool unprivileged);

/* Implemented in Python (criu/native.py). */
int lcp_notify(char *action, criu_notify_arg_t na);
int lcp_more(criu_predump_info pi);

/* cdef: begin */
enum lcp_operation {
	LCP_CHECK,
	LCP_DUMP,
	LCP_PRE_DUMP,
	LCP_DUMP_ITERS,
	LCP_RESTORE,
	LCP_RESTORE_CHILD,
	LCP_VERSION,
	LCP_FEATURES,
};

/* What a criu started for us gets besides its command line. */
struct lcp_child {
	char **environment;  /* NULL: the caller's */
	const int *keep_fds; /* kept open over the exec, whatever their close-on-exec flag */
	size_t keep_count;
	int output_fd; /* becomes its stdout and stderr; -1: the caller's */
};

/*
 * Start `binary swrk` on one end of a socket pair and return the other end,
 * or -errno. *pid is the criu process, a child of the caller, or 0 when
 * `detached`: then criu is outside the caller's tree, and no zombie is left; it
 * dumps the caller, and is ended if that takes longer than lcp_dump_limit().
 * Else nothing is waited for longer than `limit_ms`, which is told by EAGAIN; 0: no limit.
 */
int lcp_spawn_service(const char *binary, const struct lcp_child *child, bool detached, int limit_ms, int *pid);

/* Wait for a criu that was started attached; returns its wait status or -errno. */
int lcp_reap_service(int pid);

/*
 * Run one libcriu operation with all signals of the calling thread blocked and
 * return its result; *error receives errno. `child` applies to the criu that
 * libcriu itself starts, which is the one of LCP_RESTORE_CHILD.
 */
int lcp_call(enum lcp_operation operation, criu_opts *opts, const struct lcp_child *child,
	     struct criu_feature_check *features, int *error);
/* cdef: end */

#endif
