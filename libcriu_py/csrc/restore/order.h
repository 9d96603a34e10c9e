/*
 * Restores for libcriu_py/copies/order.py: an order is one flat record in a memfd, and a status socket carries the
 * events of the copy.
 */
#ifndef LCP_ORDER_H
#define LCP_ORDER_H

#include "restore/request.h"

struct problem;
struct restored;

#define ORDER_VERSION 1

#define ORDER_ISOLATE 1          /* a pid namespace also where the pids look free */
#define ORDER_DIE_WITH_CALLER 2  /* the copy ends with the status socket */
#define ORDER_MAY_TAKE 4         /* a standby pool's copy will do */
#define ORDER_STANDBY 8          /* the copy waits for its request; hand its descriptors to the caller */
#define ORDER_HOLD 16            /* send the request when a byte has come on the status socket */
#define ORDER_VERIFY(flags) ((flags) >> 5 & 3) /* enum verify, of which 0 leaves it to the variable */
#define ORDER_ENGINE(flags) ((flags) >> 7 & 3) /* enum engine, of which 0 leaves it to the variable */
#define ORDER_FLAGS (511) /* all that are known */

/* The first number of each message; the others are listed here, and a text follows. */
#define STATUS_RESTORED 1 /* pid, whether from a pool; the conventional command, each word with a NUL; the pidfd */
#define STATUS_TOLD 2     /* a message of the copy */
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
/* Tell why the restore failed. */
void lcp_order_failed(const struct order *order, const struct problem *problem);
/* Tell of the copy until it ends; the exit status. `command`: its conventional command. */
int lcp_order_serve(const struct order *order, const struct restored *restored, char *const *command);

#endif
