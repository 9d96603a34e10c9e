/*
 * Whether this machine, its kernel and this process can run what a plan is of.
 */
#ifndef LCP_MACHINE_H
#define LCP_MACHINE_H

struct plan_header;
struct why;

/* 0, or -1 with the reason. */
int lcp_machine_check(const struct plan_header *plan, struct why *why);

#endif
