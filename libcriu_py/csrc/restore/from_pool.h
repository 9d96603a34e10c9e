/*
 * Use a copy that a standby pool has restored already (libcriu_py/copies/standby).
 */
#ifndef LCP_FROM_POOL_H
#define LCP_FROM_POOL_H

struct launch;
struct restored;
struct own_status;
struct snapshot;

/* Claim a waiting copy and hand the request over to it. Returns whether there was one. */
int lcp_claim_copy(struct restored *restored, const struct launch *launch, const struct snapshot *snapshot,
		  const struct own_status *own);

#endif
