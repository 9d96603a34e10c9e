/*
 * Act as the restored program.
 */
#ifndef LCP_PROXY_H
#define LCP_PROXY_H

#include <sys/types.h>

/* cdef: begin */

/*
 * Behave as the program that `pidfd` is until it ends; its wait status in `status`.
 * `terminal`: it has a session of its own, so the terminal's signals are passed on too.
 * `handed`: descriptors that were passed on to it, or NULL.
 */
struct lcp_handed {
	int control;             /* the socket on which it tells that its own code runs */
	const int *fds;          /* to be closed then, or a pipe would never end here; until then it can be started otherwise */
	int count;
	int parent;              /* of lcp_watch_parent, called again when it has ended; -1: does not matter */
};
int lcp_proxy(int channel, int pidfd, int terminal, const struct lcp_handed *handed, int *status);

/* cdef: end */

/*
 * End a copy, and its children, whose supervisor was killed: nobody else can, or report its end. It does and says nothing
 * any more.
 */
void lcp_end_orphan(int pidfd);
/* Whether the program of a copy has begun: it has said so, and that is still to be read. */
int lcp_has_said_so(int control);
/* The pid behind a pidfd in our pid namespace; 0 if it has ended. */
pid_t lcp_pid_behind(int pidfd);

#endif
