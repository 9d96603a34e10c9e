/*
 * Why criu refused, from its log. The exception and its hint are made in libcriu_py/criu/log.py.
 */
#ifndef LCP_REFUSAL_H
#define LCP_REFUSAL_H

struct problem;

/* Set the problem from the log in a work directory and the errno that criu reported. Returns -1. */
int lcp_explain_refusal(const char *directory, int error, struct problem *problem);

#endif
