/*
 * What a supervisor and its caller tell each other.
 */
#ifndef LCP_EVENTS_H
#define LCP_EVENTS_H

#include <stdint.h>

/* cdef: begin */

/* What an event tells. */
#define LCP_EVENT_FAILED 1
#define LCP_EVENT_STARTED 2
#define LCP_EVENT_STOPPED 3
#define LCP_EVENT_ENDED 5
#define LCP_EVENT_SUPERVISED 6

struct lcp_event {
	int32_t kind;   /* LCP_EVENT_* */
	int32_t value;  /* pid, signal, wait status, or libcriu's return value */
	int32_t error;  /* errno of a failure */
	int32_t stage;  /* LCP_STAGE_* */
};

/* Next event: 1 got, 0 time is up, -EPIPE the supervisor is gone, -errno. `pidfd` is set by LCP_EVENT_STARTED. */
int lcp_next_event(int channel, int timeout_ms, struct lcp_event *event, int *pidfd);

/* cdef: end */

/* A caller sends it on the channel when its parent is init: so is the program's to be. */
#define LCP_ORPHANED 'O'
/* A launcher sends it before its request: the copy waits no longer, and what it leaves may outlive it. */
#define LCP_TAKEN 'G'

/* Let a supervisor of a job with LCP_AWAIT_WORD go on; 0 or -errno. */
int lcp_give_word(int channel);
/* Tell the caller of a supervisor what has happened, with a descriptor or -1. */
void lcp_tell(int channel, int kind, int value, int error, int stage, int fd);
/* Tell that a job has failed, and end. */
void lcp_fail(int channel, int value, int error, int stage) __attribute__((noreturn));

#endif
