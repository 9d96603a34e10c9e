/*
 * The options of a restore, and the descriptors that replace the dumped ones.
 */
#ifndef LCP_CRIU_OPTIONS_H
#define LCP_CRIU_OPTIONS_H

#include <stdbool.h>
#include "criu.h"
#include "restore/problem.h"
#include "restore/snapshot.h"

#define INHERITED (5 + MEMORY_FILES) /* stdin, stdout, stderr, request, images, memory */

struct inherited {
	int fds[INHERITED];
	const char *keys[INHERITED];
	int count;
};

/* Open the descriptors for the copy, with the request's socket `slot`; 0 or -1. */
int lcp_open_inherited(struct inherited *inherited, const struct snapshot *snapshot, int slot, struct problem *problem);
void lcp_close_inherited(struct inherited *inherited);

/* Make the options of a restore, for the caller to free; 0 or -1. */
int lcp_make_options(criu_opts **opts, const char *criu, const struct inherited *inherited, int images,
		     const struct snapshot *snapshot, struct problem *problem);

#endif
