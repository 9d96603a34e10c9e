/*
 * Be a copy that a standby pool has restored already: libcriu_py/copies/standby.py for the launcher.
 */
#ifndef LIBCRIU_PY_TAKE_H
#define LIBCRIU_PY_TAKE_H

struct launch;
struct restored;
struct self;
struct snapshot;

/* Take a copy and hand the request over to it; whether there was one. */
int lcp_take_copy(struct restored *restored, const struct launch *launch, const struct snapshot *snapshot,
		  const struct self *self);

#endif
