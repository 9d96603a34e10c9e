/*
 * What libcriu_py/copies/order.py asks for and is told: an order is one flat record in a memfd, and a status socket carries what
 * becomes of it.
 */
#ifndef LIBCRIU_PY_ORDER_H
#define LIBCRIU_PY_ORDER_H

#include "restore/request.h"

struct problem;
struct restored;

#define ORDER_VERSION 1

#define ORDER_ISOLATE 1          /* a pid namespace also where the pids look free */
#define ORDER_DIE_WITH_CALLER 2  /* the copy ends with the status socket */
#define ORDER_MAY_TAKE 4         /* a copy of a standby pool will do */
#define ORDER_STANDBY 8          /* make a copy that waits for its request, and hand over all that belongs to it */
#define ORDER_HOLD 16            /* send the request when a byte has come on the status socket */
#define ORDER_FLAGS (ORDER_ISOLATE | ORDER_DIE_WITH_CALLER | ORDER_MAY_TAKE | ORDER_STANDBY | ORDER_HOLD)

/* The first number of each message: how many others mean what is said with it; a text follows. */
#define STATUS_RESTORED 1 /* pid, whether from a pool; the conventional command, its words separated by NULs; the pidfd */
#define STATUS_TOLD 2     /* what the copy says on the hand-over's socket */
#define STATUS_FAILED 3   /* errno, stage, value, FAILURE_*; why; criu's log */
#define STATUS_ENDED 4    /* wait status, stage: LCP_STAGE_LINGERING */

struct order {
	unsigned int flags;
	int mode;                     /* of enum mode */
	int status;                   /* the socket */
	const char *directory;        /* of the snapshot */
	const char *request;
	size_t request_size;
	struct inherited_fds passed;  /* in the order of the request */
};

/* Read an order; 0 or -1. */
int lcp_order_read(struct order *order, int fd);
/* The descriptor of a memfd with its request, or -errno. `pass`: bits of the streams that come before `passed`. */
int lcp_order_request(const struct order *order, unsigned int pass);
/* Tell why nothing was restored. */
void lcp_order_failed(const struct order *order, const struct problem *problem);
/* Tell of the copy, whose conventional command is an array of strings, until it ends; the exit status. */
int lcp_order_serve(const struct order *order, const struct restored *restored, char *const *command);

#endif
