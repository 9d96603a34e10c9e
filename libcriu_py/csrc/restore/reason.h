/*
 * Why criu refused, as far as its log tells: what `refusal` of libcriu_py/errors.py finds.
 */
#ifndef LIBCRIU_PY_REASON_H
#define LIBCRIU_PY_REASON_H

struct problem;

/* Set the problem from the log in a work directory, and from the errno that criu reported. Returns -1. */
int lcp_reason_of_refusal(int work, int error, struct problem *problem);

#endif
