/*
 * The pages that starts write to.
 */
#ifndef LIBCRIU_PY_START_H
#define LIBCRIU_PY_START_H

#include "manifest.h"

struct lcp_learning;

/* Have the copy that has the other end of this socket fetch them ahead, where it is known which. */
void start_send(int control, const struct snapshot *snapshot);
/* Begin to learn them from a copy whose memory is mapped from these files; NULL where nothing is to be learned. */
struct lcp_learning *start_learn(const struct snapshot *snapshot, const int *fds, int count);

#endif
