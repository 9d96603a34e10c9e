/*
 * What a copy is given of this process.
 */
#ifndef LIBCRIU_PY_HANDOVER_H
#define LIBCRIU_PY_HANDOVER_H

#include <limits.h>

struct inherited_fds;
struct launch;
struct problem;
struct request;
struct self;
struct snapshot;

int lcp_print_request(const struct launch *launch, const struct snapshot *snapshot);

/* Describe what the program is to be given of this process, with the descriptors of `inherited`; 0 or -1. */
int lcp_fill_request(struct request *request, const struct launch *launch, const struct snapshot *snapshot,
		     const struct self *self, struct inherited_fds *inherited, char cwd[PATH_MAX], struct problem *problem);

#endif
