/*
 * The request of a launcher: what a copy gets of this process.
 */
#ifndef LCP_HANDOVER_H
#define LCP_HANDOVER_H

#include <limits.h>

struct inherited_fds;
struct launch;
struct problem;
struct request;
struct restored;
struct own_status;
struct snapshot;

int lcp_print_request(const struct launch *launch, const struct snapshot *snapshot);

/* Describe this process in a request, with its descriptors in `inherited`; 0 or -1. */
int lcp_fill_request(struct request *request, const struct launch *launch, const struct snapshot *snapshot,
		     const struct own_status *own, struct inherited_fds *inherited, char cwd[PATH_MAX],
		     struct problem *problem);

/* The same of all but its descriptors above 2. */
int lcp_describe_self(struct request *request, const struct launch *launch, const struct snapshot *snapshot,
		      const struct own_status *own, char cwd[PATH_MAX], struct problem *problem);

/*
 * Send the memfd of a request with the streams in `pass` and the inherited descriptors; 0 or -errno, that of making the
 * memfd if `file` is one.
 */
int lcp_send_request(int control, int file, unsigned int pass, const struct inherited_fds *inherited);

/* Withdraw the request from a copy that has not read it, and so ends without; 0 or -1. `slot` is the copy's socket. */
int lcp_withdraw_request(int slot);

/* Wait for a copy that has read its request: whether its program has begun, or it has ended instead. */
int lcp_has_begun(int control);

/* Send the signals that came before the program ran; one that was typed later has reached it by itself. */
void lcp_pass_on_early(int signals, const struct restored *restored);

#endif
